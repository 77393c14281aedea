//! How entries are named and protected on their way to L2, and read on their way back.

use std::sync::Arc;
#[cfg(feature = "seal")]
use std::sync::atomic::Ordering;

use bytes::Bytes;

#[cfg(feature = "seal")]
use super::Engine;
#[cfg(feature = "seal")]
use super::flush::Work;
#[cfg(feature = "seal")]
use super::l2::L2Error;
#[cfg(feature = "seal")]
use super::partition::Partition;
#[cfg(feature = "seal")]
use super::revocation::Number;
use crate::codec::{self, Unopenable, Value};
#[cfg(feature = "seal")]
use crate::key::PartitionKey;
use crate::key::TokenKey;
#[cfg(feature = "seal")]
use crate::seal::{self, KeyId, KeyRing, PartitionCipher, PartitionOpener, Place};
use crate::store::{Change, EntryId, Loaded, Names, PartitionId, Put, StoredEntry};
#[cfg(feature = "seal")]
use crate::store::{Commit, Origin, Outcome};
use crate::telemetry::Counters;
#[cfg(feature = "seal")]
use crate::time::{Clock, Timestamp};

/// Everything that goes to L2 is named and written by this, and everything from it is read by it.
pub(crate) struct Protection {
    pub(super) namespace: Arc<str>,
    pub(super) counters: Arc<Counters>,
    #[cfg(feature = "seal")]
    pub(super) encryption: Option<Sealing>,
}

/// Encryption is on.
#[cfg(feature = "seal")]
pub(super) struct Sealing {
    pub(super) ring: KeyRing,
    /// From when on everything is sealed.
    pub(super) from: Option<Timestamp>,
    /// Until when entries without protection are taken.
    pub(super) plaintext_until: Option<Timestamp>,
    pub(super) clock: Clock,
}

#[cfg(feature = "seal")]
impl Sealing {
    fn accepts_plaintext(&self) -> bool {
        self.plaintext_until
            .is_some_and(|until| self.clock.now() < until)
    }

    /// A key that something is sealed with and that the ring does not have.
    fn unknown_key(&self, loaded: &Loaded) -> Option<KeyId> {
        let values = loaded.entries.iter().map(|stored| &stored.value);
        let mut ids = values.filter_map(|value| seal::key_id(value));
        ids.find(|id| !self.ring.knows(*id))
    }
}

impl Protection {
    /// What seals now; `None` before its time.
    #[cfg(feature = "seal")]
    fn sealing(&self) -> Option<&Sealing> {
        let sealing = self.encryption.as_ref()?;
        let on = sealing.from.is_none_or(|from| from <= sealing.clock.now());
        on.then_some(sealing)
    }

    /// Whether partitions have the names that they have with encryption.
    pub(super) fn seals(&self) -> bool {
        #[cfg(feature = "seal")]
        return self.sealing().is_some();
        #[cfg(not(feature = "seal"))]
        false
    }

    pub(super) fn names(&self) -> Names {
        #[cfg(feature = "seal")]
        if let Some(sealing) = self.sealing() {
            return sealing.ring.names();
        }
        Names::default()
    }

    /// All the names by which a partition may stand in the store now or soon.
    pub(super) fn possible_names(&self) -> Vec<Names> {
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
    pub(super) fn all_names(&self) -> Vec<Names> {
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
    pub(super) fn entry(&self, name: &str) -> EntryId {
        self.names().entry(name)
    }

    /// What writes entries for a partition in L2: for those of one commit, not to be kept.
    pub(super) fn writer<'a>(&self, partition: &'a PartitionId, generation: u64) -> Writer<'a> {
        Writer {
            names: self.names(),
            #[cfg(feature = "seal")]
            sealer: self.sealing().map(|it| it.ring.sealer(partition)),
            partition,
            generation,
        }
    }

    /// What reads the entries of a partition in L2: those of one load, not to be kept.
    pub(super) fn reader<'a>(&'a self, partition: &'a PartitionId, generation: u64) -> Reader<'a> {
        self.reader_by(self.names(), partition, generation)
    }

