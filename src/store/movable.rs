//! What a store does so that its partitions can be moved to another: [`Movable`] and [`Listed`].

use std::time::Duration;

use super::partition::{Entry, Partition};
use super::record::Record;
use super::{CommitId, Origin, PartitionId, Remaining, StoredEntry, TokenStore};
use crate::error::StoreError;
use crate::time::Timestamp;

/// A partition with all that a store knows of it. Times are lengths, which hold by the clock of any store.
/// `Debug` shows no value.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Portable {
    /// As [loaded](super::Loaded::generation).
    pub generation: u64,
    /// As [loaded](super::Loaded::version).
    pub version: u64,
    /// How long ago the partition was created.
    pub age: Duration,
    /// As [loaded](super::Loaded::cleared_for).
    pub cleared_for: Option<Duration>,
    /// As [loaded](super::Loaded::remaining). Its `idle` is zero where the partition has ended.
    pub remaining: Remaining,
    /// The [sliding](super::Lifetime::sliding) lifetime of the last commit.
    pub sliding: Option<Duration>,
    /// The id of the first commit or sign-out, and those of the latest commits, oldest first: at most one more than
    /// [`REMEMBERED_COMMITS`](super::REMEMBERED_COMMITS).
    pub recent: Vec<CommitId>,
    /// The entries that have not expired. None where the partition has ended.
    pub entries: Vec<StoredEntry>,
}

impl Portable {
    /// Whether the partition has ended.
    pub fn has_ended(&self) -> bool {
        self.remaining.idle.is_some_and(|idle| idle.is_zero())
    }

    /// The partition as it was read, for [`Movable::withdraw`].
    pub fn origin(&self, partition: PartitionId) -> Origin {
        let version = if self.has_ended() { 0 } else { self.version };
        Origin::new(partition, self.generation, version)
    }

    /// The same, so much later.
    pub(super) fn later(mut self, by: Duration) -> Self {
        let less = |left: Option<Duration>| left.map(|left| left.saturating_sub(by));
        let remaining = Remaining {
            idle: less(self.remaining.idle),
            hard: less(self.remaining.hard),
        };
        self.remaining = remaining;
        self.age = self.age.saturating_add(by);
        self.cleared_for = self.cleared_for.map(|ago| ago.saturating_add(by));
        if self.has_ended() {
            self.entries.clear();
        }
        self
    }

    /// The latest expiry of its entries; `None` where one of them has none, or there is none.
    pub(super) fn last_expiry(&self) -> Option<Timestamp> {
        let expiries = self.entries.iter().map(|entry| entry.expires_at);
        expiries.collect::<Option<Vec<_>>>()?.into_iter().max()
    }
}

/// A store whose partitions can be moved to another store, and from one: see
/// [`MigratingStore`](super::MigratingStore).
///
/// A move takes a partition out by [`export`](Self::export), puts it into the other store by [`adopt`](Self::adopt), and
/// ends it in the first by [`withdraw`](Self::withdraw), if it is still as it was taken out. The conformance suite checks
/// `Movable` stores by `conformance::movable` (feature `test-util`).
pub trait Movable: TokenStore {
    /// A partition as of one moment, with all that is known of it, tombstones and epochs included. `None` where there is
    /// nothing, not even a tombstone.
    fn export(
        &self,
        partition: &PartitionId,
    ) -> impl Future<Output = Result<Option<Portable>, StoreError>> + Send;

    /// Puts a partition where there is none, in one atomic step: from then on it is as it was in the other store, with
    /// its generation, version, ids and ends. `false`, and nothing changes, where there is one, or a tombstone.
    fn adopt(
        &self,
        partition: &PartitionId,
        portable: &Portable,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Signs a partition out, if it is as it was read, in one atomic step; one that was absent has a tombstone from then
    /// on. The tombstone remembers `id`. `false`, and nothing changes, where it is otherwise. A repeated one is
    /// answered as the first time.
    fn withdraw(
        &self,
        from: &Origin,
        id: CommitId,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Removes a partition or a tombstone without a trace, if this is the id of its last commit or sign-out, in one
    /// atomic step. `false`, and nothing changes, where it is otherwise.
    fn remove(
        &self,
        partition: &PartitionId,
        last: CommitId,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;
}

/// A store that can name its partitions.
pub trait Listed: TokenStore {
    /// Some hundred partitions of a namespace, and where to go on; from the beginning without a `cursor`. What is there
    /// from the first page to the last is listed at least once; a partition may be listed twice. A cursor holds as long
    /// as the store runs.
    fn list(
        &self,
        namespace: &str,
        cursor: Option<&[u8]>,
    ) -> impl Future<Output = Result<Listing, StoreError>> + Send;
}

/// A page of [`Listed::list`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Listing {
    /// The partitions, signed-out ones included.
    pub partitions: Vec<PartitionId>,
    /// Where the next page begins; `None` after the last one.
    pub next: Option<Vec<u8>>,
}

impl Listing {
    /// These partitions, and where to go on.
    pub fn new(partitions: Vec<PartitionId>, next: Option<Vec<u8>>) -> Self {
        Self { partitions, next }
    }
}

impl Record {
    /// All but the entries.
    pub(super) fn portable(&self, now: Timestamp) -> Portable {
        let ids = self.recent.as_chunks().0;
        Portable {
            generation: self.generation,
            version: self.version,
            age: now.since(self.created_at),
            cleared_for: self.cleared_for(now),
            remaining: self.remaining(now),
            sliding: self.sliding,
            recent: ids.iter().map(|id| CommitId(*id)).collect(),
            entries: Vec::new(),
        }
    }

    pub(super) fn from_portable(portable: &Portable, now: Timestamp) -> Self {
        // What has ended has ended for ever, also if the clock steps back.
        let end = |left: Duration| match left.is_zero() {
            true => Timestamp::default(),
            false => now.saturating_add(left),
        };
        let ids = portable.recent.iter().flat_map(|id| id.0);
        Self {
            generation: portable.generation,
            version: portable.version,
            created_at: now.saturating_sub(portable.age),
            cleared_at: portable.cleared_for.map(|ago| now.saturating_sub(ago)),
            hard_end: portable.remaining.hard.map(end),
            sliding: portable.sliding,
            end: portable.remaining.idle.map(end),
            last_expiry: portable.last_expiry(),
            recent: ids.collect(),
        }
    }
}

impl Partition {
    pub(super) fn portable(&self, now: Timestamp) -> Portable {
        Portable {
            entries: self.live_entries(now).collect(),
            ..self.record.portable(now)
        }
    }

    /// Whether there was none.
    pub(super) fn adopt(stored: &mut Option<Self>, portable: &Portable, now: Timestamp) -> bool {
        if stored.is_some() {
            return false;
        }
        let entries = portable.entries.iter().map(|stored| {
            let entry = Entry {
                version: stored.version,
                expires_at: stored.expires_at,
                value: stored.value.clone(),
            };
            (stored.entry, entry)
        });
        *stored = Some(Self {
            entries: entries.collect(),
            record: Record::from_portable(portable, now),
        });
        true
    }

    /// Whether it was as it was read, or was withdrawn before.
    pub(super) fn withdraw(
        stored: &mut Option<Self>,
        from: &Origin,
        id: CommitId,
        now: Timestamp,
    ) -> bool {
        let record = stored.as_ref().map(|partition| &partition.record);
        let is_repeated = record.is_some_and(|record| record.remembers(id));
        let is_as_read = from.unmoved(record, now);
        if is_as_read && !is_repeated {
            Self::clear(stored, Some(from.generation), id, now);
        }
        is_as_read || is_repeated
    }
}
