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

    /// Seals these payloads, as for one commit.
    pub fn seal<const N: usize>(&self, payloads: [&[u8]; N]) -> [impl AsRef<[u8]> + use<N>; N] {
        let sealer = self.ring.sealer(&self.partition);
        payloads.map(|payload| {
            let mut buffer = Wiped::new(Vec::with_capacity(BEFORE + payload.len() + AFTER));
            buffer.resize(BEFORE, 0);
            buffer.extend_from_slice(payload);
            let sealed = sealer.seal(self.place(), &mut buffer);
            debug_assert!(sealed.is_some());
            buffer
        })
    }

    /// Opens these values, as those of one load. `None` for one that does not open.
    pub fn open<const N: usize>(
        &self,
        values: [&[u8]; N],
    ) -> [Option<impl AsRef<[u8]> + use<N>>; N] {
        let mut opener = self.ring.opener(&self.partition);
        values.map(|value| opener.open(self.place(), value).ok())
    }
}
