//! `Found`: a partition as it was read from SQL tables.
#![cfg_attr(
    not(any(feature = "postgres", feature = "mysql")),
    allow(unreachable_pub)
)]

use std::collections::BTreeMap;
use std::fmt;

use super::columns::{Columns, Damaged};
use super::partition::{Entry, Partition};
use super::record::Record;
use super::{EntryId, Loaded, PartitionId, Revision};
use crate::time::Timestamp;

/// How much of a partition is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Its own row.
    Record,
    /// And its entries without their values.
    Heads,
    /// And their values.
    Values,
}

/// A partition as it was read. The default is an absent one.
#[derive(Default)]
pub struct Found {
    /// Which state of the row it is: a random number that is another after each change. `None` is no row, or one that is
    /// read and written in one transaction.
    pub(super) stamp: Option<i64>,
    /// What it means; `None` if it is absent, forgotten or damaged.
    pub(super) partition: Option<Partition>,
    /// The names of all of its entries, damaged ones and those of a life that is over included: for a change, which
    /// reads heads.
    pub(super) names: Vec<Vec<u8>>,
    damaged: usize,
}

impl Found {
    /// The partitions of these ids. Each row is one of an entry, or of a partition without any.
    pub(super) fn all<R: Columns>(
        ids: &[&PartitionId],
        rows: &[R],
        depth: Depth,
        now: Timestamp,
    ) -> Vec<Self> {
        let mut by_id = BTreeMap::<_, Vec<&R>>::new();
        for row in rows {
            if let Ok(Some(id)) = row.bytes("id") {
                by_id.entry(id).or_default().push(row);
            }
        }
        let found = |id: &&PartitionId| match by_id.get(&id.digest()[..]) {
            Some(rows) => Self::one(rows, depth, now),
            None => Self::default(),
        };
        ids.iter().map(found).collect()
    }

    fn one<R: Columns>(rows: &[&R], depth: Depth, now: Timestamp) -> Self {
        let mut found = Self::default();
        let Some(row) = rows.first() else {
            return found;
        };
        found.stamp = row.integer("stamp").ok().flatten();
        match row.record() {
            Err(Damaged) => found.damaged = 1,
            Ok(record) if record.forget_at().is_some_and(|at| at <= now) => {}
            Ok(record) => found.partition.get_or_insert_default().record = record,
        }
        if depth == Depth::Record {
            return found;
        }
        for row in rows {
            if depth == Depth::Heads
                && let Ok(Some(name)) = row.bytes("entry_id")
            {
                found.names.push(name);
            }
            let Some(partition) = &mut found.partition else {
                continue;
            };
            let entry = match depth {
                Depth::Values => row.entry(),
                _ => row.entry_head(),
            };
            match entry {
                Ok(None) => {}
                // The version of an entry is that of a commit that was made.
                Ok(Some(entry)) if entry.version <= partition.record.version => {
                    let (id, held) = (entry.entry, Entry::from(entry));
                    partition.entries.insert(id, held);
                }
                Ok(Some(_)) | Err(Damaged) => found.damaged += 1,
            }
        }
        found
    }

    /// What makes the partition that was found this one; `None` if it is that by now.
    pub(super) fn difference(&self, next: Option<&Partition>) -> Option<Difference> {
        let before = self.partition.as_ref();
        let removed = Partition::removed();
        let next = next.or(before.map(|_| &removed))?;
        // Whatever changes an entry changes the version.
        if before.is_some_and(|before| before.record == next.record) {
            return None;
        }
        let version = |partition: &Partition, id: &EntryId| {
            partition.entries.get(id).map(|entry| entry.version)
        };
        let is_new = |(id, entry): &(&EntryId, &Entry)| {
            before.and_then(|before| version(before, id)) != Some(entry.version)
        };
        let is_kept = |name: &&Vec<u8>| {
            let id = <[u8; 16]>::try_from(&name[..]).map(EntryId::from);
            id.is_ok_and(|id| next.entries.contains_key(&id))
        };
        let put = next.entries.iter().filter(is_new);
        Some(Difference {
            record: next.record.clone(),
            removed: self
                .names
                .iter()
                .filter(|name| !is_kept(name))
                .cloned()
                .collect(),
            put: put.map(|(id, entry)| (*id, entry.clone())).collect(),
        })
    }

    pub(super) fn loaded(&self, now: Timestamp) -> Loaded {
        let partition = self.partition.as_ref();
        let mut loaded = partition.map_or_else(Loaded::default, |it| it.loaded(now));
        let ended = partition.is_some_and(|it| it.record.ended(now));
        loaded.damaged = if ended { 0 } else { self.damaged };
        loaded
    }

    pub(super) fn revision(&self) -> Revision {
        let record = self.partition.as_ref().map(|partition| &partition.record);
        record.map_or_else(Revision::default, |record| Revision {
            generation: record.generation,
            version: record.version,
            commit: record.last(),
        })
    }
}

/// What is to be written, so that a partition becomes another.
pub(super) struct Difference {
    pub(super) record: Record,
    /// Names of entries.
    pub(super) removed: Vec<Vec<u8>>,
    pub(super) put: Vec<(EntryId, Entry)>,
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Found").finish_non_exhaustive()
    }
}
