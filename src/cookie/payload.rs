//! A partition as bytes.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::store::{EntryId, Snapshot, StoredEntry};
use crate::time::{Timestamp, millis};
use crate::wipe::Wiped;

/// What is sealed, as a MessagePack array in this order; times are in milliseconds since the Unix
/// epoch.
#[derive(Serialize, Deserialize)]
struct Payload<'a> {
    issued_at: u64,
    generation: u64,
    version: u64,
    changed_at: u64,
    created_at: u64,
    hard_end: Option<u64>,
    sliding: Option<u64>,
    end: Option<u64>,
    last_expiry: Option<u64>,
    #[serde(borrow)]
    entries: Vec<Row<'a>>,
}

#[derive(Serialize, Deserialize)]
struct Row<'a> {
    #[serde(borrow)]
    id: Raw<'a>,
    version: u64,
    expires_at: Option<u64>,
    #[serde(borrow)]
    value: Raw<'a>,
}

/// Bytes as bytes, and not as an array of numbers.
struct Raw<'a>(&'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrowed;
        impl<'de> Visitor<'de> for Borrowed {
            type Value = Raw<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_borrowed_bytes<E: de::Error>(self, bytes: &'de [u8]) -> Result<Raw<'de>, E> {
                Ok(Raw(bytes))
            }
        }
        deserializer.deserialize_bytes(Borrowed)
    }
}

/// Writes a partition.
pub(super) fn write(snapshot: &Snapshot, issued_at: Timestamp) -> Wiped<Vec<u8>> {
    let at = |time: Option<Timestamp>| time.map(Timestamp::as_millis);
    let rows = snapshot.entries.iter().map(|stored| Row {
        id: Raw(stored.entry.as_bytes()),
        version: stored.version,
        expires_at: at(stored.expires_at),
        value: Raw(&stored.value),
    });
    let payload = Payload {
        issued_at: issued_at.as_millis(),
        generation: snapshot.generation,
        version: snapshot.version,
        changed_at: snapshot.changed_at.as_millis(),
        created_at: snapshot.created_at.as_millis(),
        hard_end: at(snapshot.hard_end),
        sliding: snapshot.sliding.map(millis),
        end: at(snapshot.end),
        last_expiry: at(snapshot.last_expiry),
        entries: rows.collect(),
    };
    // Large enough, so that the buffer never grows and leaves a copy behind.
    let room = max_written(snapshot);
    let mut buffer = Wiped::new(Vec::with_capacity(room));
    let written = rmp_serde::encode::write(&mut *buffer, &payload);
    debug_assert!(written.is_ok(), "numbers and bytes always encode");
    debug_assert!(buffer.len() <= room, "the buffer never grows");
    buffer
}

/// The length of what [`write`] writes, at most: 9 bytes for a number, 5 more for a text.
pub(super) fn max_written(snapshot: &Snapshot) -> usize {
    let rows = snapshot.entries.iter();
    let rows = rows.map(|stored| stored.value.len() + 16 + 5 + 5 + 9 + 9 + 1);
    rows.sum::<usize>() + 9 * 9 + 6
}

/// Reads a partition, and when it was sealed.
pub(super) fn read(bytes: &[u8]) -> Option<(Snapshot, Timestamp)> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
    reader.set_max_depth(16);
    let payload = Payload::deserialize(&mut reader).ok()?;
    let at = |millis: Option<u64>| millis.map(Timestamp::from_millis);
    let entries = payload.entries.iter().map(|row| {
        let id: [u8; 16] = row.id.0.try_into().ok()?;
        Some(StoredEntry {
            entry: EntryId::from(id),
            version: row.version,
            expires_at: at(row.expires_at),
            // Wiped when the last clone is dropped.
            value: Bytes::from_owner(Wiped::new(row.value.0.to_vec())),
        })
    });
    let snapshot = Snapshot {
        generation: payload.generation,
        version: payload.version,
        changed_at: Timestamp::from_millis(payload.changed_at),
        created_at: Timestamp::from_millis(payload.created_at),
        hard_end: at(payload.hard_end),
        sliding: payload.sliding.map(Duration::from_millis),
        end: at(payload.end),
        last_expiry: at(payload.last_expiry),
        entries: entries.collect::<Option<_>>()?,
    };
    Some((snapshot, Timestamp::from_millis(payload.issued_at)))
}
