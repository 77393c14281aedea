//! Loads: one per partition at a time, which everybody waits for, compared by version where memory has
//! something to compare.

pub(crate) mod groups;

use std::sync::Arc;

use futures_util::future::join;
use tokio::time::Instant;

use crate::codec::{Unopenable, Value};
use crate::engine::core::Engine;
use crate::engine::error::L2Error;
use crate::engine::partition::entry::Unopened;
use crate::engine::partition::life::Life;
use crate::engine::partition::links::Links;
use crate::engine::partition::merge::{Admission, Fetched, Floor, Loss};
use crate::engine::partition::pending::PendingChange;
use crate::engine::partition::refresh::Seen;
use crate::engine::partition::state::{Partition, State};
use crate::engine::sync::once;
use crate::error::StoreErrorKind;
use crate::key::{PartitionKey, TokenKey};
use crate::store::{CommitId, EntryId, Loaded, PartitionId, Revision};
use crate::time::{Moment, Now};

/// Reads of L2 that commits and sign-outs may overtake before a load gives up.
pub(crate) const MAX_READS: usize = 5;

/// Where the result of a load under way will appear.
type Loading = once::Receiver<Result<(), L2Error>>;

impl Engine {
    /// Reads the partition from L2, together with everyone who waits for the same. With L1 off,
    /// what was read is in the returned partition and nowhere else.
    pub(crate) async fn load(
        self: &Arc<Self>,
        key: &PartitionKey,
    ) -> (Arc<Partition>, Result<(), L2Error>) {
        self.load_as(key, false).await
    }

    pub(crate) async fn load_as(
        self: &Arc<Self>,
        key: &PartitionKey,
        thorough: bool,
    ) -> (Arc<Partition>, Result<(), L2Error>) {
        let deadline = self.deadline();
        let (partition, loading) = self.start_load(key, thorough);
        // The load runs on its own: a caller that goes away takes nobody along.
        let outcome = match self.awaited(deadline, loading.outcome()).await {
            Ok(Some(outcome)) => outcome,
            Ok(None) => Err(L2Error::lost()),
            Err(_) => Err(L2Error::of(StoreErrorKind::Timeout)),
        };
        (partition, outcome)
    }

    /// Joins the load of this partition, which is started if there is none.
    pub(crate) fn start_load(
        self: &Arc<Self>,
        key: &PartitionKey,
        thorough: bool,
    ) -> (Arc<Partition>, Loading) {
        self.resume_sign_out(key);
        let now = self.now();
        let number = self.l2.prefix.settled();
        let id = number.map(|number| self.l2.id(key, number));
        let (partition, loading, begun) = self.partitions.with(key, |partition, state| {
            let compares = !thorough && state.is_comparable(now);
            let floor = state.floor();
            let pending = state.pending();
            if let Some(loading) = &pending.loading {
                return (partition.clone(), loading.clone(), None);
            }
            let (done, loading) = once::channel();
            pending.loading = Some(loading.clone());
            // As long as it is under way it looks at L2.
            pending.reads += 1;
            if let Some(id) = &id {
                self.coherence.listen(id, partition, state);
            }
            (partition.clone(), loading, Some((done, compares, floor)))
        });
        if let Some((done, compares, floor)) = begun {
            let loader = Loader {
                engine: self.clone(),
                partition: partition.clone(),
                done,
                outcome: Err(L2Error::lost()),
                is_over: false,
                began: Instant::now(),
            };
            // One that is not under the number that is known may just have been left behind.
            match id.filter(|_| !compares && floor.prefix == number) {
                Some(id) => loader.ask(id, floor),
                None => drop(self.runtime.spawn(loader.run(compares))),
            }
        }
        (partition, loading)
    }

