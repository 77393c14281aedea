//! The partitions whose changes wait for the head of their response.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::engine::partition::state::Partition;

#[derive(Default)]
pub(crate) struct Deferred {
    lists: Mutex<Lists>,
    /// A task sweeps the lists.
    sweeping: AtomicBool,
}

#[derive(Default)]
struct Lists {
    /// Added since the last sweep.
    fresh: Vec<Waiting>,
    /// Added between the last two sweeps.
    aged: Vec<Waiting>,
    tickets: u64,
}

/// A partition whose changes wait for a head, or did: one that was queued since stays listed until it is
/// swept. This does not keep the partition in memory; its waiting changes do.
pub(crate) struct Waiting {
    pub(crate) partition: Weak<Partition>,
    pub(crate) ticket: u64,
}

impl Deferred {
    /// Lists the partition. Returns its ticket.
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

    /// Takes all that are listed.
    pub(crate) fn take_all(&self) -> Vec<Waiting> {
        let mut lists = self.lists.lock();
        let mut all = std::mem::take(&mut lists.aged);
        all.append(&mut lists.fresh);
        all
    }

    /// Takes those that were listed before the last sweep; `None` if nothing is left, so that the task ends.
    pub(crate) fn take_aged(&self) -> Option<Vec<Waiting>> {
        let mut lists = self.lists.lock();
        let fresh = std::mem::take(&mut lists.fresh);
        let aged = std::mem::replace(&mut lists.aged, fresh);
        if aged.is_empty() && lists.aged.is_empty() {
            // Under the lock: a partition that is added from now on starts another task.
            self.sweeping.store(false, Ordering::Release);
            return None;
        }
        Some(aged)
    }
}
