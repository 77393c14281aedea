//! The queue of partitions that have something to write.
//!
//! A partition is in the queue at most once. Failed work is set aside and retried with growing pauses until
//! L2 takes it. While L2 is away one group at a time is risked; once it is back the others follow.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::engine::partition::state::Partition;
use crate::random;
use crate::store::CommitId;

/// Partitions in one group: a round-trip of about half a megabyte.
pub(crate) const MAX_GROUP: usize = 64;
/// Groups under way at a time: L2 has others to work on while one is encoded.
pub(crate) const MAX_GROUPS: usize = 4;
pub(crate) const FIRST_RETRY: Duration = Duration::from_millis(50);
pub(crate) const LAST_RETRY: Duration = Duration::from_secs(1);
/// The interval between sweeps of expired partitions out of L1.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// The queue of an engine `E`, a parameter so that this file does not import the engine.
pub(crate) struct Queue<E> {
    pub(crate) ready: Mutex<VecDeque<Arc<Partition>>>,
    /// Partitions whose last work failed.
    pub(crate) stalled: Mutex<VecDeque<Arc<Partition>>>,
    /// A task is waiting to retry them.
    pub(crate) retrying: AtomicBool,
    /// Retries since the last successful write.
    pub(crate) failures: AtomicU32,
    /// A wake-up carries the engine, which so lives until the queue is empty even if the last handle is
    /// dropped.
    pub(crate) wake: mpsc::Sender<Arc<E>>,
    /// The end of the runtime was logged.
    pub(crate) ended: AtomicBool,
    pub(crate) closed: AtomicBool,
    next_commit: AtomicU64,
    /// How often a partition was to be queued.
    #[cfg(test)]
    pub(crate) pushes: std::sync::atomic::AtomicUsize,
}

impl<E> Queue<E> {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Arc<E>>) {
        let (wake, wakeups) = mpsc::channel(1);
        let queue = Self {
            ready: Mutex::default(),
            stalled: Mutex::default(),
            retrying: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            wake,
            ended: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            // Unique among instances by its random start, and within one by counting.
            next_commit: AtomicU64::new(random::number().unwrap_or_default()),
            #[cfg(test)]
            pushes: Default::default(),
        };
        (queue, wakeups)
    }

    /// Whether no more changes are taken.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Whether nothing is written any more, because the runtime has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.wake.is_closed()
    }

    /// Whether no failed work waits to be retried.
    pub(crate) fn is_flowing(&self) -> bool {
        !self.retrying.load(Ordering::Acquire)
    }

    pub(crate) fn next_id(&self) -> CommitId {
        CommitId(
            self.next_commit
                .fetch_add(1, Ordering::Relaxed)
                .to_be_bytes(),
        )
    }

    pub(crate) fn take_group(&self) -> Vec<Arc<Partition>> {
        let mut ready = self.ready.lock();
        let count = ready.len().min(MAX_GROUP);
        ready.drain(..count).collect()
    }

    pub(crate) fn take_stalled(&self, count: usize) -> Vec<Arc<Partition>> {
        let mut stalled = self.stalled.lock();
        let count = stalled.len().min(count);
        stalled.drain(..count).collect()
    }
}
