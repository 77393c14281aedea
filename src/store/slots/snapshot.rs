//! `Snapshot`: a partition as it is taken away and brought back.

use std::time::Duration;

use crate::store::StoredEntry;
use crate::store::partition::{Entry, Partition};
use crate::store::record::Record;
use crate::time::Timestamp;

/// A partition as it is taken away and brought back.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) generation: u64,
    pub(crate) version: u64,
    pub(crate) changed_at: Timestamp,
    pub(crate) created_at: Timestamp,
    pub(crate) hard_end: Option<Timestamp>,
    pub(crate) sliding: Option<Duration>,
    pub(crate) end: Option<Timestamp>,
    pub(crate) last_expiry: Option<Timestamp>,
    /// Those that can be read.
    pub(crate) entries: Vec<StoredEntry>,
}

impl Partition {
    pub(super) fn snapshot(&self, changed_at: Timestamp, now: Timestamp) -> Snapshot {
        let record = &self.record;
        Snapshot {
            generation: record.generation,
            version: record.version,
            changed_at,
            created_at: record.created_at,
            hard_end: record.hard_end,
            sliding: record.sliding,
            end: record.end,
            last_expiry: record.last_expiry,
            entries: self.live_entries(now).collect(),
        }
    }

    pub(super) fn from_snapshot(snapshot: Snapshot, floor: u64) -> Self {
        let entries = snapshot.entries.into_iter();
        let entries = entries.map(|stored| (stored.entry, Entry::from(stored)));
        Self {
            entries: entries.collect(),
            record: Record {
                generation: snapshot.generation,
                version: snapshot.version.max(floor),
                created_at: snapshot.created_at,
                hard_end: snapshot.hard_end,
                sliding: snapshot.sliding,
                end: snapshot.end,
                last_expiry: snapshot.last_expiry,
                ..Record::default()
            },
        }
    }
}

impl Snapshot {
    /// Whether the partition holds nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
