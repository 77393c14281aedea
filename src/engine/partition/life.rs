//! The life of a partition in L2, and what it means that it is gone.
//!
//! A life begins with the first commit and is known by its id. Changes go on with the life in which
//! they were made, or nowhere: where a partition alone is gone (signed out and its tombstone
//! lost, evicted, removed by hand), it has ended. Only where L2 has lost everything, which the
//! marker of the namespace tells, what memory has is written again.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::store::{CommitId, Revision};

/// The life of a partition. Under another name, with encryption and without, it has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) id: CommitId,
    pub(crate) sealed: bool,
}

/// How often L2 is known to have lost everything. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Losses(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    count: u32,
    /// The marker of the namespace as it was last seen.
    marker: Option<Revision>,
}

impl Losses {
    pub(crate) fn count(&self) -> u32 {
        self.0.lock().count
    }

    /// The marker was looked at. One that has become another tells of a loss: whoever finds first
    /// that it is gone writes it again.
    pub(crate) fn saw_marker(&self, found: Revision) {
        let mut known = self.0.lock();
        let is_another = |before| found != before && found.generation <= before.generation;
        if known.marker.is_some_and(is_another) {
            known.count = known.count.wrapping_add(1);
        }
        known.marker = Some(found);
    }

    /// The marker was gone, and is there again.
    pub(crate) fn replaced_marker(&self, by: Revision) {
        let mut known = self.0.lock();
        known.count = known.count.wrapping_add(1);
        known.marker = Some(by);
    }
}
