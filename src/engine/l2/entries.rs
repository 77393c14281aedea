//! How entries are named and protected on their way to L2, and read on their way back.

use std::sync::Arc;

use bytes::Bytes;

use crate::codec::{self, Unopenable, Value};
use crate::key::TokenKey;
#[cfg(feature = "seal")]
use crate::seal::{self, KeyId, KeyRing, PartitionCipher, PartitionOpener, Place};
use crate::store::{Change, EntryId, Loaded, Names, PartitionId, Put, StoredEntry};
use crate::telemetry::Counters;
#[cfg(feature = "seal")]
use crate::time::{Clock, Timestamp};

/// Everything that goes to L2 is named and written by this, and everything from it is read by it.
pub(crate) struct EntryCodec {
    pub(crate) namespace: Arc<str>,
    pub(crate) counters: Arc<Counters>,
    #[cfg(feature = "seal")]
    pub(crate) encryption: Option<Sealing>,
}

/// Encryption is on.
#[cfg(feature = "seal")]
pub(crate) struct Sealing {
    pub(crate) ring: KeyRing,
    /// From when on everything is sealed.
    pub(crate) from: Option<Timestamp>,
    /// Until when entries without protection are taken.
    pub(crate) plaintext_until: Option<Timestamp>,
    pub(crate) clock: Clock,
}

#[cfg(feature = "seal")]
impl Sealing {
    pub(crate) fn accepts_plaintext(&self) -> bool {
        self.plaintext_until
            .is_some_and(|until| self.clock.now() < until)
    }

    /// A key that something is sealed with and that the ring does not have.
    pub(crate) fn unknown_key(&self, loaded: &Loaded) -> Option<KeyId> {
        let values = loaded.entries.iter().map(|stored| &stored.value);
        let mut ids = values.filter_map(|value| seal::key_id(value));
        ids.find(|id| !self.ring.knows(*id))
    }
}

impl EntryCodec {
    /// What seals now; `None` before its time.
    #[cfg(feature = "seal")]
    pub(crate) fn sealing(&self) -> Option<&Sealing> {
        let sealing = self.encryption.as_ref()?;
        let on = sealing.from.is_none_or(|from| from <= sealing.clock.now());
        on.then_some(sealing)
    }

    /// Whether partitions have the names that they have with encryption.
    pub(crate) fn seals(&self) -> bool {
        #[cfg(feature = "seal")]
        return self.sealing().is_some();
        #[cfg(not(feature = "seal"))]
        false
    }

    pub(crate) fn names(&self) -> Names {
        #[cfg(feature = "seal")]
        if let Some(sealing) = self.sealing() {
            return sealing.ring.names();
        }
        Names::default()
    }

    /// All the names by which a partition may stand in the store now or soon.
    pub(crate) fn possible_names(&self) -> Vec<Names> {
        #[cfg(feature = "seal")]
        if let Some(sealing) = &self.encryption {
            let mut names = vec![sealing.ring.names()];
            if self.sealing().is_none() || sealing.accepts_plaintext() {
                names.push(Names::default());
            }
            return names;
        }
        vec![Names::default()]
    }

    /// All the names by which anything may ever have stood in the store; first those of now.
    pub(crate) fn all_names(&self) -> Vec<Names> {
        #[cfg(feature = "seal")]
        if let Some(sealing) = &self.encryption {
            let names = [sealing.ring.names(), Names::default()];
            let mut names = Vec::from(names);
            if !self.seals() {
                names.reverse();
            }
            return names;
        }
        vec![Names::default()]
    }

    /// What the store knows an entry by.
    pub(crate) fn entry(&self, name: &str) -> EntryId {
        self.names().entry(name)
    }

    /// What writes entries for a partition in L2: for those of one commit, not to be kept.
    pub(crate) fn writer<'a>(&self, partition: &'a PartitionId, generation: u64) -> Writer<'a> {
        Writer {
            names: self.names(),
            #[cfg(feature = "seal")]
            sealer: self.sealing().map(|it| it.ring.sealer(partition)),
            partition,
            generation,
        }
    }

    /// What reads the entries of a partition in L2: those of one load, not to be kept.
    pub(crate) fn reader<'a>(&'a self, partition: &'a PartitionId, generation: u64) -> Reader<'a> {
        self.reader_by(self.names(), partition, generation)
    }

    /// The same of a partition that stands there by these names.
    pub(crate) fn reader_by<'a>(
        &'a self,
        names: Names,
        partition: &'a PartitionId,
        generation: u64,
    ) -> Reader<'a> {
        Reader {
            names,
            #[cfg(feature = "seal")]
            sealing: self.sealing().map(|it| (it, it.ring.opener(partition))),
            counters: &self.counters,
            partition,
            generation,
        }
    }
}