    /// The same of a partition that stands there by these names.
    fn reader_by<'a>(
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

impl Protection {
    /// The names of a partition's entries that are too small to be tokens and can be read.
    pub(super) fn small_names(&self, partition: &PartitionId, loaded: &Loaded) -> Vec<TokenKey> {
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
pub(super) struct Reader<'a> {
    names: Names,
    #[cfg(feature = "seal")]
    sealing: Option<(&'a Sealing, PartitionOpener<'a>)>,
    counters: &'a Counters,
    partition: &'a PartitionId,
    generation: u64,
}

impl Reader<'_> {
    /// Reads an entry. One that cannot be is counted and logged, without its content.
    pub(super) fn read(&mut self, stored: &StoredEntry) -> Result<(TokenKey, Value), Unopenable> {
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

    fn decode(&mut self, stored: &StoredEntry) -> Result<(TokenKey, Value), Unopenable> {
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
pub(super) struct Writer<'a> {
    names: Names,
    #[cfg(feature = "seal")]
    sealer: Option<PartitionCipher>,
    partition: &'a PartitionId,
    generation: u64,
}

impl Writer<'_> {
    /// The change that puts this value, or removes the entry.
    pub(super) fn change(&self, name: &str, value: Option<&Value>) -> Change {
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

#[cfg(feature = "seal")]
impl Engine {
    /// Whether a partition can be read as it is, and needs no [preparation](Self::prepare).
    pub(super) fn is_ready(&self, partition: &Partition, loaded: &Loaded) -> bool {
        let Some(sealing) = self.l2.protection.sealing() else {
            return true;
        };
        let moves = is_absent(loaded) && sealing.accepts_plaintext();
        let ready = !moves && sealing.unknown_key(loaded).is_none();
        if ready {
            partition.moved.store(true, Ordering::Relaxed);
        }
        ready
    }

    /// Prepares to read a partition: gets keys that are not known, and moves a partition here that
    /// stands under its name from before encryption. `None` when `loaded` is to be read as it is.
    pub(super) async fn prepare(
        &self,
        key: &PartitionKey,
        under: Number,
        id: &PartitionId,
        loaded: &Loaded,
    ) -> Result<Option<Loaded>, L2Error> {
        let Some(sealing) = self.l2.protection.sealing() else {
            return Ok(None);
        };
        if let Some(unknown) = sealing.unknown_key(loaded) {
            sealing.ring.learn(unknown).await;
        }
        let moved = match is_absent(loaded) && sealing.accepts_plaintext() {
            true => self.move_plaintext(key, under, id).await?,
            false => None,
        };
        self.partitions.with(key, |partition, _| {
            partition.moved.store(true, Ordering::Relaxed);
        });
        Ok(moved)
    }

    /// Prepares to write partitions that were read before encryption began: they must not begin
    /// anew under their new names with nothing but what is written now, nor after a sign-out.
    /// Returns those that can be written.
    pub(super) async fn prepare_writes(&self, works: Vec<Work>) -> Vec<Work> {
        let mut ready = Vec::with_capacity(works.len());
        for mut work in works {
            match self.prepare_write(&work).await {
                Ok(Some(generation)) if work.is_before(generation) => {
                    self.settle(&work, Outcome::Stale { generation });
                    work.failure = None;
                }
                Ok(_) => ready.push(work),
                Err(failure) => work.failure = Some(failure),
            }
        }
        ready
    }

    /// The generation that L2 has, where it had to be asked.
    async fn prepare_write(&self, work: &Work) -> Result<Option<u64>, L2Error> {
        let (partition, Some(under)) = (&work.partition, work.under) else {
            return Ok(None);
        };
        let protection = &self.l2.protection;
        let accepts = protection.sealing().is_some_and(Sealing::accepts_plaintext);
        if !accepts || partition.moved.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let id = self.l2.id(&partition.key, under);
        let loaded = self.l2.load_one(&id).await?;
        let moved = self.prepare(&partition.key, under, &id, &loaded).await?;
        Ok(Some(moved.unwrap_or(loaded).generation))
    }

    /// Moves a partition from its plain name to `id` and seals it, in one step of the store. It
    /// keeps its generation: a change from before a sign-out stays without effect. What is at `id`
    /// then, or `None` when nothing has changed.
    async fn move_plaintext(
        &self,
        key: &PartitionKey,
        under: Number,
        id: &PartitionId,
    ) -> Result<Option<Loaded>, L2Error> {
        let protection = &self.l2.protection;
        let plain = Names::default();
        let from = self.l2.named(&plain, key, under);
        let found = self.l2.load_one(&from).await?;
        if found.generation == 0 && found.version == 0 {
            return Ok(None);
        }
        let generation = found.generation;
        let mut changes = Vec::with_capacity(found.entries.len());
        let writer = protection.writer(id, generation);
        let mut reader = protection.reader_by(plain.clone(), &from, generation);
        for stored in &found.entries {
            // One that cannot be read is left behind.
            match reader.decode(stored) {
                Ok((name, value)) => {
                    let mut change = writer.change(name.as_ref(), Some(&value));
                    if let Some(put) = &mut change.put {
                        put.expires_at = stored.expires_at;
                    }
                    changes.push(change);
                }
                Err(reason) => {
                    protection.counters.unopenable(reason as usize);
                    if plain.is_link(&stored.entry) {
                        // Nothing goes on without it.
                        return Ok(None);
                    }
                }
            }
        }
        if changes.is_empty() {
            // It was signed out, or moved by another instance, which the store does in one step.
            let loaded = self.l2.load_one(id).await?;
            return Ok(Some(match is_absent(&loaded) {
                true => Loaded {
                    generation,
                    cleared_for: found.cleared_for,
                    ..Loaded::default()
                },
                false => loaded,
            }));
        }
        let origin = Origin {
            partition: from,
            generation,
            version: found.version,
        };
        let commit = Commit {
            partition: id.clone(),
            id: self.queue.next_id(),
            generation,
            expected: None,
            life: None,
            repeats: None,
            base: 0,
            changes,
            lifetime: self.lifetime_of(key),
        };
        // Whatever the outcome, what stands at `id` now is the truth: when the partition has
        // changed, another instance has moved it, or does with the next read.
        self.l2.relocate(&origin, &commit).await?;
        self.l2.load_one(id).await.map(Some)
    }

    /// Signs a partition out under its plain name, where it may not have been moved yet.
    pub(super) async fn clear_plaintext(
        &self,
        key: &PartitionKey,
        under: Number,
    ) -> Result<(), L2Error> {
        if let Some(plain) = self.plain_id(key, under) {
            let sign_out = self.queue.next_id();
            self.l2.clear(&plain, None, sign_out).await?;
        }
        Ok(())
    }

    /// What the store knew a partition by before encryption, while that still counts.
    pub(super) fn plain_id(&self, key: &PartitionKey, under: Number) -> Option<PartitionId> {
        let accepts = self
            .l2
            .protection
            .sealing()
            .is_some_and(Sealing::accepts_plaintext);
        accepts.then(|| self.l2.named(&Names::default(), key, under))
    }
}

/// Whether the store knows nothing of a partition.
#[cfg(feature = "seal")]
fn is_absent(loaded: &Loaded) -> bool {
    loaded.generation == 0 && loaded.version == 0 && loaded.damaged == 0
}
