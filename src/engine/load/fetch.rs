//! One read of a partition from L2 into memory.

use std::sync::Arc;

use futures_util::future::join;

use crate::codec::{Unopenable, Value};
use crate::engine::core::Engine;
use crate::engine::error::L2Error;
use crate::engine::partition::change::PendingChange;
use crate::engine::partition::entry::Unopened;
use crate::engine::partition::links::Links;
use crate::engine::partition::merge::{DecodedLoad, Loss, Merged, ReadStart};
use crate::engine::partition::state::{Partition, State};
use crate::engine::trust::{Era, TRUST};
use crate::key::{PartitionKey, TokenKey};
use crate::mutation::{self, Mutation};
use crate::store::{EntryId, Loaded, PartitionId, Revision};
use crate::time::{Moment, Now};

/// The most reads of L2 that commits and sign-outs may overtake before a load fails.
pub(crate) const MAX_READS: usize = 5;

/// What was known when the read of L2 began.
#[derive(Clone, Copy)]
pub(crate) struct FetchStart {
    pub(crate) floor: ReadStart,
    /// The feed's era.
    pub(crate) era: Era,
    pub(crate) at: Moment,
}

/// Work in progress that keeps its partition in memory, evicted or not.
pub(crate) struct Hold<'a> {
    engine: &'a Engine,
    key: &'a PartitionKey,
}

impl<'a> Hold<'a> {
    /// The same for a read of L2: what is announced meanwhile is noted.
    fn reading(engine: &'a Engine, id: &PartitionId, key: &'a PartitionKey) -> Self {
        // In one step, so that the index entry for this read cannot be removed before the read is counted.
        engine.partitions.with(key, |partition, state| {
            state.pending().held += 1;
            engine.coherence.register(id, partition, state);
        });
        Self { engine, key }
    }

    /// So that a sign-out meanwhile is not forgotten.
    pub(crate) fn new(engine: &'a Engine, key: &'a PartitionKey) -> Self {
        engine
            .partitions
            .with(key, |_, state| state.pending().held += 1);
        Self { engine, key }
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.engine.partitions.with(self.key, |_, state| {
            state.pending().end_hold();
        });
    }
}

impl Engine {
    /// Reads the partition from L2 into memory. Returns what `see` returns for it there, and the versions of
    /// the entries.
    pub(crate) async fn fetch<R>(
        self: &Arc<Self>,
        key: &PartitionKey,
        see: impl Fn(&State, Now) -> R,
    ) -> Result<(R, Vec<(EntryId, u64)>), L2Error> {
        self.resume_sign_out(key);
        for _ in 0..MAX_READS {
            let number = self.number().await?;
            let id = self.l2.id(key, number);
            let _reading = Hold::reading(self, &id, key);
            let begun = FetchStart {
                floor: self.partitions.with(key, |_, state| state.floor()),
                era: self.rules.trust.era(),
                at: self.now().moment,
            };
            if begun.floor.number != Some(number) {
                continue;
            }
            let loaded = self.ask::<Loaded>(id.clone()).await?;
            let loaded = match self.move_from_plain_name(key, number, &id, &loaded).await? {
                Some(moved) => moved,
                None => loaded,
            };
            let versions = loaded.entries.iter();
            let versions = versions.map(|stored| (stored.entry, stored.version));
            let versions = versions.collect();
            let mut fetched = self.decode(&id, loaded, begun);
            // The epochs stay known until the partition is in memory, so that a user's sign-out meanwhile is
            // not missed.
            let links = self.links_of(&fetched);
            if self.are_over(&links).await? {
                let see = |state: &mut State, now| see(state, now);
                match self.end_linked(key, &fetched, begun.floor, &links, see) {
                    Some(seen) => return Ok((seen, Vec::new())),
                    None => continue,
                }
            }
            self.look_for_losses(key, &mut fetched).await?;
            if let Some(seen) = self.merge(key, fetched, begun, |state, now| see(state, now)) {
                return Ok((seen, versions));
            }
        }
        Err(L2Error::lost())
    }

    /// If L2 no longer has the life that memory knows, asks whether L2 has lost everything.
    pub(crate) async fn look_for_losses(
        self: &Arc<Self>,
        key: &PartitionKey,
        fetched: &mut DecodedLoad,
    ) -> Result<(), L2Error> {
        let losses = self.partitions.with(key, |_, state| {
            let gone = state.has_lost_life(fetched.generation, fetched.life, self.now());
            gone.then_some(state.losses)
        });
        if let Some(losses) = losses {
            fetched.loss = Some(match self.l2_has_lost_everything(losses).await? {
                true => Loss::Everything {
                    goes_on: self.begin_epochs_again(key).await?,
                },
                false => Loss::Alone,
            });
        }
        Ok(())
    }

