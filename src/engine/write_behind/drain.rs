//! The background tasks: they write what is queued, retry what has failed, and sweep L1.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use futures_util::future::select;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;

use crate::engine::core::Engine;
use crate::engine::partition::state::Partition;
use crate::engine::runtime::step::step;
use crate::engine::write_behind::queue::{
    FIRST_RETRY, LAST_RETRY, MAX_GROUP, MAX_GROUPS, SWEEP_EVERY,
};
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

    /// Refuses further changes. Pending work is written without further pauses.
    pub(crate) fn close(self: &Arc<Self>) {
        self.queue.closed.store(true, Ordering::SeqCst);
        self.l2.shards.reset();
        self.queue_all();
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
