//! Loads: one per partition at a time, which everybody waits for, compared by version where memory has
//! something to compare.

use std::sync::Arc;

use super::Engine;
use super::acquired::Seen;
use super::admission::{Admission, Fetched};
use super::l2::L2Error;
use super::partition::{Partition, State, Unopened};
use super::pending::PendingChange;
use super::told;
use super::users::Links;
use crate::codec::{Unopenable, Value};
use crate::error::StoreErrorKind;
use crate::key::{PartitionKey, TokenKey};
use crate::store::{EntryId, Loaded, PartitionId};
use crate::time::Timestamp;

/// Reads of L2 that commits and sign-outs may overtake before a load gives up.
pub(super) const MAX_READS: usize = 5;

/// Where the result of a load under way will appear.
type Loading = told::Receiver<Result<(), L2Error>>;

impl Engine {
    /// Reads the partition from L2, together with everyone who waits for the same. With L1 off,
    /// what was read is in the returned partition and nowhere else.
    pub(super) async fn load(
        self: &Arc<Self>,
        key: &PartitionKey,
    ) -> (Arc<Partition>, Result<(), L2Error>) {
        self.load_as(key, false).await
    }

    pub(super) async fn load_as(
        self: &Arc<Self>,
        key: &PartitionKey,
        thorough: bool,
    ) -> (Arc<Partition>, Result<(), L2Error>) {
        let (partition, loading) = self.start_load(key, thorough);
        // The load runs on its own: a caller that goes away takes nobody along.
        let outcome = loading.outcome().await;
        let outcome = outcome.unwrap_or_else(|| Err(L2Error::lost()));
        (partition, outcome)
    }

    /// Joins the load of this partition, which is started if there is none.
    pub(super) fn start_load(
        self: &Arc<Self>,
        key: &PartitionKey,
        thorough: bool,
    ) -> (Arc<Partition>, Loading) {
        let (partition, loading, done) = self.partitions.with(key, |partition, state| {
            if let Some(loading) = &state.pending().loading {
                return (partition.clone(), loading.clone(), None);
            }
            let (done, loading) = told::channel();
            state.pending().loading = Some(loading.clone());
            (partition.clone(), loading, Some(done))
        });
        if let Some(done) = done {
            let loader = Loader {
                engine: self.clone(),
                partition: partition.clone(),
                done,
                outcome: Err(L2Error::lost()),
                thorough,
            };
            self.runtime.spawn(loader.run());
        }
        (partition, loading)
    }

    /// What L2 has now of the token `name` and of what may replace it, own changes included. These
    /// are written first: what others must not overtake has to be in L2.
    pub(super) async fn look(
        self: &Arc<Self>,
        key: &PartitionKey,
        name: &TokenKey,
    ) -> Result<Seen, L2Error> {
        for _ in 0..MAX_READS {
            let (seen, versions) = self
                .fetch(key, |state, now| state.seen(name.as_ref(), now))
                .await?;
            if !seen.waits {
                return Ok(seen.with_versions(versions));
            }
            self.flush(key).await?;
        }
        Err(L2Error::lost())
    }

    /// Reads the partition from L2 into memory. Returns what `see` makes of it there, and the
    /// versions of the entries.
    pub(super) async fn fetch<R>(
        self: &Arc<Self>,
        key: &PartitionKey,
        see: impl Fn(&State, Timestamp) -> R,
    ) -> Result<(R, Vec<(EntryId, u64)>), L2Error> {
        for _ in 0..MAX_READS {
            let number = self.number().await?;
            let id = self.l2.id(key, number);
            let _reading = Reading::begin(self, &id, key);
            let floor = self.partitions.with(key, |_, state| state.floor());
            if floor.prefix != Some(number) {
                continue;
            }
            let epoch = self.rules.epoch.now();
            let loaded = self.l2.load(&id).await?;
            #[cfg(feature = "seal")]
            let loaded = match self.prepare(key, number, &id, &loaded).await? {
                Some(moved) => moved,
                None => loaded,
            };
            let versions = loaded.entries.iter();
            let versions = versions.map(|stored| (stored.entry, stored.version));
            let versions = versions.collect();
            let fetched = self.decode(&id, loaded, epoch);
            let names = fetched.entries.iter().map(|(name, _)| name);
            // They stay known until all of this is in memory: a sign-out meanwhile is not missed.
            let links = Links::among(names, &self.rules.users);
            if self.are_over(&links).await? {
                match self.end_linked(key, &fetched, floor, &links, &see) {
                    Some(seen) => return Ok((seen, Vec::new())),
                    None => continue,
                }
            }
            let now = self.clock.now();
            let admitted = self.partitions.with(key, |partition, state| {
                match state.admit(fetched, floor, now, &self.rules) {
                    Admission::Overtaken => None,
                    Admission::Admitted { dropped, lost } => {
                        self.counters.signed_out_changes.add(dropped as u64);
                        self.recover(partition, state, lost);
                        Some(see(state, now))
                    }
                }
            });
            if let Some(seen) = admitted {
                self.wake();
                return Ok((seen, versions));
            }
        }
        Err(L2Error::lost())
    }

