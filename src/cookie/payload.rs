//! A partition as bytes.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::store::{ROW_OVERHEAD, Row, Snapshot};
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

/// Writes a partition.
pub(super) fn write(snapshot: &Snapshot, issued_at: Timestamp) -> Wiped<Vec<u8>> {
    let at = |time: Option<Timestamp>| time.map(Timestamp::as_millis);
    let rows = snapshot.entries.iter().map(|stored| {
        Row::new(
            &stored.entry,
            stored.version,
            stored.expires_at,
            &stored.value,
        )
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
    let rows = rows.map(|stored| stored.value.len() + ROW_OVERHEAD);
    rows.sum::<usize>() + 9 * 9 + 6
}

/// Reads a partition, and when it was sealed.
pub(super) fn read(bytes: &[u8]) -> Option<(Snapshot, Timestamp)> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
    reader.set_max_depth(16);
    let payload = Payload::deserialize(&mut reader).ok()?;
    let at = |millis: Option<u64>| millis.map(Timestamp::from_millis);
    // Wiped when the last clone is dropped.
    let own = |value: &[u8]| Bytes::from_owner(Wiped::new(value.to_vec()));
    let entries = payload.entries.iter().map(|row| row.entry(own));
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
