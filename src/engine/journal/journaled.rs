//! Records that are in the journal.

use std::sync::{Arc, Weak};

/// A journal, which may forget records.
pub(crate) trait Forget: Send + Sync {
    fn forget(self: Arc<Self>, numbers: Vec<u64>);
}

/// Records of one sign-out that are in the journal. They stay in it when this is dropped.
pub(crate) struct Journaled {
    /// What an earlier process has left is in the journal itself.
    pub(super) journal: Weak<dyn Forget>,
    /// In the order of being written.
    pub(super) numbers: Vec<u64>,
}

impl Journaled {
    /// L2 has been told, or need not be.
    pub(crate) fn forget(self) {
        if let Some(journal) = self.journal.upgrade() {
            journal.forget(self.numbers);
        }
    }

    /// Has the records of another one, too.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.numbers.extend(other.numbers);
    }

    pub(crate) fn is_later_than(&self, other: &Self) -> bool {
        self.numbers > other.numbers
    }
}
