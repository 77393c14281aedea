//! The store as one instance reaches it: late, lossy, or not at all.

use std::time::Duration;

use tokio::time::sleep;
use tower_token_cache::store::{
    Cleared, Commit, CommitId, Feed, Lease, LeaseState, Loaded, Origin, Outcome, PartitionId,
    Raise, Remaining, Revision,
};
use tower_token_cache::{StoreError, StoreErrorKind, TokenStore};

use super::feed::feed;
use super::names::at_once;
use super::sql::Change;
use super::world::{Fault, PATIENCE, SILENCE, State, World};

pub struct SimStore {
    pub world: World,
    pub instance: usize,
    pub has_feed: bool,
    pub is_sql: bool,
}

/// What will become of one operation.
pub struct Fate {
    pub before: u64,
    pub after: u64,
    pub refused: bool,
    pub muted: bool,
}

impl State {
    pub fn fate(&mut self, instance: usize, reads: bool) -> Fate {
        let (rng, now) = (&mut self.rng, self.now);
        let own = &self.instances[instance];
        let fault = match own.ended.is_some() {
            true => Fault::Down,
            false if now < own.fault_until => own.fault,
            false => Fault::None,
        };
        let mut fate = Fate {
            before: rng.between(0, 2),
            after: rng.between(0, 2),
            refused: false,
            muted: false,
        };
        match fault {
            Fault::None if rng.percent(12) => {
                let longest = match reads && rng.percent(80) {
                    true => PATIENCE - 4,
                    false => 150,
                };
                match rng.percent(50) {
                    true => fate.before = rng.between(5, longest),
                    false => fate.after = rng.between(5, longest),
                }
            }
            Fault::None => {}
            Fault::Down => fate.refused = true,
            Fault::Mute => fate.muted = rng.percent(70),
            Fault::Hung => match rng.percent(50) {
                true => fate.before = rng.between(200, 4000),
                false => fate.after = rng.between(200, 4000),
            },
        }
        let takes = fate.before + fate.after;
        if reads && takes > PATIENCE {
            let until = now + takes + SILENCE;
            let own = &mut self.instances[instance];
            own.silent_until = own.silent_until.max(until);
        }
        fate
    }
}

/// One operation under way. Dropped before its end, the instance has not heard the answer, and it
/// may be applied all the same.
struct Asked<'a, F, T>
where
    F: FnOnce(&mut State) -> T + Send + 'static,
{
    store: &'a SimStore,
    apply: Option<F>,
    may_be_late: bool,
    answered: bool,
}

impl<F, T> Drop for Asked<'_, F, T>
where
    F: FnOnce(&mut State) -> T + Send + 'static,
{
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        let mut state = self.store.world.lock();
        state.disturb(self.store.instance);
        if let Some(apply) = self.apply.take()
            && self.may_be_late
            && state.rng.percent(20)
        {
            let after = state.rng.between(1, 2000);
            state.later(
                after,
                Box::new(|state| {
                    apply(state);
                }),
            );
        }
    }
}

impl SimStore {
    async fn ask<F, T>(&self, may_be_late: bool, reads: bool, apply: F) -> Result<T, StoreError>
    where
        F: FnOnce(&mut State) -> T + Send + 'static,
    {
        let fate = self.world.lock().fate(self.instance, reads);
        let mut asked = Asked {
            store: self,
            apply: Some(apply),
            may_be_late,
            answered: false,
        };
        if fate.before > 0 {
            sleep(Duration::from_millis(fate.before)).await;
        }
        self.world.awake(self.instance).await;
        if fate.refused {
            asked.apply = None;
            return Err(StoreError::new(StoreErrorKind::Unreachable));
        }
        if self.world.lock().refuses(reads) {
            asked.apply = None;
            return Err(StoreError::new(StoreErrorKind::Refused));
        }
        let apply = asked.apply.take().expect("applied once");
        let answer = apply(&mut self.world.lock());
        if fate.after > 0 {
            sleep(Duration::from_millis(fate.after)).await;
        }
        self.world.awake(self.instance).await;
        if fate.muted {
            return Err(StoreError::new(StoreErrorKind::Timeout));
        }
        asked.answered = true;
        Ok(answer)
    }

    async fn ask_group<F, T>(
        &self,
        may_be_late: bool,
        count: usize,
        reads: bool,
        apply: F,
    ) -> Vec<Result<T, StoreError>>
    where
        F: FnOnce(&mut State) -> Vec<Result<T, StoreError>> + Send + 'static,
    {
        match self.ask(may_be_late, reads, apply).await {
            Ok(answers) => answers,
            Err(error) => vec![(); count]
                .into_iter()
                .map(|()| Err(error.clone()))
                .collect(),
        }
    }

