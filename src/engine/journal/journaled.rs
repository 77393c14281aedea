//! The records of a sign-out that are in the journal.

use std::sync::{Arc, Weak};

/// The journal, as far as it removes records.
pub(crate) trait Forget: Send + Sync {
    fn forget(self: Arc<Self>, numbers: Vec<u64>);
}

/// The records of one sign-out that are in the journal. They stay in it when this is dropped.
pub(crate) struct Journaled {
    /// Weak, because the journal itself keeps the records of an earlier process.
    pub(super) journal: Weak<dyn Forget>,
    /// In the order in which they were written.
    pub(super) numbers: Vec<u64>,
}

impl Journaled {
    /// Removes the records: L2 has acknowledged the sign-out, or it is not needed any more.
    pub(crate) fn forget(self) {
        if let Some(journal) = self.journal.upgrade() {
            journal.forget(self.numbers);
        }
    }

    /// Takes over the records of another one.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.numbers.extend(other.numbers);
    }

    pub(crate) fn is_later_than(&self, other: &Self) -> bool {
        self.numbers > other.numbers
    }
}
