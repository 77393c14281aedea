//! What a store says of a partition.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::{CommitId, EntryId};
use crate::time::Timestamp;

/// A partition as the store holds it. The default is an absent partition.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Loaded {
    /// How often the partition was signed out; 0 when absent.
    pub generation: u64,
    /// The version of the last commit; 0 when absent.
    pub version: u64,
    /// The id of the last commit or sign-out; `None` when absent.
    pub commit: Option<CommitId>,
    /// The id of the first commit or sign-out since the partition was absent, which tells it from
    /// others that had its name before and come after. `None` when absent or ended, and where
    /// the store does not know.
    pub life: Option<CommitId>,
    /// How long ago the partition was last signed out, while its tombstone is kept, or the epoch was raised.
    /// A time would be by the store's clock, which need not be the reader's.
    pub cleared_for: Option<Duration>,
    /// How long the partition lives from now on.
    pub remaining: Remaining,
    /// The entries that have not expired, in any order.
    pub entries: Vec<StoredEntry>,
    /// How many damaged records or entries were passed over.
    pub damaged: usize,
}

impl Loaded {
    /// A partition with these entries. [`cleared_for`](Self::cleared_for) and
    /// [`damaged`](Self::damaged) are set where there is something to say; an absent partition is the default.
    pub fn new(
        revision: Revision,
        life: Option<CommitId>,
        remaining: Remaining,
        entries: Vec<StoredEntry>,
    ) -> Self {
        Self {
            generation: revision.generation,
            version: revision.version,
            commit: revision.commit,
            life,
            remaining,
            entries,
            ..Self::default()
        }
    }

    /// What tells it from other states of the partition.
    pub fn revision(&self) -> Revision {
        Revision {
            generation: self.generation,
            version: self.version,
            commit: self.commit,
        }
    }
}

/// A state of a partition. Later ones are greater, unless the store has lost data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Revision {
    /// How often the partition was signed out; 0 when absent.
    pub generation: u64,
    /// The version of the last commit; 0 when absent.
    pub version: u64,
    /// The id of the last commit or sign-out; `None` when absent. A store that has lost data
    /// comes to the same version again, but not to the same id.
    pub commit: Option<CommitId>,
}

impl Revision {
    /// The state after this commit or sign-out. An absent partition is the default.
    pub fn new(generation: u64, version: u64, commit: Option<CommitId>) -> Self {
        Self {
            generation,
            version,
            commit,
        }
    }

    /// What grows, unless the store has lost data.
    pub(crate) fn count(&self) -> (u64, u64) {
        (self.generation, self.version)
    }
}

/// One entry as the store holds it. `Debug` shows the size of the value only.
#[derive(Clone)]
#[non_exhaustive]
pub struct StoredEntry {
    /// Which entry.
    pub entry: EntryId,
    /// The version of the commit that wrote it.
    pub version: u64,
    /// When it expires; `None` if it lives as long as its partition.
    pub expires_at: Option<Timestamp>,
    /// The sealed bytes.
    pub value: Bytes,
}

impl StoredEntry {
    /// An entry of this version.
    pub fn new(
        entry: EntryId,
        version: u64,
        expires_at: Option<Timestamp>,
        value: impl Into<Bytes>,
    ) -> Self {
        Self {
            entry,
            version,
            expires_at,
            value: value.into(),
        }
    }
}

impl fmt::Debug for StoredEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without encryption the value holds tokens.
        f.debug_struct("StoredEntry")
            .field("entry", &self.entry)
            .field("version", &self.version)
            .field("expires_at", &self.expires_at)
            .field("bytes", &self.value.len())
            .finish_non_exhaustive()
    }
}

/// How long a partition lives from now on; `None` is without end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Remaining {
    /// Unless it is used again.
    pub idle: Option<Duration>,
    /// Unless something is committed; never shorter than `idle`.
    pub hard: Option<Duration>,
}

impl Remaining {
    /// This long unless it is used, and unless something is committed.
    pub fn new(idle: Option<Duration>, hard: Option<Duration>) -> Self {
        Self { idle, hard }
    }
}
