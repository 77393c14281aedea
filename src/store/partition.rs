//! A partition as stores in this process hold it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::record::{Admission, Record};
use super::{Cleared, Commit, CommitId, EntryId, Loaded, Outcome, Remaining, StoredEntry};
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

impl Entry {
    pub(super) fn lives(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|at| at > now)
    }
}

impl Partition {
    /// What a commit makes of a partition, unless it is stale, in conflict, or not `allowed` by
    /// more than itself; `None` leaves it as it is.
    pub(super) fn commit(
        stored: Option<Self>,
        commit: &Commit,
        allowed: bool,
        now: Timestamp,
    ) -> (Option<Self>, Outcome) {
        let (record, entries) = stored.map(|p| (p.record, p.entries)).unzip();
        let mut entries = entries.unwrap_or_default();
        let (mut record, admission) = Record::admit(record, commit.id, commit.generation, now);
        match admission {
            Admission::Stale => {
                let generation = record.generation;
                return (None, Outcome::Stale { generation });
            }
            Admission::Repeated => {}
            Admission::Apply { fresh } => {
                let met = commit.expected.is_none_or(|expected| {
                    let found = entries.get(&expected.entry).filter(|_| !fresh);
                    expected.met(found.map(|entry| (entry.version, entry.expires_at)), now)
                });
                if !met || !allowed {
                    return (None, Outcome::Conflict);
                }
                entries.retain(|_, entry| !fresh && entry.lives(now));
                for change in &commit.changes {
                    entries.remove(&change.entry);
                    if let Some(put) = &change.put {
                        record.wrote(put.expires_at);
                        let entry = Entry {
                            version: record.version,
                            expires_at: put.expires_at,
                            value: put.value.clone(),
                        };
                        entries.insert(change.entry, entry);
                    }
                }
                record.renew(commit.lifetime, now);
            }
        }
        let outcome = Outcome::Committed {
            version: record.version,
            previous: record.before(commit.id),
            remaining: record.remaining(now),
        };
        (Some(Self { record, entries }), outcome)
    }

    /// What a sign-out makes of a partition.
    pub(super) fn clear(
        stored: Option<Self>,
        expected: Option<u64>,
        id: CommitId,
        now: Timestamp,
    ) -> (Self, Cleared) {
        let before = stored.as_ref().map(|partition| partition.record.clone());
        let (record, cleared) = Record::cleared(before, expected, id, now);
        let entries = match stored {
            Some(partition) if partition.record.generation == record.generation => {
                partition.entries
            }
            _ => BTreeMap::new(),
        };
        (Self { record, entries }, cleared)
    }

    /// What a touch makes of a partition; `None` leaves it as it is.
    pub(super) fn touch(stored: Option<Self>, now: Timestamp) -> (Option<Self>, Remaining) {
        match stored {
            Some(mut partition) if !partition.record.ended(now) => {
                partition.record.slide(now);
                let remaining = partition.record.remaining(now);
                (Some(partition), remaining)
            }
            _ => (None, Remaining::default()),
        }
    }

    pub(super) fn loaded(&self, now: Timestamp) -> Loaded {
        Loaded {
            generation: self.record.generation,
            version: self.record.version,
            commit: self.record.last(),
            cleared_at: self.record.cleared_at,
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

    /// Whether nothing is left of it, not even a tombstone.
    pub(super) fn is_forgotten(&self, now: Timestamp) -> bool {
        self.record.forget_at().is_some_and(|at| at <= now)
    }

    /// Memory, in bytes.
    pub(super) fn footprint(&self) -> u32 {
        let entries = self.entries.values().map(|entry| entry.value.len() + 160);
        u32::try_from(512 + entries.sum::<usize>()).unwrap_or(u32::MAX)
    }
}