    /// What L2 has now of the token `name` and of what may replace it, own changes included. These
    /// are written first: what others must not overtake has to be in L2.
    pub(crate) async fn look(
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
    pub(crate) async fn fetch<R>(
        self: &Arc<Self>,
        key: &PartitionKey,
        see: impl Fn(&State, Now) -> R,
    ) -> Result<(R, Vec<(EntryId, u64)>), L2Error> {
        self.resume_sign_out(key);
        for _ in 0..MAX_READS {
            let number = self.number().await?;
            let id = self.l2.id(key, number);
            let _reading = Reading::begin(self, &id, key);
            let begun = Begun {
                floor: self.partitions.with(key, |_, state| state.floor()),
                epoch: self.rules.vouch.epoch(),
                at: self.now().moment,
            };
            if begun.floor.prefix != Some(number) {
                continue;
            }
            let loaded = self.ask::<Loaded>(id.clone()).await?;
            #[cfg(feature = "seal")]
            let loaded = match self.prepare(key, number, &id, &loaded).await? {
                Some(moved) => moved,
                None => loaded,
            };
            let versions = loaded.entries.iter();
            let versions = versions.map(|stored| (stored.entry, stored.version));
            let versions = versions.collect();
            let mut fetched = self.decode(&id, loaded, begun);
            // They stay known until all of this is in memory: a sign-out meanwhile is not missed.
            let links = self.links_of(&fetched);
            if self.are_over(&links).await? {
                let see = |state: &mut State, now| see(state, now);
                match self.end_linked(key, &fetched, begun.floor, &links, see) {
                    Some(seen) => return Ok((seen, Vec::new())),
                    None => continue,
                }
            }
            self.look_for_losses(key, &mut fetched).await?;
            if let Some(seen) = self.admit(key, fetched, begun, |state, now| see(state, now)) {
                return Ok((seen, versions));
            }
        }
        Err(L2Error::lost())
    }

    /// Where L2 no longer has the life that memory knows, asks whether it has lost everything.
    async fn look_for_losses(
        self: &Arc<Self>,
        key: &PartitionKey,
        fetched: &mut Fetched,
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

    fn links_of(&self, fetched: &Fetched) -> Links {
        let names = fetched.entries.iter().map(|(name, _)| name);
        Links::among(names, &self.rules.users)
    }

    /// Takes what L2 has into memory. Returns what `see` makes of it there; `None` when a commit or
    /// sign-out has overtaken the read.
    fn admit<R>(
        self: &Arc<Self>,
        key: &PartitionKey,
        fetched: Fetched,
        begun: Begun,
        see: impl FnOnce(&mut State, Now) -> R,
    ) -> Option<R> {
        let now = self.now();
        let (seen, wakes) = self.partitions.with(key, |partition, state| {
            match state.admit(fetched, begun.floor, now, &self.rules) {
                Admission::Overtaken => None,
                Admission::Admitted { dropped, lost } => {
                    self.counters.signed_out_changes.add(dropped as u64);
                    let wakes = dropped > 0 || !lost.is_empty();
                    self.recover(partition, state, lost);
                    Some((see(state, now), wakes))
                }
            }
        })?;
        if wakes {
            self.wake();
        }
        Some(seen)
    }

    /// Writes what L2 has lost to it again.
    fn recover(&self, partition: &Arc<Partition>, state: &mut State, lost: Vec<(TokenKey, Value)>) {
        let now = self.now();
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
    pub(crate) async fn confirm(self: &Arc<Self>, key: &PartitionKey) -> Result<bool, L2Error> {
        let number = self.number().await?;
        let id = self.l2.id(key, number);
        let _reading = Reading::begin(self, &id, key);
        let now = self.now();
        let known = self.partitions.with_under(key, number, |_, state| {
            let known = || (state.floor(), state.links.clone());
            state.is_comparable(now).then(known)
        });
        let Some((floor, links)) = known.flatten() else {
            return Ok(false);
        };
        let asked = (self.now().moment, self.rules.vouch.epoch());
        let (revision, over) = join(self.ask::<Revision>(id), self.are_over(&links)).await;
        let revision = revision?;
        if over? {
            return Ok(false);
        }
        Ok(self
            .partitions
            .with(key, |_, state| state.confirmed(revision, floor, asked)))
    }

    fn decode(&self, id: &PartitionId, loaded: Loaded, begun: Begun) -> Fetched {
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
        let names = || self.l2.protection.names();
        if !unopenable.is_empty() && unopenable.iter().any(|it| names().is_link(it)) {
            // Whose session it is cannot be told, nor whether that user was signed out since.
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
        Fetched {
            generation: loaded.generation,
            version: loaded.version,
            commit: loaded.commit,
            life: self.life(loaded.life),
            cleared_for: loaded.cleared_for,
            remaining: loaded.remaining,
            entries,
            unopenable: Unopened::new(unopenable, || self.l2.protection.names()),
            asked_at: begun.at,
            epoch: begun.epoch,
            loss: None,
        }
    }

    pub(crate) fn life(&self, id: Option<CommitId>) -> Option<Life> {
        let sealed = self.l2.protection.seals();
        id.map(|id| Life { id, sealed })
    }
}

/// What was known when L2 began to be asked.
#[derive(Clone, Copy)]
struct Begun {
    floor: Floor,
    /// Of the feed.
    epoch: u32,
    at: Moment,
}

/// One load under way. Whatever ends it, the partition is free again and its waiters are told.
struct Loader {
    engine: Arc<Engine>,
    partition: Arc<Partition>,
    done: once::Sender<Result<(), L2Error>>,
    outcome: Result<(), L2Error>,
    /// The partition is free.
    is_over: bool,
    began: Instant,
}

impl Loader {
    /// One question is nearly always all that it takes: no task is needed to wait for its answer.
    fn ask(self, id: PartitionId, floor: Floor) {
        let engine = self.engine.clone();
        let epoch = engine.rules.vouch.epoch();
        let at = engine.now().moment;
        let begun = Begun { floor, epoch, at };
        engine.ask_for::<Loaded>(id.clone(), move |answer| self.answered(&id, answer, begun));
    }

    fn answered(mut self, id: &PartitionId, answer: Result<Loaded, L2Error>, begun: Begun) {
        let engine = &self.engine;
        let key = &self.partition.key;
        match answer {
            Err(failure) => self.outcome = Err(failure),
            #[cfg(feature = "seal")]
            Ok(loaded) if !engine.is_ready(&self.partition, &loaded) => self.go_on(),
            Ok(loaded) => {
                let fetched = engine.decode(id, loaded, begun);
                let links = engine.links_of(&fetched);
                if !links.is_empty() {
                    let runtime = engine.runtime.clone();
                    drop(runtime.spawn(self.take_in(fetched, begun, links)));
                    return;
                }
                match engine.admit(key, fetched, begun, |state, _| state.end_load()) {
                    Some(()) => self.succeeded(),
                    None => self.go_on(),
                }
            }
        }
    }

    fn succeeded(mut self) {
        self.is_over = true;
        self.outcome = Ok(());
    }

    /// Takes in a session that belongs to users, unless they were signed out.
    async fn take_in(mut self, mut fetched: Fetched, begun: Begun, links: Links) {
        let engine = self.engine.clone();
        let key = &self.partition.key;
        let end = |state: &mut State, _| state.end_load();
        let takes = async {
            if engine.are_over(&links).await? {
                return Ok(engine.end_linked(key, &fetched, begun.floor, &links, end));
            }
            engine.look_for_losses(key, &mut fetched).await?;
            Ok(engine.admit(key, fetched, begun, end))
        };
        let left = engine.l2.hard_timeout.saturating_sub(self.began.elapsed());
        match tokio::time::timeout(left, takes).await {
            Ok(Ok(Some(()))) => self.succeeded(),
            Ok(Ok(None)) => self.run(false).await,
            Ok(Err(failure)) => self.outcome = Err(failure),
            Err(_) => self.outcome = Err(L2Error::of(StoreErrorKind::Timeout)),
        }
    }

    /// It takes more than that question.
    fn go_on(self) {
        let runtime = self.engine.runtime.clone();
        runtime.spawn(self.run(false));
    }

    /// Several questions, each with a time of its own, must not add up to more than anybody waits.
    async fn run(mut self, compares: bool) {
        let limit = self.engine.l2.hard_timeout;
        let left = limit.saturating_sub(self.began.elapsed());
        let outcome = tokio::time::timeout(left, self.load(compares)).await;
        self.outcome = outcome.unwrap_or_else(|_| Err(L2Error::of(StoreErrorKind::Timeout)));
    }

    async fn load(&self, compares: bool) -> Result<(), L2Error> {
        let key = &self.partition.key;
        if !compares || !self.engine.confirm(key).await? {
            self.engine.fetch(key, |_, _| ()).await?;
        }
        Ok(())
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        if !self.is_over {
            let key = &self.partition.key;
            self.engine
                .partitions
                .with(key, |_, state| state.end_load());
        }
        self.done.tell(self.outcome.clone());
    }
}

/// One look at L2 under way: the partition stays, and remembers what is told meanwhile.
pub(crate) struct Reading<'a> {
    engine: &'a Engine,
    key: &'a PartitionKey,
}

impl<'a> Reading<'a> {
    fn begin(engine: &'a Engine, id: &PartitionId, key: &'a PartitionKey) -> Self {
        // In one step: what is in the index for this read cannot be forgotten before it is held.
        engine.partitions.with(key, |partition, state| {
            state.pending().reads += 1;
            engine.coherence.listen(id, partition, state);
        });
        Self { engine, key }
    }

    /// Keeps the partition in memory: a sign-out must not be forgotten meanwhile.
    pub(crate) fn hold(engine: &'a Engine, key: &'a PartitionKey) -> Self {
        engine
            .partitions
            .with(key, |_, state| state.pending().reads += 1);
        Self { engine, key }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.engine.partitions.with(self.key, |_, state| {
            state.pending().end_read();
        });
    }
}
