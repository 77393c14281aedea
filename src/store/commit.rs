//! What a store is told, and what becomes of it.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::{CommitId, EntryId, PartitionId, Remaining};
use crate::time::Timestamp;

/// The changes of one partition.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Commit {
    /// Which partition.
    pub partition: PartitionId,
    /// Identifies this commit when it is repeated.
    pub id: CommitId,
    /// The generation under which the changes were made.
    pub generation: u64,
    /// What must hold for the changes to be applied. It is not looked at when they are
    /// [`Stale`](Outcome::Stale), or were applied before.
    pub expected: Option<Expected>,
    /// The [life](super::Loaded::life) of the partition in which the changes were made, if it is
    /// known. A partition of another life, or of none, is [`Lost`](Outcome::Lost): the commit neither
    /// brings an ended partition back nor goes into the next one.
    pub life: Option<CommitId>,
    /// That it was sent before, and the version of the partition then. Where more than
    /// [`REMEMBERED_COMMITS`](super::REMEMBERED_COMMITS) commits came since, so that the store may have forgotten the id,
    /// entries that are newer than that version stay as they are: a repeated commit never overwrites a later
    /// one. Where it would remember the id, and does not have it, the commit never arrived, and is applied
    /// in full.
    pub repeats: Option<u64>,
    /// The version of the partition that the writer knows, 0 where it knows none. A hint, with no effect on
    /// what becomes of the commit: a store can lay values out for the version after it.
    pub base: u64,
    /// The changed entries, each named once.
    pub changes: Vec<Change>,
    /// How long the partition lives.
    pub lifetime: Lifetime,
}

impl Commit {
    /// A commit of no changes yet, that expects nothing and sets no limits.
    pub fn new(partition: PartitionId, id: CommitId, generation: u64) -> Self {
        Self {
            partition,
            id,
            generation,
            expected: None,
            life: None,
            repeats: None,
            base: 0,
            changes: Vec::new(),
            lifetime: Lifetime::default(),
        }
    }

    /// The bytes of its values.
    pub(crate) fn bytes(&self) -> usize {
        let puts = self.changes.iter().filter_map(|it| it.put.as_ref());
        puts.map(|put| put.value.len()).sum()
    }
}

/// An entry as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Expected {
    /// Which entry.
    pub entry: EntryId,
    /// Its version; 0 when it is absent or has expired. One that has expired matches the version
    /// that it was written with, too, until the store frees it.
    pub version: u64,
}

impl Expected {
    /// This version of this entry.
    pub fn new(entry: EntryId, version: u64) -> Self {
        Self { entry, version }
    }
}

/// What a commit does to one entry.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Change {
    /// Which entry.
    pub entry: EntryId,
    /// Its new value; `None` removes it.
    pub put: Option<Put>,
}

impl Change {
    /// Gives the entry this value, or removes it.
    pub fn new(entry: EntryId, put: Option<Put>) -> Self {
        Self { entry, put }
    }
}

/// A new value of an entry. `Debug` shows its size only.
#[derive(Clone)]
#[non_exhaustive]
pub struct Put {
    /// The sealed bytes.
    pub value: Bytes,
    /// When the entry expires; `None` if it lives as long as its partition.
    pub expires_at: Option<Timestamp>,
}

impl Put {
    /// This value, until then.
    pub fn new(value: impl Into<Bytes>, expires_at: Option<Timestamp>) -> Self {
        Self {
            value: value.into(),
            expires_at,
        }
    }
}

impl fmt::Debug for Put {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Put")
            .field("bytes", &self.value.len())
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// The limits on a partition's life. The earliest one wins; the default has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lifetime {
    /// Since the last commit or touch.
    pub sliding: Option<Duration>,
    /// Since the last commit.
    pub since_write: Option<Duration>,
    /// Since the partition was created.
    pub since_creation: Option<Duration>,
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It is applied, now or when it was first sent. Made by [`committed`](Outcome::committed).
    #[non_exhaustive]
    Committed {
        /// The partition's version now. More than one above the version that the writer knew
        /// says that others have committed in between.
        version: u64,
        /// The id of the commit or sign-out that came before this one; `None` if there is none that
        /// counts or is remembered.
        previous: Option<CommitId>,
        /// The partition's life, as [loaded](super::Loaded::life).
        life: Option<CommitId>,
        /// How long the partition lives from now on.
        remaining: Remaining,
    },
    /// The partition was signed out since: nothing is changed.
    Stale {
        /// The generation in force.
        generation: u64,
    },
    /// The expected entry has another version: nothing is changed, and the commit is not
    /// remembered.
    Conflict,
    /// The partition's life in which the changes were made is over, or was lost: nothing is changed,
    /// and the commit is not remembered.
    Lost,
}

impl Outcome {
    /// [`Committed`](Self::Committed).
    pub fn committed(
        version: u64,
        previous: Option<CommitId>,
        life: Option<CommitId>,
        remaining: Remaining,
    ) -> Self {
        Self::Committed {
            version,
            previous,
            life,
            remaining,
        }
    }
}

/// The answer to [`TokenStore::clear`](super::TokenStore::clear).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cleared {
    /// The generation in force.
    pub generation: u64,
    /// Whether the generation in force is the one that this sign-out has made, now or when it was first
    /// sent. `false` says that another one had ended the expected generation before, or has raised it since.
    pub ended: bool,
}

impl Cleared {
    /// The answer of a store with this generation in force.
    pub fn new(generation: u64, ended: bool) -> Self {
        Self { generation, ended }
    }
}
