//! What a partition has under a token key.

use crate::codec::Value;
use crate::store::{EntryId, Names};
use crate::time::Timestamp;

pub(crate) struct Entry {
    pub(crate) value: Value,
    /// [`Timestamp::MAX`] when it has no expiry of its own.
    pub(crate) expires_at: Timestamp,
    /// Lives in memory only; L2 has not heard of it.
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

    pub(crate) fn is_usable(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }
}

/// Entries that L2 has and that cannot be opened. They are known by the names of L2 only.
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
