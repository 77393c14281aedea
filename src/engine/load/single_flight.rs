//! Loads: one per partition at a time, which all callers share. Where memory has something to compare, the
//! version is compared first.

use std::sync::Arc;

use tokio::time::Instant;

use crate::engine::core::Engine;
use crate::engine::error::L2Error;
use crate::engine::load::fetch::FetchStart;
use crate::engine::partition::links::Links;
use crate::engine::partition::merge::{DecodedLoad, ReadStart};
use crate::engine::partition::state::{Partition, State};
use crate::engine::sync::once;
use crate::error::StoreErrorKind;
use crate::key::PartitionKey;
use crate::store::{Loaded, PartitionId};

/// Receives the result of a load in progress.
type Loading = once::Receiver<Result<(), L2Error>>;

impl Engine {
    /// Reads the partition from L2, in one load with all callers that wait for it. With L1 off, what was read
    /// is in the returned partition and nowhere else.
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
        // The load does not depend on its callers: one that is dropped does not cancel it for others.
        let outcome = match self.awaited(deadline, loading.outcome()).await {
            Ok(Some(outcome)) => outcome,
            Ok(None) => Err(L2Error::lost()),
            Err(_) => Err(L2Error::of(StoreErrorKind::Timeout)),
        };
        (partition, outcome)
    }

    /// Joins the load of this partition, or starts one.
    pub(crate) fn start_load(
        self: &Arc<Self>,
        key: &PartitionKey,
        thorough: bool,
    ) -> (Arc<Partition>, Loading) {
        // What the journal has of this partition goes first.
        self.resume_sign_out(key);
        let now = self.now();
        let number = self.l2.number.settled();
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
            // A load in progress counts as a read of L2.
            pending.held += 1;
            // The feed finds it from here on.
            if let Some(id) = &id {
                self.coherence.register(id, partition, state);
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
            // A partition that is not under the known number may just have been superseded, which `fetch`
            // handles.
            match id.filter(|_| !compares && floor.number == number) {
                Some(id) => loader.ask(id, floor),
                None => drop(self.runtime.spawn(loader.run(compares))),
            }
        }
        (partition, loading)
    }
}

/// A load in progress. However it ends, the partition can be loaded again, and the waiters get the outcome.
struct Loader {
    engine: Arc<Engine>,
    partition: Arc<Partition>,
    done: once::Sender<Result<(), L2Error>>,
    outcome: Result<(), L2Error>,
    /// The state knows that the load has ended.
    is_over: bool,
    began: Instant,
}

impl Loader {
    /// One question nearly always suffices: no task is needed to wait for its answer.
    fn ask(self, id: PartitionId, floor: ReadStart) {
        let engine = self.engine.clone();
        let era = engine.rules.trust.era();
        let at = engine.now().moment;
        let begun = FetchStart { floor, era, at };
        engine.ask_for::<Loaded>(id.clone(), move |answer| self.answered(&id, answer, begun));
    }

    fn answered(mut self, id: &PartitionId, answer: Result<Loaded, L2Error>, begun: FetchStart) {
        let engine = &self.engine;
        let key = &self.partition.key;
        match answer {
            Err(failure) => self.outcome = Err(failure),
            // It may still be under the name that it had without encryption.
            Ok(loaded) if !engine.is_ready(&self.partition, &loaded) => self.continue_as_task(),
            Ok(loaded) => {
                let fetched = engine.decode(id, loaded, begun);
                let links = engine.links_of(&fetched);
                if !links.is_empty() {
                    let runtime = engine.runtime.clone();
                    drop(runtime.spawn(self.merge_linked(fetched, begun, links)));
                    return;
                }
                match engine.merge(key, fetched, begun, |state, _| state.end_load()) {
                    Some(()) => self.succeeded(),
                    None => self.continue_as_task(),
                }
            }
        }
    }

    fn succeeded(mut self) {
        self.is_over = true;
        self.outcome = Ok(());
    }

    /// Merges a session that is linked to users, unless they were signed out.
    async fn merge_linked(mut self, mut fetched: DecodedLoad, begun: FetchStart, links: Links) {
        let engine = self.engine.clone();
        let key = &self.partition.key;
        let end = |state: &mut State, _| state.end_load();
        let takes = async {
            if engine.are_over(&links).await? {
                return Ok(engine.end_linked(key, &fetched, begun.floor, &links, end));
            }
            engine.look_for_losses(key, &mut fetched).await?;
            Ok(engine.merge(key, fetched, begun, end))
        };
        let left = engine
            .l2
            .timeouts
            .operation
            .saturating_sub(self.began.elapsed());
        match tokio::time::timeout(left, takes).await {
            Ok(Ok(Some(()))) => self.succeeded(),
            Ok(Ok(None)) => self.run(false).await,
            Ok(Err(failure)) => self.outcome = Err(failure),
            Err(_) => self.outcome = Err(L2Error::of(StoreErrorKind::Timeout)),
        }
    }

    /// Continues as a task, if that question does not suffice.
    fn continue_as_task(self) {
        let runtime = self.engine.runtime.clone();
        runtime.spawn(self.run(false));
    }

    /// Several questions, each with its own timeout, must not take longer in total than callers wait.
    async fn run(mut self, compares: bool) {
        let limit = self.engine.l2.timeouts.operation;
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
        self.done.send(self.outcome.clone());
    }
}
