//! The partitions whose changes wait for the head of their response.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::engine::partition::state::Partition;

#[derive(Default)]
pub(crate) struct Deferred {
    lists: Mutex<Lists>,
    /// A task looks at them.
    sweeping: AtomicBool,
}

#[derive(Default)]
struct Lists {
    /// Since the last sweep.
    fresh: Vec<Waiting>,
    /// Since the one before.
    aged: Vec<Waiting>,
    tickets: u64,
}

/// A partition whose changes wait, or did: those that were queued since stay until they are swept. It
/// is not kept in memory by this, as it is by changes that wait.
pub(crate) struct Waiting {
    pub(crate) partition: Weak<Partition>,
    pub(crate) ticket: u64,
}

impl Deferred {
    /// Lists the partition, under the ticket that is returned.
    pub(crate) fn add(&self, partition: &Arc<Partition>) -> u64 {
        let mut lists = self.lists.lock();
        lists.tickets += 1;
        let ticket = lists.tickets;
        lists.fresh.push(Waiting {
            partition: Arc::downgrade(partition),
            ticket,
        });
        ticket
    }

    /// Whether the caller has to start the task that sweeps.
    #[inline]
    pub(crate) fn needs_sweep(&self) -> bool {
        !self.sweeping.load(Ordering::Acquire) && !self.sweeping.swap(true, Ordering::AcqRel)
    }

    /// All that wait.
    pub(crate) fn take_all(&self) -> Vec<Waiting> {
        let mut lists = self.lists.lock();
        let mut all = std::mem::take(&mut lists.aged);
        all.append(&mut lists.fresh);
        all
    }

    /// Those that have waited since the sweep before the last; `None` when nothing is left, and the task
    /// ends.
    pub(crate) fn take_aged(&self) -> Option<Vec<Waiting>> {
        let mut lists = self.lists.lock();
        let fresh = std::mem::take(&mut lists.fresh);
        let aged = std::mem::replace(&mut lists.aged, fresh);
        if aged.is_empty() && lists.aged.is_empty() {
            // Under the lock: what is added from now on starts another task.
            self.sweeping.store(false, Ordering::Release);
            return None;
        }
        Some(aged)
    }
}
