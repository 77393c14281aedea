//! A partition as one blob.
//!
//! Two bytes, the mark and the form, and a MessagePack array. The values in it are as the engine wrote them: sealed,
//! where there is a key ring.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::store::partition::{Entry, Partition};
use crate::store::record::Record;
use crate::store::row::{ROW_OVERHEAD, Raw, Row};
use crate::time::{Timestamp, millis};
use crate::wipe::Wiped;

/// The mark of this crate's partitions in one blob, and the form.
const HEADER: [u8; 2] = [0xCA, 1];

/// In this order; times are in milliseconds since the Unix epoch. `tests/golden/partition.v1.bin` is one.
#[derive(Serialize, Deserialize)]
struct Body<'a> {
    generation: u64,
    version: u64,
    created_at: u64,
    cleared_at: Option<u64>,
    hard_end: Option<u64>,
    sliding: Option<u64>,
    end: Option<u64>,
    last_expiry: Option<u64>,
    #[serde(borrow)]
    recent: Raw<'a>,
    #[serde(borrow)]
    entries: Vec<Row<'a>>,
}

/// The same for equal partitions.
pub(super) fn write(partition: &Partition) -> Bytes {
    let at = |time: Option<Timestamp>| time.map(Timestamp::as_millis);
    let record = &partition.record;
    let rows = partition.entries.iter();
    let body = Body {
        generation: record.generation,
        version: record.version,
        created_at: record.created_at.as_millis(),
        cleared_at: at(record.cleared_at),
        hard_end: at(record.hard_end),
        sliding: record.sliding.map(millis),
        end: at(record.end),
        last_expiry: at(record.last_expiry),
        recent: Raw(&record.recent),
        entries: rows
            .map(|(id, entry)| Row::new(id, entry.version, entry.expires_at, &entry.value))
            .collect(),
    };
    // Large enough, so that the buffer never grows and leaves a copy behind: 9 bytes for a number, 5 more for a
    // length.
    let values = partition.entries.values();
    let values: usize = values.map(|entry| entry.value.len() + ROW_OVERHEAD).sum();
    let room = HEADER.len() + 1 + 8 * 9 + 5 + record.recent.len() + 5 + values;
    let mut buffer = Wiped::new(Vec::with_capacity(room));
    buffer.extend_from_slice(&HEADER);
    let written = rmp_serde::encode::write(&mut *buffer, &body);
    debug_assert!(written.is_ok(), "numbers and bytes always encode");
    debug_assert!(buffer.len() <= room, "the buffer never grows");
    Bytes::from_owner(buffer)
}

/// `None` when it is damaged, or foreign.
pub(super) fn read(bytes: &Bytes) -> Option<Partition> {
    let body = bytes.strip_prefix(&HEADER)?;
    let mut reader = rmp_serde::Deserializer::from_read_ref(body);
    reader.set_max_depth(16);
    let body = Body::deserialize(&mut reader).ok()?;
    let at = |millis: Option<u64>| millis.map(Timestamp::from_millis);
    let entries = body.entries.iter().map(|row| {
        let stored = row.entry(|value| bytes.slice_ref(value))?;
        let entry = Entry {
            version: stored.version,
            expires_at: stored.expires_at,
            value: stored.value,
        };
        Some((stored.entry, entry))
    });
    Some(Partition {
        entries: entries.collect::<Option<_>>()?,
        record: Record {
            generation: body.generation,
            version: body.version,
            created_at: Timestamp::from_millis(body.created_at),
            cleared_at: at(body.cleared_at),
            hard_end: at(body.hard_end),
            sliding: body.sliding.map(Duration::from_millis),
            end: at(body.end),
            last_expiry: at(body.last_expiry),
            recent: body.recent.0.to_vec(),
        },
    })
}
