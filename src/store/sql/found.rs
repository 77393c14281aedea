//! `Found`: a partition as it was read.

use std::collections::BTreeMap;
use std::fmt;

use crate::store::columns::{Columns, Damaged};
use crate::store::partition::{Entry, Partition};
use crate::store::{Loaded, PartitionId, Revision};
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
    /// Which state of the row it is: a random number that is another after each change. `None` is no row.
    pub(super) stamp: Option<i64>,
    /// What it means; `None` if it is absent, forgotten or damaged.
    pub(super) partition: Option<Partition>,
    /// The names of all of its entries, damaged ones and those of a life that is over included.
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
        let Ok(Some(stamp)) = row.integer("stamp") else {
            return found;
        };
        found.stamp = Some(stamp);
        match row.record() {
            Err(Damaged) => found.damaged = 1,
            Ok(record) if record.forget_at().is_some_and(|at| at <= now) => {}
            Ok(record) => found.partition.get_or_insert_default().record = record,
        }
        if depth == Depth::Record {
            return found;
        }
        for row in rows {
            if let Ok(Some(name)) = row.bytes("entry_id") {
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

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Found").finish_non_exhaustive()
    }
}
