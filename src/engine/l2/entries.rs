//! Names and seals entries on their way to L2, and opens them on their way back.

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

/// Everything that goes to L2 is named and written by this, and everything that comes back is read by it.
pub(crate) struct EntryCodec {
    pub(crate) namespace: Arc<str>,
    pub(crate) counters: Arc<Counters>,
    #[cfg(feature = "seal")]
    pub(crate) encryption: Option<Sealing>,
}

/// The key ring, and the times at which encryption begins and plaintext ends.
#[cfg(feature = "seal")]
pub(crate) struct Sealing {
    pub(crate) ring: KeyRing,
    /// From this time on everything is sealed; `None` is from the start.
    pub(crate) from: Option<Timestamp>,
    /// Until this time, entries that are not sealed are accepted.
    pub(crate) plaintext_until: Option<Timestamp>,
    pub(crate) clock: Clock,
}

#[cfg(feature = "seal")]
impl Sealing {
    pub(crate) fn accepts_plaintext(&self) -> bool {
        self.plaintext_until
            .is_some_and(|until| self.clock.now() < until)
    }

    /// A key that an entry is sealed with and that the ring does not have.
    pub(crate) fn unknown_key(&self, loaded: &Loaded) -> Option<KeyId> {
        let values = loaded.entries.iter().map(|stored| &stored.value);
        let mut ids = values.filter_map(|value| seal::key_id(value));
        ids.find(|id| !self.ring.knows(*id))
    }
}

impl EntryCodec {
    /// The sealing in force; `None` before its time.
    #[cfg(feature = "seal")]
    pub(crate) fn sealing(&self) -> Option<&Sealing> {
        let sealing = self.encryption.as_ref()?;
        let on = sealing.from.is_none_or(|from| from <= sealing.clock.now());
        on.then_some(sealing)
    }

    /// Whether partitions have their keyed names, as with encryption.
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

    /// All the ways in which a partition may be named in the store now or soon.
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

    /// All the ways in which anything may ever have been named in the store; first the present one.
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

    /// The entry's id in the store.
    pub(crate) fn entry(&self, name: &str) -> EntryId {
        self.names().entry(name)
    }

    /// Writes the entries of one commit to a partition. Not to be kept longer.
    pub(crate) fn writer<'a>(&self, partition: &'a PartitionId, generation: u64) -> Writer<'a> {
        Writer {
            names: self.names(),
            #[cfg(feature = "seal")]
            sealer: self.sealing().map(|it| it.ring.sealer(partition)),
            partition,
            generation,
        }
    }

    /// Reads the entries of one load of a partition. Not to be kept longer.
    pub(crate) fn reader<'a>(&'a self, partition: &'a PartitionId, generation: u64) -> Reader<'a> {
        self.reader_by(self.names(), partition, generation)
    }

    /// The same for a partition that is named in this way.
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
    /// The names of the partition's entries that are too small to be tokens and that can be read.
    pub(crate) fn small_names(&self, partition: &PartitionId, loaded: &Loaded) -> Vec<TokenKey> {
        let mut reader = self.reader(partition, loaded.generation);
        let small = loaded.entries.iter();
        let small = small.filter(|stored| stored.value.len() <= SMALL);
        let names = small.filter_map(|stored| reader.decode(stored).ok());
        names.map(|(name, _)| name).collect()
    }
}

/// Large enough for a link, sealed.
const SMALL: usize = 512;

/// Reads entries of one partition in one generation. The work that they share is done once.
pub(crate) struct Reader<'a> {
    names: Names,
    #[cfg(feature = "seal")]
    sealing: Option<(&'a Sealing, PartitionOpener<'a>)>,
    counters: &'a Counters,
    partition: &'a PartitionId,
    generation: u64,
}

impl Reader<'_> {
    /// Reads an entry. An entry that cannot be read is counted and logged, without its content.
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

/// Writes entries of one partition in one generation. The work that they share is done once.
pub(crate) struct Writer<'a> {
    names: Names,
    #[cfg(feature = "seal")]
    sealer: Option<PartitionCipher>,
    partition: &'a PartitionId,
    generation: u64,
}

impl Writer<'_> {
    /// The change that stores this value, or removes the entry.
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
                // Longer than 64 GiB. An empty entry is better than one that is not sealed.
                None => Bytes::new(),
            };
        }
        let _ = (self.partition, self.generation, entry);
        codec::encode(name, value)
    }
}
