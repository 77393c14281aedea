//! `Row`: an entry within a partition that is written as one whole, in MessagePack.

use std::fmt;

use bytes::Bytes;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{EntryId, StoredEntry};
use crate::time::Timestamp;

/// The length of a row besides its value, at most: the id and its length, the length of the value, two numbers
/// of 9 bytes, the array.
pub(crate) const ROW_OVERHEAD: usize = 16 + 5 + 5 + 9 + 9 + 1;

/// An array in this order; times are in milliseconds since the Unix epoch.
#[derive(Serialize, Deserialize)]
pub(crate) struct Row<'a> {
    #[serde(borrow)]
    id: Raw<'a>,
    version: u64,
    expires_at: Option<u64>,
    #[serde(borrow)]
    value: Raw<'a>,
}

impl<'a> Row<'a> {
    pub(crate) fn new(
        entry: &'a EntryId,
        version: u64,
        expires_at: Option<Timestamp>,
        value: &'a [u8],
    ) -> Self {
        Self {
            id: Raw(entry.as_bytes()),
            version,
            expires_at: expires_at.map(Timestamp::as_millis),
            value: Raw(value),
        }
    }

    /// The entry; `own` takes its value out of what is read. `None` when the id is damaged.
    pub(crate) fn entry(&self, own: impl FnOnce(&'a [u8]) -> Bytes) -> Option<StoredEntry> {
        let id: [u8; 16] = self.id.0.try_into().ok()?;
        Some(StoredEntry {
            entry: EntryId::from(id),
            version: self.version,
            expires_at: self.expires_at.map(Timestamp::from_millis),
            value: own(self.value.0),
        })
    }
}

/// Bytes as bytes, and not as an array of numbers.
pub(crate) struct Raw<'a>(pub(crate) &'a [u8]);

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