    /// Writes what L2 has lost to it again.
    fn recover(&self, partition: &Arc<Partition>, state: &mut State, lost: Vec<(TokenKey, Value)>) {
        let now = self.clock.now();
        for (name, value) in lost {
            let size = PendingChange::size(&name, Some(&value));
            // Past the bound it stays lost: the user signs in again.
            let Some(permit) = self.budget.try_reserve(1, size) else {
                return;
            };
            self.counters.recovered_changes.add(1);
            state.change([(name, Some(value))], Some(permit), now);
            self.push(partition, state);
        }
    }

    /// Whether L2 has what memory has, without reading it again.
    async fn confirm(self: &Arc<Self>, key: &PartitionKey) -> Result<bool, L2Error> {
        let number = self.number().await?;
        let id = self.l2.id(key, number);
        let _reading = Reading::begin(self, &id, key);
        let now = self.clock.now();
        let known = self.partitions.with_under(key, number, |_, state| {
            let known = || (state.floor(), state.links.clone());
            state.is_comparable(now).then(known)
        });
        let Some((floor, links)) = known.flatten() else {
            return Ok(false);
        };
        let epoch = self.rules.epoch.now();
        let (revision, over) = tokio::join!(self.revision(id), self.are_over(&links));
        let revision = revision?;
        if over? {
            return Ok(false);
        }
        let now = self.clock.now();
        Ok(self
            .partitions
            .with(key, |_, state| state.confirmed(revision, floor, epoch, now)))
    }

    fn decode(&self, id: &PartitionId, loaded: Loaded, epoch: u32) -> Fetched {
        let mut unopenable = Vec::new();
        let mut entries = Vec::with_capacity(loaded.entries.len());
        // What was read is dropped as a whole, so that the next read finds the same room free.
        let mut reader = self.l2.protection.reader(id, loaded.generation);
        for stored in &loaded.entries {
            match reader.read(stored) {
                Ok((name, value)) => entries.push((name, value)),
                Err(_) => unopenable.push(stored.entry),
            }
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
        Fetched {
            generation: loaded.generation,
            version: loaded.version,
            commit: loaded.commit,
            cleared_at: loaded.cleared_at,
            remaining: loaded.remaining,
            entries,
            unopenable: Unopened::new(unopenable, || self.l2.protection.names()),
            epoch,
        }
    }
}

/// One load under way. Whatever ends it, the partition is free again and its waiters are told.
struct Loader {
    engine: Arc<Engine>,
    partition: Arc<Partition>,
    done: told::Sender<Result<(), L2Error>>,
    outcome: Result<(), L2Error>,
    /// Also if L2 has nothing new.
    thorough: bool,
}

impl Loader {
    /// Several questions, each with a time of its own, must not add up to more than anybody waits.
    async fn run(mut self) {
        let limit = self.engine.l2.hard_timeout;
        let outcome = tokio::time::timeout(limit, self.load()).await;
        self.outcome = outcome.unwrap_or_else(|_| Err(L2Error::of(StoreErrorKind::Timeout)));
    }

    async fn load(&self) -> Result<(), L2Error> {
        let key = &self.partition.key;
        let now = self.engine.clock.now();
        let compares = !self.thorough && self.partition.lock().is_comparable(now);
        if !compares || !self.engine.confirm(key).await? {
            self.engine.fetch(key, |_, _| ()).await?;
        }
        Ok(())
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        let key = &self.partition.key;
        self.engine
            .partitions
            .with(key, |_, state| state.pending().loading = None);
        self.done.tell(self.outcome.clone());
    }
}

/// One look at L2 under way: the partition stays, and remembers what is announced meanwhile.
pub(super) struct Reading<'a> {
    engine: &'a Engine,
    key: &'a PartitionKey,
}

impl<'a> Reading<'a> {
    fn begin(engine: &'a Engine, id: &PartitionId, key: &'a PartitionKey) -> Self {
        engine.coherence.listen(id, key);
        Self::hold(engine, key)
    }

    /// Keeps the partition in memory: a sign-out must not be forgotten meanwhile.
    pub(super) fn hold(engine: &'a Engine, key: &'a PartitionKey) -> Self {
        engine
            .partitions
            .with(key, |_, state| state.pending().reads += 1);
        Self { engine, key }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.engine.partitions.with(self.key, |_, state| {
            let pending = state.pending();
            pending.reads -= 1;
            if pending.reads == 0 {
                pending.announced = None;
            }
        });
    }
}
