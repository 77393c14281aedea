//! Putting the pending work of partitions into the queue.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc::error::TrySendError;

use crate::engine::core::Engine;
#[cfg(feature = "__tests")]
use crate::engine::namespace::Number;
use crate::engine::partition::state::{Partition, State};
use crate::key::PartitionKey;

impl Engine {
    /// Queues the pending work of a partition whose lock the caller has. [`wake`](Self::wake) follows, without the
    /// lock.
    pub(crate) fn push(&self, partition: &Arc<Partition>, state: &mut State) {
        #[cfg(test)]
        self.queue.pushes.fetch_add(1, Ordering::Relaxed);
        let pending = state.pending();
        pending.deferred = None;
        if !pending.queued && !pending.sending {
            pending.queued = true;
            self.queue.ready.lock().push_back(partition.clone());
        }
    }

    /// Wakes the task that writes what is queued.
    pub(crate) fn wake(self: &Arc<Self>) {
        // If it is full, a wake-up is under way already.
        if let Err(TrySendError::Closed(_)) = self.queue.wake.try_send(self.clone())
            && !self.queue.ended.swap(true, Ordering::Relaxed)
        {
            self.counters.l2_errors.add(1);
            tracing::error!(
                pending = self.budget.pending(),
                "the runtime of the token cache has ended: nothing is read from L2 or written to it any more"
            );
        }
    }

    /// Queues the pending work of this partition.
    pub(crate) fn enqueue(self: &Arc<Self>, key: &PartitionKey) {
        self.partitions
            .with(key, |partition, state| self.push(partition, state));
        self.wake();
    }

    /// Queues the pending work of every partition, also for requests that still run: they may end too late.
    /// Visits all active partitions.
    pub(super) fn queue_all(self: &Arc<Self>) {
        let keys = self.partitions.active();
        // A repeated simulation needs the same order.
        #[cfg(feature = "__tests")]
        let keys = {
            let mut keys = keys;
            let under = self.l2.number.known().unwrap_or(Number::FIRST);
            keys.sort_by_key(|key| *self.l2.id(key, under).digest());
            keys
        };
        for key in keys {
            self.partitions
                .with(&key, |partition, state| self.push(partition, state));
        }
        self.wake();
    }
}
