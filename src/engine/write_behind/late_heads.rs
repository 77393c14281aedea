//! Changes that wait for the head of their response.
//!
//! The head queues them. A late head does not keep them from L2: a change that has waited for half a second
//! to a second is queued by one task, which runs while there are any.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::engine::core::Engine;
use crate::engine::partition::state::{Partition, State};
use crate::engine::write_behind::deferred::Waiting;

/// A change waits for at least one period, and at most two.
const PERIOD: Duration = Duration::from_millis(500);

impl Engine {
    /// Notes that a change waits for the head of its response.
    pub(crate) fn defer(&self, partition: &Arc<Partition>, state: &mut State) {
        let pending = state.pending();
        // Work that is queued, under way or to be retried takes all changes along.
        if pending.queued || pending.sending || pending.stalled || pending.deferred.is_some() {
            return;
        }
        pending.deferred = Some(self.deferred.add(partition));
    }

    /// Makes sure that a task sweeps the waiting changes. Called after [`defer`](Self::defer), without the
    /// lock.
    #[inline]
    pub(crate) fn sweep_deferred(self: &Arc<Self>) {
        if self.deferred.needs_sweep() {
            self.runtime.spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// Queues now all changes that wait for a head.
    pub(crate) fn queue_deferred(self: &Arc<Self>) {
        self.queue_waiting(self.deferred.take_all());
    }

    fn queue_waiting(self: &Arc<Self>, waiting: Vec<Waiting>) {
        if waiting.is_empty() {
            return;
        }
        for Waiting { partition, ticket } in waiting {
            // Most were queued since.
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

async fn sweep(engine: Weak<Engine>) {
    loop {
        tokio::time::sleep(PERIOD).await;
        let Some(engine) = engine.upgrade() else {
            return;
        };
        match engine.deferred.take_aged() {
            Some(aged) => engine.queue_waiting(aged),
            None => return,
        }
    }
}
