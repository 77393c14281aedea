//! Encryption as the engine sees it. Without feature `seal` there is `unsealed` in its place.

use bytes::Bytes;

use crate::codec::{self, Unopenable, Value};
use crate::key::TokenKey;
use crate::seal::{self, KeyId, KeyRing, PartitionCipher, PartitionOpener, Place};
use crate::store::{EntryId, Loaded, Names, PartitionId, StoredEntry};
use crate::time::{Clock, Timestamp};

/// The key ring, and the times at which encryption begins and plaintext ends.
pub(crate) struct Sealing {
    pub(crate) ring: KeyRing,
    /// From this time on everything is sealed; `None` is from the start.
    pub(crate) from: Option<Timestamp>,
    /// Until this time, entries that are not sealed are accepted.
    pub(crate) plaintext_until: Option<Timestamp>,
    pub(crate) clock: Clock,
}

impl Sealing {
    /// Whether it has begun.
    pub(crate) fn is_in_force(&self) -> bool {
        self.from.is_none_or(|from| from <= self.clock.now())
    }

    pub(crate) fn names(&self) -> Names {
        self.ring.names()
    }

    pub(crate) fn accepts_plaintext(&self) -> bool {
        self.plaintext_until
            .is_some_and(|until| self.clock.now() < until)
    }

    /// Whether an entry is sealed with a key that the ring does not have.
    pub(crate) fn lacks_a_key(&self, loaded: &Loaded) -> bool {
        self.unknown_key(loaded).is_some()
    }

    /// Asks for the keys that the ring does not have.
    pub(crate) async fn learn_keys(&self, loaded: &Loaded) {
        if let Some(unknown) = self.unknown_key(loaded) {
            self.ring.learn(unknown).await;
        }
    }

    fn unknown_key(&self, loaded: &Loaded) -> Option<KeyId> {
        let values = loaded.entries.iter().map(|stored| &stored.value);
        let mut ids = values.filter_map(|value| seal::key_id(value));
        ids.find(|id| !self.ring.knows(*id))
    }

    pub(crate) fn sealer(&self, partition: &PartitionId) -> Sealer {
        Sealer(self.ring.sealer(partition))
    }

    pub(crate) fn opener<'a>(&'a self, partition: &'a PartitionId) -> Opener<'a> {
        Opener {
            sealing: self,
            partition,
            opener: self.ring.opener(partition),
        }
    }
}

/// Seals the entries of one partition.
pub(crate) struct Sealer(PartitionCipher);

impl Sealer {
    pub(crate) fn seal(
        &self,
        (partition, generation, entry): (&PartitionId, u64, EntryId),
        name: &str,
        value: &Value,
    ) -> Bytes {
        let place = Place {
            partition,
            generation,
            entry,
        };
        let mut buffer = codec::write(name, value, seal::BEFORE, seal::AFTER);
        match self.0.seal(place, &mut buffer) {
            Some(()) => Bytes::from_owner(buffer),
            // Longer than 64 GiB. An empty entry is better than one that is not sealed.
            None => Bytes::new(),
        }
    }
}

/// Opens the entries of one partition.
pub(crate) struct Opener<'a> {
    sealing: &'a Sealing,
    partition: &'a PartitionId,
    opener: PartitionOpener<'a>,
}

impl Opener<'_> {
    /// The entry, if it is sealed, and whether it opens. `None` for one that is not sealed.
    pub(crate) fn open(
        &mut self,
        stored: &StoredEntry,
        generation: u64,
        belongs: impl FnOnce(&str) -> bool,
    ) -> Option<Result<(TokenKey, Value), Unopenable>> {
        if stored.value.len() > codec::MAX_ENVELOPE {
            return Some(Err(Unopenable::TooLarge));
        }
        let place = Place {
            partition: self.partition,
            generation,
            entry: stored.entry,
        };
        seal::is_sealed(&stored.value).then(|| {
            let payload = self.opener.open(place, &stored.value)?;
            codec::read(&payload, belongs)
        })
    }

    pub(crate) fn accepts_plaintext(&self) -> bool {
        self.sealing.accepts_plaintext()
    }
}
