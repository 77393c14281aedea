//! A partition as stores in this process hold it.

use std::collections::BTreeMap;

use bytes::Bytes;

#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
use super::Origin;
use super::raise::Keep;
use super::record::{Admission, Record};
use super::{Cleared, Commit, CommitId, EntryId, Loaded, Outcome, Raise, Remaining, StoredEntry};
use crate::time::Timestamp;

#[derive(Clone, Default)]
pub(super) struct Partition {
    pub(super) record: Record,
    pub(super) entries: BTreeMap<EntryId, Entry>,
}

#[derive(Clone)]
pub(super) struct Entry {
    pub(super) version: u64,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) value: Bytes,
}

impl From<StoredEntry> for Entry {
    fn from(stored: StoredEntry) -> Self {
        Self {
            version: stored.version,
            expires_at: stored.expires_at,
            value: stored.value,
        }
    }
}

impl Entry {
    pub(super) fn lives(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|at| at > now)
    }
}

impl Partition {
    /// Applies a commit, unless it is stale, in conflict, or not `allowed` by more than itself:
    /// then the partition stays as it is.
    pub(super) fn commit(
        stored: &mut Option<Self>,
        commit: &Commit,
        allowed: bool,
        now: Timestamp,
    ) -> Outcome {
        let record = stored.as_ref().map(|partition| partition.record.clone());
        let (mut record, admission) = Record::admit(record, commit, now);
        match admission {
            Admission::Stale => {
                let generation = record.generation;
                return Outcome::Stale { generation };
            }
            Admission::Lost => return Outcome::Lost,
            Admission::Repeated => {}
            Admission::Apply { fresh, spares } => {
                let met = commit.expected.is_none_or(|expected| {
                    let held = stored.as_ref().filter(|_| !fresh);
                    let found = held.and_then(|partition| partition.entries.get(&expected.entry));
                    expected.met(found.map(|entry| (entry.version, entry.expires_at)), now)
                });
                if !met || !allowed {
                    return Outcome::Conflict;
                }
                let Self { entries, .. } = stored.get_or_insert_default();
                entries.retain(|_, entry| !fresh && entry.lives(now));
                for change in &commit.changes {
                    let stored = entries.get(&change.entry).map(|entry| entry.version);
                    if spares.is_some_and(|known| stored > Some(known)) {
                        continue;
                    }
                    let Some(put) = &change.put else {
                        entries.remove(&change.entry);
                        continue;
                    };
                    record.wrote(put.expires_at);
                    let entry = Entry {
                        version: record.version,
                        expires_at: put.expires_at,
                        value: put.value.clone(),
                    };
                    entries.insert(change.entry, entry);
                }
                record.renew(commit.lifetime, now);
            }
        }
        let outcome = Outcome::Committed {
            version: record.version,
            previous: record.before(commit.id),
            life: record.life(now),
            remaining: record.remaining(now),
        };
        stored.get_or_insert_default().record = record;
        outcome
    }

    /// Signs a partition out.
    pub(super) fn clear(
        stored: &mut Option<Self>,
        expected: Option<u64>,
        id: CommitId,
        now: Timestamp,
    ) -> Cleared {
        let before = stored.as_ref().map(|partition| partition.record.clone());
        let (record, cleared) = Record::cleared(before, expected, id, now);
        let partition = stored.get_or_insert_default();
        if partition.record.generation != record.generation {
            partition.entries.clear();
        }
        partition.record = record;
        cleared
    }

    /// Signs `source` out, and applies the commit to `target`: both or neither.
    #[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
    pub(super) fn relocate(
        source: &mut Option<Self>,
        target: &mut Option<Self>,
        from: &Origin,
        commit: &Commit,
        now: Timestamp,
    ) -> Outcome {
        let unmoved = from.unmoved(source.as_ref().map(|it| &it.record), now);
        let outcome = Self::commit(target, commit, unmoved, now);
        if let Outcome::Committed { .. } = outcome {
            Self::clear(source, Some(from.generation), commit.id, now);
        }
        outcome
    }

    /// Raises the generation of an epoch; the one now in force.
    pub(super) fn raise(
        stored: &mut Option<Self>,
        raise: Raise,
        keep: Keep,
        now: Timestamp,
    ) -> u64 {
        let before = stored.as_ref().map(|partition| partition.record.clone());
        let (record, fresh) = Record::raised(before, raise, keep, now);
        let partition = stored.get_or_insert_default();
        if fresh {
            partition.entries.clear();
        }
        partition.record = record;
        partition.record.generation
    }

    /// Starts the sliding lifetime anew; `None` once the partition has ended.
    pub(super) fn touch(&mut self, now: Timestamp) -> Option<Remaining> {
        if self.record.ended(now) {
            return None;
        }
        self.record.slide(now);
        Some(self.record.remaining(now))
    }

    pub(super) fn loaded(&self, now: Timestamp) -> Loaded {
        Loaded {
            generation: self.record.generation,
            version: self.record.version,
            commit: self.record.last(),
            life: self.record.life(now),
            cleared_for: self.record.cleared_for(now),
            remaining: self.record.remaining(now),
            entries: self.live_entries(now).collect(),
            damaged: 0,
        }
    }

    /// The entries that can be read.
    pub(super) fn live_entries(&self, now: Timestamp) -> impl Iterator<Item = StoredEntry> {
        let live = self.entries.iter();
        let live = live.filter(move |(_, entry)| !self.record.ended(now) && entry.lives(now));
        live.map(|(id, entry)| StoredEntry {
            entry: *id,
            version: entry.version,
            expires_at: entry.expires_at,
            value: entry.value.clone(),
        })
    }

    /// One of which nothing is left: what a row says that is not deleted, but over.
    #[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
    pub(super) fn removed() -> Self {
        let record = Record {
            end: Some(Timestamp::default()),
            ..Record::default()
        };
        Self {
            record,
            entries: BTreeMap::new(),
        }
    }

    /// Whether nothing is left of it, not even a tombstone.
    pub(super) fn is_forgotten(&self, now: Timestamp) -> bool {
        self.record.forget_at().is_some_and(|at| at <= now)
    }

    /// Memory, in bytes.
    pub(super) fn footprint(&self) -> u64 {
        let entries = self.entries.values().map(|entry| entry.value.len() + 160);
        512 + entries.sum::<usize>() as u64
    }
}
