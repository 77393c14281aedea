//! Records from before encryption: they are moved and sealed when they are read, and cleared when they are
//! signed out.

use std::sync::atomic::Ordering;

use crate::engine::core::Engine;
use crate::engine::error::L2Error;
use crate::engine::l2::sealing::Sealing;
use crate::engine::namespace::Number;
use crate::engine::partition::state::Partition;
use crate::engine::write_behind::group::PartitionWork;
use crate::key::PartitionKey;
use crate::store::{Commit, Origin, Outcome};
use crate::store::{Loaded, Names, PartitionId};

impl Engine {
    /// Whether a partition can be read as it is, and needs no [move](Self::move_from_plain_name).
    pub(crate) fn is_ready(&self, partition: &Partition, loaded: &Loaded) -> bool {
        let Some(sealing) = self.l2.codec.sealing() else {
            return true;
        };
        let moves = is_absent(loaded) && sealing.accepts_plaintext();
        let ready = !moves && !sealing.lacks_a_key(loaded);
        if ready {
            partition.moved.store(true, Ordering::Relaxed);
        }
        ready
    }

    /// Moves a partition that still has its plain name, before it is read, and gets keys that are unknown. A no-op
    /// without a key ring. Returns `None` if `loaded` is to be read as it is.
    pub(crate) async fn move_from_plain_name(
        &self,
        key: &PartitionKey,
        under: Number,
        id: &PartitionId,
        loaded: &Loaded,
    ) -> Result<Option<Loaded>, L2Error> {
        let Some(sealing) = self.l2.codec.sealing() else {
            return Ok(None);
        };
        sealing.learn_keys(loaded).await;
        let moved = match is_absent(loaded) && sealing.accepts_plaintext() {
            true => self.move_plaintext(key, under, id).await?,
            false => None,
        };
        self.partitions.with(key, |partition, _| {
            partition.moved.store(true, Ordering::Relaxed);
        });
        Ok(moved)
    }

    /// Moves partitions that were read before encryption began, before they are written. Under their new names
    /// they must not begin anew with only the changes written now, nor after a sign-out. A no-op without a key
    /// ring. Returns those that can be written.
    pub(crate) async fn move_before_writes(&self, works: Vec<PartitionWork>) -> Vec<PartitionWork> {
        let mut ready = Vec::with_capacity(works.len());
        for mut work in works {
            match self.move_before_write(&work).await {
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

    /// The generation in L2, if L2 had to be asked.
    async fn move_before_write(&self, work: &PartitionWork) -> Result<Option<u64>, L2Error> {
        let (partition, Some(under)) = (&work.partition, work.under) else {
            return Ok(None);
        };
        let codec = &self.l2.codec;
        let accepts = codec.sealing().is_some_and(Sealing::accepts_plaintext);
        if !accepts || partition.moved.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let id = self.l2.id(&partition.key, under);
        let loaded = self.l2.load_one(&id).await?;
        let moved = self
            .move_from_plain_name(&partition.key, under, &id, &loaded)
            .await?;
        Ok(Some(moved.unwrap_or(loaded).generation))
    }

    /// Moves a partition from its plain name to `id` and seals it, in one step of the store. It keeps its
    /// generation, so that a change from before a sign-out stays without effect. Returns what is then at
    /// `id`, or `None` if nothing has changed.
    async fn move_plaintext(
        &self,
        key: &PartitionKey,
        under: Number,
        id: &PartitionId,
    ) -> Result<Option<Loaded>, L2Error> {
        let codec = &self.l2.codec;
        let plain = Names::default();
        let from = self.l2.named(&plain, key, under);
        let found = self.l2.load_one(&from).await?;
        if found.generation == 0 && found.version == 0 {
            return Ok(None);
        }
        let generation = found.generation;
        let mut changes = Vec::with_capacity(found.entries.len());
        let writer = codec.writer(id, generation);
        let mut reader = codec.reader_by(plain.clone(), &from, generation);
        for stored in &found.entries {
            // An entry that cannot be read is left behind.
            match reader.decode(stored) {
                Ok((name, value)) => {
                    let mut change = writer.change(name.as_ref(), Some(&value));
                    if let Some(put) = &mut change.put {
                        put.expires_at = stored.expires_at;
                    }
                    changes.push(change);
                }
                Err(reason) => {
                    codec.counters.unopenable(reason as usize);
                    if plain.is_link(&stored.entry) {
                        // Without its link to a user the session must not go on.
                        return Ok(None);
                    }
                }
            }
        }
        if changes.is_empty() {
            // It was signed out, or another instance has moved it, which the store does in one step.
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
        // Whatever the outcome, the record at `id` counts now: if the partition has changed, another instance
        // has moved it, or the next read does.
        self.l2.relocate(&origin, &commit).await?;
        self.l2.load_one(id).await.map(Some)
    }

    /// Signs a partition out under its plain name, as it may not have been moved yet.
    pub(crate) async fn clear_plaintext(
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

    /// The partition's id from before encryption, while that name still counts.
    pub(crate) fn plain_id(&self, key: &PartitionKey, under: Number) -> Option<PartitionId> {
        let accepts = self
            .l2
            .codec
            .sealing()
            .is_some_and(Sealing::accepts_plaintext);
        accepts.then(|| self.l2.named(&Names::default(), key, under))
    }
}

/// Whether the store has nothing of a partition.
fn is_absent(loaded: &Loaded) -> bool {
    loaded.generation == 0 && loaded.version == 0 && loaded.damaged == 0
}
