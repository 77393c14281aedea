//! Keeping memory in step with L2: what its change feed tells, and for how long that is believed. The
//! contract is in [`crate::store::FeedEvent`].
//!
//! What is told is a hint: it makes the engine compare by version, and nothing is taken over from it. A hit
//! believes memory until a deadline that only a proof moves. So a runtime that is blocked or dropped, a
//! process that is frozen, and a panic in the task below end the trust by themselves.

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

/// The engine's end of the feed.
pub(crate) struct Coherence {
    has_feed: bool,
    /// The partitions in memory by their digests.
    index: Arc<Index<Partition>>,
    /// Flights that wait for another instance to bring a token.
    waiting: InUse<Notify>,
    /// What listens.
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

    /// A partition is about to be read into memory: what is told of it concerns us.
    pub(crate) fn register(&self, id: &PartitionId, partition: &Arc<Partition>, state: &mut State) {
        if self.has_feed {
            self.index.list(id.digest(), partition, &mut state.listed);
        }
    }

    /// Notified when this partition may have been changed.
    pub(crate) fn changes(&self, key: &PartitionKey) -> Use<Notify> {
        self.waiting.enter(key)
    }

    /// Listens no more.
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
