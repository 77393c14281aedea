//! Keeping memory in step with L2, by the store's change feed. The contract of the feed is in
//! [`crate::store::FeedEvent`].
//!
//! An event is a hint: it makes the engine compare versions, and nothing is taken over from it. A hit uses
//! memory until a deadline that only a proof of the feed prolongs. So a runtime that is blocked or dropped, a
//! process that is frozen and a panic in the feed's task all end the trust by themselves.
//!
//! Carries *Instances agree*. Imports `core`, `l1`, `partition` and leaves. Read [`events`] first.

pub(crate) mod events;
pub(crate) mod gaps;

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::engine::l1::digests::Index;
use crate::engine::partition::state::{Partition, State};
use crate::engine::sync::in_use::{InUse, Use};
use crate::key::PartitionKey;
use crate::store::PartitionId;

/// The receiving end of the feed.
pub(crate) struct Coherence {
    has_feed: bool,
    /// The partitions in memory, by digest.
    index: Arc<Index<Partition>>,
    /// Notifies flights that wait for another instance to acquire a token.
    waiting: InUse<PartitionKey, Notify>,
    /// The task that receives the feed.
    listener: Mutex<Option<AbortHandle>>,
}

impl Coherence {
    pub(crate) fn new(has_feed: bool) -> Self {
        Self {
            has_feed,
            index: Index::new(),
            waiting: InUse::default(),
            listener: Mutex::default(),
        }
    }

    /// Called before a partition is read into memory, so that its changes from now on are noticed.
    pub(crate) fn register(&self, id: &PartitionId, partition: &Arc<Partition>, state: &mut State) {
        if self.has_feed {
            self.index.list(id.digest(), partition, &mut state.listed);
        }
    }

    /// The notification that this partition may have changed.
    pub(crate) fn changes(&self, key: &PartitionKey) -> Use<PartitionKey, Notify> {
        self.waiting.enter(key)
    }

    /// Stops the feed's task.
    pub(crate) fn close(&self) {
        if let Some(listener) = self.listener.lock().take() {
            listener.abort();
        }
    }
}

impl Drop for Coherence {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Coherence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coherence").finish_non_exhaustive()
    }
}