    /// Changes partitions, each by itself: together, or as a database does.
    async fn write_group<P, T>(
        &self,
        group: &[P],
        id: impl Fn(&P) -> &PartitionId,
        apply: impl Fn(&mut State, Vec<P>) -> Vec<Result<T, StoreError>> + Clone + Send + Sync + 'static,
    ) -> Vec<Result<T, StoreError>>
    where
        P: Clone + Send + Sync + 'static,
        T: Send + 'static,
    {
        let group = group.to_vec();
        if !self.is_sql {
            let count = group.len();
            let apply = move |state: &mut State| apply(state, group);
            return self.ask_group(true, count, false, apply).await;
        }
        let change = |one: P| {
            let (of, apply) = (vec![id(&one).clone()], apply.clone());
            Change::new(of, move |state| apply(state, vec![one.clone()]).remove(0))
        };
        let answers = self.change(group.into_iter().map(change).collect()).await;
        answers.into_iter().map(|answer| answer?).collect()
    }

    /// Changes these partitions, all of them.
    async fn write<T: Send + 'static>(
        &self,
        of: Vec<PartitionId>,
        apply: impl Fn(&mut State) -> Result<T, StoreError> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        match self.is_sql {
            true => self.change(vec![Change::new(of, apply)]).await.remove(0)?,
            false => self.ask(true, false, apply).await?,
        }
    }
}

impl TokenStore for SimStore {
    async fn load(&self, group: &[PartitionId]) -> Vec<Result<Loaded, StoreError>> {
        let group = group.to_vec();
        self.ask_group(false, group.len(), true, move |state| {
            at_once(state.server.store.load(&group))
        })
        .await
    }

    async fn revisions(&self, group: &[PartitionId]) -> Vec<Result<Revision, StoreError>> {
        let group = group.to_vec();
        self.ask_group(true, group.len(), true, move |state| {
            at_once(state.server.store.revisions(&group))
        })
        .await
    }

    async fn commit(&self, group: &[Commit]) -> Vec<Result<Outcome, StoreError>> {
        let by = self.instance;
        let commit = move |state: &mut State, group| state.commit(by, group);
        self.write_group(group, |commit| &commit.partition, commit)
            .await
    }

    async fn touch(&self, group: &[PartitionId]) -> Vec<Result<Remaining, StoreError>> {
        self.write_group(group, |id| id, State::touch).await
    }

    async fn clear(
        &self,
        partition: &PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> Result<Cleared, StoreError> {
        let (partition, by) = (partition.clone(), self.instance);
        let sent = self.world.lock().now;
        self.write(vec![partition.clone()], move |state| {
            state.clear(by, sent, partition.clone(), expected, id)
        })
        .await
    }

    async fn raise(
        &self,
        partition: &PartitionId,
        raise: Raise,
        keep: Option<Duration>,
    ) -> Result<u64, StoreError> {
        let (partition, by) = (partition.clone(), self.instance);
        self.write(vec![partition.clone()], move |state| {
            state.raise(by, &partition, raise, keep)
        })
        .await
    }

    fn feed(&self, namespace: &str) -> Option<Feed> {
        let feed = || feed(self.world.clone(), self.instance, namespace);
        self.has_feed.then(feed)
    }

    async fn relocate(&self, from: &Origin, commit: &Commit) -> Result<Outcome, StoreError> {
        let (from, commit, by) = (from.clone(), commit.clone(), self.instance);
        let both = vec![from.partition.clone(), commit.partition.clone()];
        self.write(both, move |state| {
            state.relocate(by, from.clone(), commit.clone())
        })
        .await
    }

    async fn acquire_lease(&self, lease: &Lease, ttl: Duration) -> Result<LeaseState, StoreError> {
        let (lease, by) = (lease.clone(), self.instance);
        self.ask(true, false, move |state| {
            let answer = at_once(state.server.store.acquire_lease(&lease, ttl));
            state.note(format_args!("i{by} asks for a lease: {answer:?}"));
            answer
        })
        .await?
    }

    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        let (lease, by) = (lease.clone(), self.instance);
        self.ask(true, false, move |state| {
            let answer = at_once(state.server.store.renew_lease(&lease, ttl));
            state.note(format_args!("i{by} renews a lease: {answer:?}"));
            answer
        })
        .await?
    }

    async fn release_lease(&self, lease: &Lease) -> Result<bool, StoreError> {
        let (lease, by) = (lease.clone(), self.instance);
        self.ask(true, false, move |state| {
            let answer = at_once(state.server.store.release_lease(&lease));
            state.note(format_args!("i{by} releases a lease: {answer:?}"));
            answer
        })
        .await?
    }
}
