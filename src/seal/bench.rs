//! Sealing alone, without an engine around it, for the benchmark and the fuzzer.

use super::aead::{AFTER, BEFORE, Place};
use super::key::RingKey;
use super::ring::KeyRing;
use crate::key::PartitionKey;
use crate::store::{EntryId, PartitionId};
use crate::wipe::Wiped;

/// A ring, and a place to seal values for.
#[derive(Debug)]
pub struct Bench {
    ring: KeyRing,
    partition: PartitionId,
    entry: EntryId,
}

impl Bench {
    /// The same place for the same key.
    pub fn new(key: RingKey) -> Self {
        let ring = KeyRing::from_keys(key, []);
        let user = PartitionKey::assertion("bench");
        Self {
            partition: ring.names().partition(&"ttc".into(), &user),
            entry: ring.names().entry("graph"),
            ring,
        }
    }

    fn place(&self) -> Place<'_> {
        Place {
            partition: &self.partition,
            generation: 0,
            entry: self.entry,
        }
    }

    /// A sealed value of this payload.
    pub fn seal(&self, payload: &[u8]) -> impl AsRef<[u8]> + use<> {
        let mut buffer = Wiped::new(Vec::with_capacity(BEFORE + payload.len() + AFTER));
        buffer.resize(BEFORE, 0);
        buffer.extend_from_slice(payload);
        let sealer = self.ring.sealer(&self.partition);
        let sealed = sealer.seal(self.place(), &mut buffer);
        debug_assert!(sealed.is_some());
        buffer
    }

    /// The payload of a sealed value.
    pub fn open(&self, value: &[u8]) -> Option<impl AsRef<[u8]> + use<>> {
        self.ring.open_sealed(self.place(), value).ok()
    }
}