impl EntryCodec {
    /// The names of a partition's entries that are too small to be tokens and can be read.
    pub(crate) fn small_names(&self, partition: &PartitionId, loaded: &Loaded) -> Vec<TokenKey> {
        let mut reader = self.reader(partition, loaded.generation);
        let small = loaded.entries.iter();
        let small = small.filter(|stored| stored.value.len() <= SMALL);
        let names = small.filter_map(|stored| reader.decode(stored).ok());
        names.map(|(name, _)| name).collect()
    }
}

/// Room for a link, sealed.
const SMALL: usize = 512;

/// Reads entries of one partition in one generation. What they have in common is worked out once.
pub(crate) struct Reader<'a> {
    names: Names,
    #[cfg(feature = "seal")]
    sealing: Option<(&'a Sealing, PartitionOpener<'a>)>,
    counters: &'a Counters,
    partition: &'a PartitionId,
    generation: u64,
}

impl Reader<'_> {
    /// Reads an entry. One that cannot be is counted and logged, without its content.
    pub(crate) fn read(&mut self, stored: &StoredEntry) -> Result<(TokenKey, Value), Unopenable> {
        let decoded = self.decode(stored);
        if let Err(reason) = decoded {
            tracing::warn!(
                reason = reason.as_str(),
                entry = ?stored.entry,
                partition = self.partition.short(),
                "an entry in L2 is unopenable"
            );
            self.counters.unopenable(reason as usize);
        }
        decoded
    }

    pub(crate) fn decode(&mut self, stored: &StoredEntry) -> Result<(TokenKey, Value), Unopenable> {
        let belongs = |name: &str| self.names.entry(name) == stored.entry;
        #[cfg(feature = "seal")]
        if let Some((sealing, opener)) = &mut self.sealing {
            if stored.value.len() > codec::MAX_ENVELOPE {
                return Err(Unopenable::TooLarge);
            }
            if seal::is_sealed(&stored.value) {
                let place = Place {
                    partition: self.partition,
                    generation: self.generation,
                    entry: stored.entry,
                };
                let payload = opener.open(place, &stored.value)?;
                return codec::read(&payload, belongs);
            }
            let decoded = codec::decode(&stored.value, belongs)?;
            if !sealing.accepts_plaintext() {
                return Err(Unopenable::Plaintext);
            }
            self.counters.accepted_plaintext.add(1);
            return Ok(decoded);
        }
        let _ = self.generation;
        codec::decode(&stored.value, belongs)
    }
}

/// Writes entries for one partition in one generation. What they have in common is worked out once.
pub(crate) struct Writer<'a> {
    names: Names,
    #[cfg(feature = "seal")]
    sealer: Option<PartitionCipher>,
    partition: &'a PartitionId,
    generation: u64,
}

impl Writer<'_> {
    /// The change that puts this value, or removes the entry.
    pub(crate) fn change(&self, name: &str, value: Option<&Value>) -> Change {
        let entry = self.names.entry(name);
        let put = value.map(|value| Put {
            value: self.encode(entry, name, value),
            expires_at: value.expires_at(),
        });
        Change { entry, put }
    }

    fn encode(&self, entry: EntryId, name: &str, value: &Value) -> Bytes {
        #[cfg(feature = "seal")]
        if let Some(sealer) = &self.sealer {
            let place = Place {
                partition: self.partition,
                generation: self.generation,
                entry,
            };
            let mut buffer = codec::write(name, value, seal::BEFORE, seal::AFTER);
            return match sealer.seal(place, &mut buffer) {
                Some(()) => Bytes::from_owner(buffer),
                // Longer than 64 GiB. Nothing is better than something that is not sealed.
                None => Bytes::new(),
            };
        }
        let _ = (self.partition, self.generation, entry);
        codec::encode(name, value)
    }
}
