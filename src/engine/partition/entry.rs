//! An entry of a partition, and the entries that cannot be opened.

use crate::codec::Value;
use crate::store::{EntryId, Names};
use crate::time::Timestamp;

pub(crate) struct Entry {
    pub(crate) value: Value,
    /// [`Timestamp::MAX`] if the entry has no expiry of its own.
    pub(crate) expires_at: Timestamp,
    /// Exists in memory only: it is not sent to L2.
    pub(crate) local: bool,
}

impl Entry {
    pub(crate) fn new(value: Value, local: bool) -> Self {
        Self {
            expires_at: value.expires_at().unwrap_or(Timestamp::MAX),
            value,
            local,
        }
    }

    pub(crate) fn is_unexpired(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }
}

/// Entries of L2 that cannot be opened. Only their names in L2 are known.
#[derive(Default)]
pub(crate) struct Unopened(Option<Box<(Names, Vec<EntryId>)>>);

impl Unopened {
    pub(crate) fn new(entries: Vec<EntryId>, names: impl FnOnce() -> Names) -> Self {
        Self((!entries.is_empty()).then(|| Box::new((names(), entries))))
    }

    pub(crate) fn holds(&self, name: &str) -> bool {
        let holds = |(names, entries): &(Names, Vec<EntryId>)| entries.contains(&names.entry(name));
        self.0.as_deref().is_some_and(holds)
    }
}
