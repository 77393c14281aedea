//! Changes that wait for the head of their response.
//!
//! The head queues them. One that comes late does not keep them from L2: what has waited for half a
//! second to a second is queued by one task, which runs while there is any.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::Engine;
use super::partition::{Partition, State};

/// A change waits for at least one of these, and at most two.
const PERIOD: Duration = Duration::from_millis(500);

#[derive(Default)]
pub(super) struct Deferred {
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
struct Waiting {
    partition: Weak<Partition>,
    ticket: u64,
}

impl Engine {
    /// Notes that a change waits for the head of its response.
    pub(super) fn defer(&self, partition: &Arc<Partition>, state: &mut State) {
        let pending = state.pending();
        // What is on its way, or tried again, takes everything along.
        if pending.queued || pending.sending || pending.stalled || pending.deferred.is_some() {
            return;
        }
        let mut lists = self.deferred.lists.lock();
        lists.tickets += 1;
        let ticket = lists.tickets;
        pending.deferred = Some(ticket);
        lists.fresh.push(Waiting {
            partition: Arc::downgrade(partition),
            ticket,
        });
    }

    /// Makes sure that what waits is swept. Called after [`defer`](Self::defer), without the lock.
    #[inline]
    pub(super) fn sweep_deferred(self: &Arc<Self>) {
        if !self.deferred.sweeping.load(Ordering::Acquire)
            && !self.deferred.sweeping.swap(true, Ordering::AcqRel)
        {
            self.runtime.spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// Queues everything that waits for a head, once.
    pub(super) fn queue_deferred(self: &Arc<Self>) {
        let (aged, fresh) = {
            let mut lists = self.deferred.lists.lock();
            (
                std::mem::take(&mut lists.aged),
                std::mem::take(&mut lists.fresh),
            )
        };
        self.queue_waiting(aged);
        self.queue_waiting(fresh);
    }

    /// Queues what has waited long enough; whether some is left.
    fn queue_aged(self: &Arc<Self>) -> bool {
        let aged = {
            let mut lists = self.deferred.lists.lock();
            let fresh = std::mem::take(&mut lists.fresh);
            let aged = std::mem::replace(&mut lists.aged, fresh);
            if aged.is_empty() && lists.aged.is_empty() {
                // Under the lock: whoever comes now starts another task.
                self.deferred.sweeping.store(false, Ordering::Release);
                return false;
            }
            aged
        };
        self.queue_waiting(aged);
        true
    }

    fn queue_waiting(self: &Arc<Self>, waiting: Vec<Waiting>) {
        if waiting.is_empty() {
            return;
        }
        for Waiting { partition, ticket } in waiting {
            // Most were queued long ago.
            let waits = |partition: &Arc<Partition>| partition.lock().is_deferred(ticket);
            let Some(partition) = partition.upgrade().filter(waits) else {
                continue;
            };
            self.partitions.with(&partition.key, |partition, state| {
                if state.is_deferred(ticket) {
                    self.push(partition, state);
                }
            });
        }
        self.wake();
    }
}

impl State {
    fn is_deferred(&self, ticket: u64) -> bool {
        let pending = self.pending.as_ref();
        pending.is_some_and(|pending| pending.deferred == Some(ticket))
    }
}

async fn sweep(engine: Weak<Engine>) {
    loop {
        tokio::time::sleep(PERIOD).await;
        let Some(engine) = engine.upgrade() else {
            return;
        };
        if !engine.queue_aged() {
            return;
        }
    }
}
