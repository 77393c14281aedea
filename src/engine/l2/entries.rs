//! Names and seals entries on their way to L2, and opens them on their way back.

use std::sync::Arc;

use bytes::Bytes;

use crate::codec::{self, Unopenable, Value};
use crate::engine::l2::sealing::{Opener, Sealer, Sealing};
use crate::key::TokenKey;
use crate::store::{Change, EntryId, Loaded, Names, PartitionId, Put, StoredEntry};
use crate::telemetry::Counters;

/// Everything that goes to L2 is named and written by this, and everything that comes back is read by it.
pub(crate) struct EntryCodec {
    pub(crate) namespace: Arc<str>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) encryption: Option<Sealing>,
}

impl EntryCodec {
    /// The sealing in force; `None` before its time.
    pub(crate) fn sealing(&self) -> Option<&Sealing> {
        self.encryption.as_ref().filter(|it| it.is_in_force())
    }

    /// Whether partitions have their keyed names, as with encryption.
    pub(crate) fn seals(&self) -> bool {
        self.sealing().is_some()
    }

    pub(crate) fn names(&self) -> Names {
        self.sealing().map_or_else(Names::default, Sealing::names)
    }

    /// All the ways in which a partition may be named in the store now or soon.
    pub(crate) fn possible_names(&self) -> Vec<Names> {
        if let Some(sealing) = &self.encryption {
            let mut names = vec![sealing.names()];
            if self.sealing().is_none() || sealing.accepts_plaintext() {
                names.push(Names::default());
            }
            return names;
        }
        vec![Names::default()]
    }

    /// All the ways in which anything may ever have been named in the store; first the present one.
    pub(crate) fn all_names(&self) -> Vec<Names> {
        if let Some(sealing) = &self.encryption {
            let names = [sealing.names(), Names::default()];
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
            sealer: self.sealing().map(|it| it.sealer(partition)),
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
            opener: self.sealing().map(|it| it.opener(partition)),
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
    opener: Option<Opener<'a>>,
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
        let Some(opener) = &mut self.opener else {
            return codec::decode(&stored.value, belongs);
        };
        if let Some(opened) = opener.open(stored, self.generation, belongs) {
            return opened;
        }
        let decoded = codec::decode(&stored.value, belongs)?;
        if !opener.accepts_plaintext() {
            return Err(Unopenable::Plaintext);
        }
        self.counters.accepted_plaintext.add(1);
        Ok(decoded)
    }
}

/// Writes entries of one partition in one generation. The work that they share is done once.
pub(crate) struct Writer<'a> {
    names: Names,
    sealer: Option<Sealer>,
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
        match &self.sealer {
            Some(sealer) => sealer.seal((self.partition, self.generation, entry), name, value),
            None => codec::encode(name, value),
        }
    }
}