    pub(crate) fn links_of(&self, fetched: &DecodedLoad) -> Links {
        let names = fetched.entries.iter().map(|(name, _)| name);
        Links::among(names, &self.rules.users)
    }

    /// Merges what L2 has into memory. Returns what `see` returns for it there; `None` if a commit or
    /// sign-out has overtaken the read.
    pub(crate) fn merge<R>(
        self: &Arc<Self>,
        key: &PartitionKey,
        fetched: DecodedLoad,
        begun: FetchStart,
        see: impl FnOnce(&mut State, Now) -> R,
    ) -> Option<R> {
        let now = self.now();
        let (seen, wakes, end) = self.partitions.with(key, |partition, state| {
            let end = state.end_shown_by(&fetched, now);
            match state.merge(fetched, begun.floor, now, &self.rules) {
                Merged::Overtaken => None,
                Merged::Taken { dropped, lost } => {
                    self.counters.signed_out_changes.add(dropped as u64);
                    let wakes = dropped > 0 || !lost.is_empty();
                    self.recover(partition, state, lost);
                    Some((see(state, now), wakes, end))
                }
            }
        })?;
        self.tell_of_end(key, end);
        if wakes {
            self.wake();
        }
        Some(seen)
    }

    /// Queues what L2 has lost, to be written again.
    fn recover(&self, partition: &Arc<Partition>, state: &mut State, lost: Vec<(TokenKey, Value)>) {
        let now = self.now();
        for (name, value) in lost {
            let size = PendingChange::size(&name, Some(&value));
            // Beyond the budget it stays lost: the user signs in again.
            let Some(permit) = self.budget.try_reserve(1, size) else {
                return;
            };
            self.counters.recovered_changes.add(1);
            state.change([(name, Some(value))], Some(permit), now);
            self.push(partition, state);
        }
    }

    /// Whether L2 has the same revision as memory. The entries are not read again.
    pub(crate) async fn confirm(self: &Arc<Self>, key: &PartitionKey) -> Result<bool, L2Error> {
        let number = self.number().await?;
        let id = self.l2.id(key, number);
        let _reading = Hold::reading(self, &id, key);
        let now = self.now();
        let known = self.partitions.with_under(key, number, |_, state| {
            let known = || (state.floor(), state.links.clone());
            state.is_comparable(now).then(known)
        });
        let Some((floor, links)) = known.flatten() else {
            return Ok(false);
        };
        let asked = (self.now().moment, self.rules.trust.era());
        let (revision, over) = join(self.ask::<Revision>(id), self.are_over(&links)).await;
        let revision = revision?;
        if mutation::is(Mutation::AnswerTakenForProof) {
            let trust = &self.rules.trust;
            trust.believe_until(asked.0.saturating_add(TRUST));
        }
        if over? {
            return Ok(false);
        }
        Ok(self
            .partitions
            .with(key, |_, state| state.confirmed(revision, floor, asked)))
    }

    pub(crate) fn decode(
        &self,
        id: &PartitionId,
        loaded: Loaded,
        begun: FetchStart,
    ) -> DecodedLoad {
        let mut unopenable = Vec::new();
        let mut entries = Vec::with_capacity(loaded.entries.len());
        // `loaded` is dropped as a whole, so that the next read finds the same room free.
        let mut reader = self.l2.codec.reader(id, loaded.generation);
        for stored in &loaded.entries {
            match reader.read(stored) {
                Ok((name, value)) => entries.push((name, value)),
                Err(_) => unopenable.push(stored.entry),
            }
        }
        let names = || self.l2.codec.names();
        if !unopenable.is_empty() && unopenable.iter().any(|it| names().is_link(it)) {
            // It cannot be known to which user the session is linked, nor whether that user was signed out
            // since.
            unopenable = loaded.entries.iter().map(|stored| stored.entry).collect();
            entries.clear();
        }
        if loaded.damaged > 0 {
            tracing::warn!(
                records = loaded.damaged,
                reason = Unopenable::Damaged.as_str(),
                partition = id.short(),
                "records in L2 are damaged or foreign"
            );
        }
        for _ in 0..loaded.damaged {
            self.counters.unopenable(Unopenable::Damaged as usize);
        }
        DecodedLoad {
            generation: loaded.generation,
            version: loaded.version,
            commit: loaded.commit,
            life: self.l2.life(loaded.life),
            cleared_for: loaded.cleared_for,
            remaining: loaded.remaining,
            entries,
            unopenable: Unopened::new(unopenable, || self.l2.codec.names()),
            asked_at: begun.at,
            era: begun.era,
            loss: None,
        }
    }
}
