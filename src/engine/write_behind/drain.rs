//! The background tasks: they write what is queued, retry what has failed, and sweep L1.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use futures_util::future::select;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::engine::core::Engine;
#[cfg(feature = "__tests")]
use crate::engine::namespace::Number;
use crate::engine::partition::state::{Partition, State};
use crate::engine::runtime::step::step;
use crate::engine::write_behind::queue::{
    FIRST_RETRY, LAST_RETRY, MAX_GROUP, MAX_GROUPS, SWEEP_EVERY,
};
use crate::key::PartitionKey;
use crate::random::{SLIGHTLY, jittered};

impl Engine {
    /// Starts the background tasks, which end when the engine is dropped.
    pub(crate) fn start(self: &Arc<Self>, mut wakeups: mpsc::Receiver<Arc<Engine>>) {
        self.runtime.spawn(async move {
            while let Some(engine) = wakeups.recv().await {
                let written = step("flush", engine.clone().write_queued(&mut wakeups)).await;
                if written.is_none() {
                    engine.wake();
                }
            }
        });
        self.watch_number();
        self.send_owed_sign_outs();
        let weak = Arc::downgrade(self);
        self.runtime.spawn(async move {
            loop {
                tokio::time::sleep(SWEEP_EVERY).await;
                let Some(engine) = weak.upgrade() else { return };
                let sweep = async {
                    engine.partitions.sweep(engine.now()).await;
                    // Keeps the gauges of the `metrics` crate up to date.
                    engine.stats();
                };
                step("sweep", sweep).await;
            }
        });
    }

    /// Queues the pending work of this partition.
    pub(crate) fn enqueue(self: &Arc<Self>, key: &PartitionKey) {
        self.partitions
            .with(key, |partition, state| self.push(partition, state));
        self.wake();
    }

    /// Queues the pending work of every partition, also for requests that still run: they may end too late.
    /// Visits all active partitions.
    fn queue_all(self: &Arc<Self>) {
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

    /// Refuses further changes. Pending work is written without further pauses.
    pub(crate) fn close(self: &Arc<Self>) {
        self.queue.closed.store(true, Ordering::SeqCst);
        self.l2.shards.reset();
        self.queue_all();
    }

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

    /// Writes until nothing is queued. All groups share one task, so that writing takes at most one core and
    /// leaves the others to requests.
    async fn write_queued(self: Arc<Self>, wakeups: &mut mpsc::Receiver<Arc<Engine>>) {
        let mut groups = FuturesUnordered::new();
        loop {
            while groups.len() < MAX_GROUPS {
                let group = self.queue.take_group();
                if group.is_empty() {
                    break;
                }
                // A store that panics ends its group only; the group's work is retried.
                groups.push(step("write", self.clone().write_group(group)));
            }
            match groups.len() {
                0 => return,
                // The queue is read again after the next group ends, so no wake-up is needed.
                MAX_GROUPS => drop(groups.next().await),
                _ => drop(select(groups.next(), std::pin::pin!(wakeups.recv())).await),
            }
        }
    }

    /// Something was written: L2 answers.
    pub(crate) fn reset_backoff(self: &Arc<Self>) {
        self.queue.failures.store(0, Ordering::Relaxed);
        self.wake();
    }

    /// Sets a partition aside whose work has failed, to be retried.
    pub(crate) fn schedule_retry(self: &Arc<Self>, partition: Arc<Partition>) {
        self.queue.stalled.lock().push_back(partition);
        if !self.queue.retrying.swap(true, Ordering::AcqRel) {
            self.runtime.spawn(retry(Arc::downgrade(self)));
        }
    }

    /// Retries failed work. Returns whether some is left for later.
    fn retry_stalled(self: &Arc<Self>) -> bool {
        if self.l2.shards.refuse_writes() {
            return true;
        }
        // If one of several servers is away, the success of the others says nothing about it.
        let whole = self.l2.shards.take_writes();
        let count = match self.queue.failures.fetch_add(1, Ordering::Relaxed) {
            0 if whole => usize::MAX,
            _ => MAX_GROUP,
        };
        for partition in self.queue.take_stalled(count) {
            self.partitions.with(&partition.key, |partition, state| {
                state.pending().stalled = false;
                self.push(partition, state);
            });
        }
        self.wake();
        let left = self.queue.stalled.lock();
        self.queue
            .retrying
            .store(!left.is_empty(), Ordering::Release);
        !left.is_empty()
    }
}

/// Runs while some work is set aside.
async fn retry(engine: Weak<Engine>) {
    let mut failures = 0;
    loop {
        let pause = (FIRST_RETRY * 2_u32.pow(failures)).min(LAST_RETRY);
        tokio::time::sleep(jittered(pause, SLIGHTLY)).await;
        let Some(engine) = engine.upgrade() else {
            return;
        };
        let left = step("retry", async { engine.retry_stalled() }).await;
        if left == Some(false) {
            return;
        }
        failures = engine.queue.failures.load(Ordering::Relaxed).min(8);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.queue.is_closed() {
            // The shutdown has reported what is left.
            return;
        }
        let abandoned = self.budget.pending();
        if abandoned > 0 {
            tracing::error!(
                abandoned,
                "the token cache was dropped before L2 had its changes"
            );
        }
        let sign_outs = self.sign_outs.pending();
        let sign_outs = sign_outs.saturating_sub(self.sign_outs.kept());
        if sign_outs > 0 {
            tracing::error!(
                sign_outs,
                "the token cache was dropped before L2 had heard of its sign-outs: these sessions go on"
            );
        }
    }
}
