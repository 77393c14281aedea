//! The life of a partition in L2, and what it means if L2 no longer has it.
//!
//! A life begins with the first commit and is known by its id. A change continues the life in which it was
//! made, or is dropped. If only one partition is gone (signed out and its tombstone lost, or evicted, or
//! removed by hand), its life has ended. Only if L2 has lost everything, as the namespace's marker shows, the
//! entries in memory are written again.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::store::{CommitId, Revision};

/// The life of a partition. It has another one under its other name: the names with and without encryption
/// differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) id: CommitId,
    pub(crate) sealed: bool,
}

/// How often L2 is known to have lost everything. Clones share the count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Losses(Arc<Mutex<KnownLosses>>);

#[derive(Debug, Default)]
struct KnownLosses {
    count: u32,
    /// The namespace's marker as it was last seen.
    marker: Option<Revision>,
}

impl Losses {
    pub(crate) fn count(&self) -> u32 {
        self.0.lock().count
    }

    /// The marker was read. A different one means a loss: the instance that first finds it gone writes a new
    /// one.
    pub(crate) fn saw_marker(&self, found: Revision) {
        let mut known = self.0.lock();
        let is_another = |before| found != before && found.generation <= before.generation;
        if known.marker.is_some_and(is_another) {
            known.count = known.count.wrapping_add(1);
        }
        known.marker = Some(found);
    }

    /// The marker was gone, and was written again.
    pub(crate) fn replaced_marker(&self, by: Revision) {
        let mut known = self.0.lock();
        known.count = known.count.wrapping_add(1);
        known.marker = Some(by);
    }
}
