//! A store in memory that counts, waits and fails on demand.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::far;
use futures_util::{StreamExt, stream};
use tokio::sync::{Semaphore, watch};
use tower_token_cache::store::{
    Change, Cleared, Commit, CommitId, Feed, FeedEvent, Lease, LeaseState, Loaded, Origin, Outcome,
    PartitionId, Put, Raise, Remaining, Revision,
};
use tower_token_cache::{MemoryStore, StoreError, StoreErrorKind, TokenStore};

/// Methods of a [`TokenStore`] that wraps another one, in `self.0`, and passes them on.
#[macro_export]
macro_rules! passes_on {
    ($($method:ident),*) => {
        $($crate::passes_on!(@ $method);)*
    };
    (@ load) => {
        async fn load(
            &self,
            group: &[tower_token_cache::store::PartitionId],
        ) -> Vec<Result<tower_token_cache::store::Loaded, tower_token_cache::StoreError>> {
            self.0.load(group).await
        }
    };
    (@ commit) => {
        async fn commit(
            &self,
            group: &[tower_token_cache::store::Commit],
        ) -> Vec<Result<tower_token_cache::store::Outcome, tower_token_cache::StoreError>> {
            self.0.commit(group).await
        }
    };
    (@ touch) => {
        async fn touch(
            &self,
            group: &[tower_token_cache::store::PartitionId],
        ) -> Vec<Result<tower_token_cache::store::Remaining, tower_token_cache::StoreError>> {
            self.0.touch(group).await
        }
    };
    (@ clear) => {
        async fn clear(
            &self,
            partition: &tower_token_cache::store::PartitionId,
            expected: Option<u64>,
            id: tower_token_cache::store::CommitId,
        ) -> Result<tower_token_cache::store::Cleared, tower_token_cache::StoreError> {
            self.0.clear(partition, expected, id).await
        }
    };
    (@ raise) => {
        async fn raise(
            &self,
            partition: &tower_token_cache::store::PartitionId,
            raise: tower_token_cache::store::Raise,
            keep: Option<std::time::Duration>,
        ) -> Result<u64, tower_token_cache::StoreError> {
            self.0.raise(partition, raise, keep).await
        }
    };
    (@ relocate) => {
        async fn relocate(
            &self,
            from: &tower_token_cache::store::Origin,
            commit: &tower_token_cache::store::Commit,
        ) -> Result<tower_token_cache::store::Outcome, tower_token_cache::StoreError> {
            self.0.relocate(from, commit).await
        }
    };
    (@ leases) => {
        $crate::passes_on!(@ acquire_lease);
        $crate::passes_on!(@ renew_lease);
        $crate::passes_on!(@ release_lease);
    };
    (@ acquire_lease) => {
        async fn acquire_lease(
            &self,
            lease: &tower_token_cache::store::Lease,
            ttl: std::time::Duration,
        ) -> Result<tower_token_cache::store::LeaseState, tower_token_cache::StoreError> {
            self.0.acquire_lease(lease, ttl).await
        }
    };
    (@ renew_lease) => {
        async fn renew_lease(
            &self,
            lease: &tower_token_cache::store::Lease,
            ttl: std::time::Duration,
        ) -> Result<bool, tower_token_cache::StoreError> {
            self.0.renew_lease(lease, ttl).await
        }
    };
    (@ release_lease) => {
        async fn release_lease(
            &self,
            lease: &tower_token_cache::store::Lease,
        ) -> Result<bool, tower_token_cache::StoreError> {
            self.0.release_lease(lease).await
        }
    };
}

/// A store with nothing but what every store must have; the rest are the trait's defaults.
#[derive(Clone)]
pub struct Least<S>(pub S);

impl<S: TokenStore> TokenStore for Least<S> {
    crate::passes_on!(load, commit, touch, clear, raise, leases);
}

/// Clones share everything.
#[derive(Clone, Default)]
pub struct TestStore {
    inner: MemoryStore,
    state: Arc<State>,
}

struct State {
    down: AtomicBool,
    losing_answers: AtomicBool,
    /// Which sign-out's answer is lost, of all that there have been.
    lost_clear: AtomicU64,
    down_after_move: AtomicBool,
    refusing_commits: AtomicBool,
    /// A commit of more values is too large.
    most_values: AtomicUsize,
    panics_once: AtomicBool,
    loads: AtomicU64,
    looks: AtomicU64,
    groups: AtomicU64,
    commits: AtomicU64,
    touches: AtomicU64,
    clears: AtomicU64,
    relocates: AtomicU64,
    raises: AtomicU64,
    epochs: Mutex<Vec<PartitionId>>,
    leases: AtomicU64,
    renewals: AtomicU64,
    releases: AtomicU64,
    /// How many more operations are answered.
    answers_left: AtomicU64,
    /// Each operation takes a permit and gives it back; none are left while the store hangs.
    gate: Semaphore,
    /// The same for loads only, after they have their answer.
    load_gate: Semaphore,
    load_groups: AtomicU64,
    /// Partitions on a server that no longer answers.
    dead: Mutex<Vec<PartitionId>>,
    /// The partition whose loads are refused.
    refused: Mutex<Option<PartitionId>>,
    /// The same for moves.
    move_gate: Semaphore,
    /// The group of commits that waits, of all that there have been, and who lets it go on.
    held_group: AtomicU64,
    group_gate: Semaphore,
    /// One of three shards does not answer.
    dead_shard: AtomicBool,
    /// What is told of changes; without it the store has no feed.
    line: Option<watch::Sender<Line>>,
}

/// What becomes of what the store tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// It arrives.
    Open,
    /// It stays away, and nobody is told.
    HeldUp,
    Cut,
}

/// The number of the server that no longer answers.
const DEAD: usize = 1;

const OPEN: usize = 1_000;

impl Default for State {
    fn default() -> Self {
        Self {
            down: AtomicBool::default(),
            losing_answers: AtomicBool::default(),
            lost_clear: AtomicU64::default(),
            down_after_move: AtomicBool::default(),
            refusing_commits: AtomicBool::default(),
            most_values: AtomicUsize::new(usize::MAX),
            panics_once: AtomicBool::default(),
            loads: AtomicU64::default(),
            looks: AtomicU64::default(),
            groups: AtomicU64::default(),
            commits: AtomicU64::default(),
            touches: AtomicU64::default(),
            clears: AtomicU64::default(),
            relocates: AtomicU64::default(),
            raises: AtomicU64::default(),
            epochs: Mutex::default(),
            leases: AtomicU64::default(),
            renewals: AtomicU64::default(),
            releases: AtomicU64::default(),
            answers_left: AtomicU64::new(u64::MAX),
            gate: Semaphore::new(OPEN),
            load_gate: Semaphore::new(OPEN),
            load_groups: AtomicU64::default(),
            dead: Mutex::default(),
            refused: Mutex::default(),
            move_gate: Semaphore::new(OPEN),
            held_group: AtomicU64::default(),
            group_gate: Semaphore::new(0),
            dead_shard: AtomicBool::default(),
            line: None,
        }
    }
}

/// An answer as it arrives: as late as [`far::latency`] says.
async fn far_away<T>(answer: impl Future<Output = T>) -> T {
    let answer = answer.await;
    let latency = far::latency();
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    answer
}

/// A commit of one value to a partition that has no generation yet.
pub fn commit_of(
    partition: &PartitionId,
    id: [u8; 8],
    entry: u8,
    value: impl Into<bytes::Bytes>,
) -> Commit {
    let mut commit = Commit::new(partition.clone(), CommitId(id), 0);
    let put = Put::new(value, None);
    commit.changes = vec![Change::new([entry; 16].into(), Some(put))];
    commit
}

/// Loads one partition.
pub async fn load_one(
    store: &impl TokenStore,
    partition: &PartitionId,
) -> Result<Loaded, StoreError> {
    store.load(std::slice::from_ref(partition)).await.remove(0)
}

impl TestStore {
    pub fn new(inner: MemoryStore) -> Self {
        Self {
            inner,
            ..Self::default()
        }
    }

    /// One that tells what changes.
    pub fn telling() -> Self {
        Self::telling_of(MemoryStore::default())
    }

    /// The same of a store that others have, too.
    pub fn telling_of(inner: MemoryStore) -> Self {
        let line = Some(watch::Sender::new(Line::Open));
        Self {
            inner,
            state: Arc::new(State {
                line,
                ..State::default()
            }),
        }
    }

    /// Breaks all feeds.
    pub fn cut(&self) {
        self.set_line(Line::Cut);
    }

    /// Nothing that is told arrives, as with a server that hangs.
    pub fn hold_up(&self) {
        self.set_line(Line::HeldUp);
    }

    pub fn mend(&self) {
        self.set_line(Line::Open);
    }

    fn set_line(&self, line: Line) {
        let told = self.state.line.as_ref().expect("it tells");
        told.send_replace(line);
    }

    fn is_too_large(&self, commit: &Commit) -> bool {
        let values = commit.changes.iter().filter(|change| change.put.is_some());
        values.count() > self.state.most_values.load(Ordering::SeqCst)
    }

    /// Every operation fails from now on, or works again.
    pub fn set_down(&self, down: bool) {
        self.state.down.store(down, Ordering::SeqCst);
    }

    /// Commits, sign-outs and moves are applied from now on, but say that they failed.
    pub fn set_losing_answers(&self, losing: bool) {
        self.state.losing_answers.store(losing, Ordering::SeqCst);
    }

    /// The n-th sign-out from now on, from 1, is applied, but says that it failed.
    pub fn lose_clear(&self, n: u64) {
        self.state
            .lost_clear
            .store(self.clears() + n, Ordering::SeqCst);
    }

    /// Forgets a partition, as a store that evicts it.
    pub fn evict(&self, id: &PartitionId) {
        self.inner.forget(id);
    }

    fn note_epoch(&self, id: &PartitionId) {
        let mut epochs = self.state.epochs.lock().expect("whole");
        if !epochs.contains(id) {
            epochs.push(id.clone());
        }
    }

    /// The epochs that were to be raised, in the order of the first time: the namespace's, and
    /// those of users.
    pub fn epochs(&self) -> Vec<PartitionId> {
        self.state.epochs.lock().expect("whole").clone()
    }

    /// Every operation fails once something has been moved.
    pub fn set_down_after_move(&self) {
        self.state.down_after_move.store(true, Ordering::SeqCst);
    }

    /// Commits fail from now on, and nothing else does.
    pub fn set_refusing_commits(&self, refusing: bool) {
        self.state
            .refusing_commits
            .store(refusing, Ordering::SeqCst);
    }

    /// A commit of more values is too large.
    pub fn set_most_values(&self, most: usize) {
        self.state.most_values.store(most, Ordering::SeqCst);
    }

    /// The next commit panics.
    pub fn panic_once(&self) {
        self.state.panics_once.store(true, Ordering::SeqCst);
    }

    /// Operations that begin from now on wait.
    pub fn hang(&self) {
        let permits = self.state.gate.try_acquire_many(OPEN as u32);
        permits.expect("nothing is under way").forget();
    }

    /// Operations that wait, and all later ones, go on.
    pub fn wake(&self) {
        self.state.gate.add_permits(OPEN);
    }

    /// So many more operations are answered, and none after them.
    pub fn hang_after(&self, operations: u64) {
        self.state.answers_left.store(operations, Ordering::SeqCst);
    }

    /// Loads that begin from now on have their answer, and wait with it.
    pub fn hang_loads(&self) {
        let permits = self.state.load_gate.try_acquire_many(OPEN as u32);
        permits.expect("no load is under way").forget();
    }

    pub fn wake_loads(&self) {
        self.state.load_gate.add_permits(OPEN);
    }

    /// Moves that begin from now on are made, and wait with their answer.
    pub fn hang_moves(&self) {
        let permits = self.state.move_gate.try_acquire_many(OPEN as u32);
        permits.expect("no move is under way").forget();
    }

    pub fn wake_moves(&self) {
        self.state.move_gate.add_permits(OPEN);
    }

    /// The n-th group of commits from now on, from 1, waits before it is applied.
    pub fn hold_group(&self, n: u64) {
        self.state
            .held_group
            .store(self.groups() + n, Ordering::SeqCst);
    }

    pub fn release_group(&self) {
        self.state.group_gate.add_permits(1);
    }

    /// From now on it has three shards, one of which answers nothing.
    pub fn kill_shard(&self) {
        self.state.dead_shard.store(true, Ordering::SeqCst);
    }

    /// Whether a partition is kept where nothing is answered once that is killed.
    pub fn is_of_dead_shard(&self, partition: &PartitionId) -> bool {
        partition.digest()[0].is_multiple_of(3)
    }

    /// Never ready if one of them is of the shard that is dead.
    async fn reach(&self, mut partitions: impl Iterator<Item = &PartitionId>) {
        let dead = self.state.dead_shard.load(Ordering::SeqCst);
        if dead && partitions.any(|partition| self.is_of_dead_shard(partition)) {
            std::future::pending().await
        }
    }

    pub fn loads(&self) -> u64 {
        self.state.loads.load(Ordering::SeqCst)
    }

    /// In how many round-trips partitions were loaded.
    pub fn load_groups(&self) -> u64 {
        self.state.load_groups.load(Ordering::SeqCst)
    }

    /// These partitions are kept by a server of their own, which no longer answers loads.
    pub fn kill_server_of(&self, partitions: impl IntoIterator<Item = PartitionId>) {
        let dead = partitions.into_iter().collect();
        *self.state.dead.lock().expect("whole") = dead;
    }

    /// Loads of this partition fail from now on, and no others.
    pub fn refuse_loads_of(&self, partition: PartitionId) {
        *self.state.refused.lock().expect("whole") = Some(partition);
    }

    /// How often revisions were asked for.
    pub fn looks(&self) -> u64 {
        self.state.looks.load(Ordering::SeqCst)
    }

    pub fn groups(&self) -> u64 {
        self.state.groups.load(Ordering::SeqCst)
    }

    pub fn commits(&self) -> u64 {
        self.state.commits.load(Ordering::SeqCst)
    }

    pub fn touches(&self) -> u64 {
        self.state.touches.load(Ordering::SeqCst)
    }

    pub fn clears(&self) -> u64 {
        self.state.clears.load(Ordering::SeqCst)
    }

    pub fn relocates(&self) -> u64 {
        self.state.relocates.load(Ordering::SeqCst)
    }

    /// How often an epoch was to be raised.
    pub fn raises(&self) -> u64 {
        self.state.raises.load(Ordering::SeqCst)
    }

    /// How often a lease was asked for.
    pub fn leases(&self) -> u64 {
        self.state.leases.load(Ordering::SeqCst)
    }

    pub fn renewals(&self) -> u64 {
        self.state.renewals.load(Ordering::SeqCst)
    }

    pub fn releases(&self) -> u64 {
        self.state.releases.load(Ordering::SeqCst)
    }

    async fn pass(&self, counter: &AtomicU64, count: u64) -> Result<(), StoreError> {
        counter.fetch_add(count, Ordering::SeqCst);
        let left = &self.state.answers_left;
        let next = |left: u64| left.checked_sub(1);
        if left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, next)
            .is_err()
        {
            std::future::pending().await
        }
        let _permit = self.state.gate.acquire().await.expect("never closed");
        match self.state.down.load(Ordering::SeqCst) {
            true => Err(StoreError::new(StoreErrorKind::Unreachable)),
            false => Ok(()),
        }
    }
}

impl TokenStore for TestStore {
    async fn load(&self, group: &[PartitionId]) -> Vec<Result<Loaded, StoreError>> {
        far_away(async {
            if group.iter().all(|id| self.epochs().contains(id)) {
                // How old a number is, which each process asks once.
                self.pass(&self.state.looks, 1).await.ok();
                return self.inner.load(group).await;
            }
            self.state.load_groups.fetch_add(1, Ordering::SeqCst);
            // The answer is of the moment when the operation began, as over a slow network.
            self.reach(group.iter()).await;
            let answers = self.inner.load(group).await;
            if let Err(error) = self.pass(&self.state.loads, group.len() as u64).await {
                return vec![Err(error); group.len()];
            }
            let _permit = self.state.load_gate.acquire().await.expect("never closed");
            if group.iter().any(|id| self.server(id) == DEAD) {
                std::future::pending::<()>().await;
            }
            let refused = self.state.refused.lock().expect("whole").clone();
            let answer = |(id, answer)| match Some(id) == refused.as_ref() {
                true => Err(StoreError::new(StoreErrorKind::Refused)),
                false => answer,
            };
            group.iter().zip(answers).map(answer).collect()
        })
        .await
    }

    fn server(&self, partition: &PartitionId) -> usize {
        let dead = self.state.dead.lock().expect("whole");
        match dead.contains(partition) {
            true => DEAD,
            false if self.state.dead_shard.load(Ordering::SeqCst) => {
                2 + usize::from(partition.digest()[0] % 3)
            }
            false => 0,
        }
    }

    async fn revisions(&self, group: &[PartitionId]) -> Vec<Result<Revision, StoreError>> {
        far_away(async {
            self.reach(group.iter()).await;
            match self.pass(&self.state.looks, 1).await {
                Ok(()) => self.inner.revisions(group).await,
                Err(error) => vec![Err(error); group.len()],
            }
        })
        .await
    }

    async fn commit(&self, group: &[Commit]) -> Vec<Result<Outcome, StoreError>> {
        far_away(async {
            let number = self.state.groups.fetch_add(1, Ordering::SeqCst) + 1;
            if number == self.state.held_group.load(Ordering::SeqCst) {
                let permit = self.state.group_gate.acquire().await;
                permit.expect("never closed").forget();
            }
            if self.state.panics_once.swap(false, Ordering::SeqCst) {
                std::panic::resume_unwind(Box::new("the store's own"));
            }
            let partitions = group.iter().map(|commit| &commit.partition);
            self.reach(partitions).await;
            match self.pass(&self.state.commits, group.len() as u64).await {
                Ok(()) if self.state.refusing_commits.load(Ordering::SeqCst) => {
                    vec![Err(StoreError::new(StoreErrorKind::Refused)); group.len()]
                }
                Ok(()) if group.iter().any(|commit| self.is_too_large(commit)) => {
                    vec![Err(StoreError::new(StoreErrorKind::TooLarge)); group.len()]
                }
                Ok(()) => {
                    let answers = self.inner.commit(group).await;
                    match self.state.losing_answers.load(Ordering::SeqCst) {
                        true => vec![Err(StoreError::new(StoreErrorKind::Timeout)); group.len()],
                        false => answers,
                    }
                }
                Err(error) => vec![Err(error); group.len()],
            }
        })
        .await
    }

    async fn touch(&self, group: &[PartitionId]) -> Vec<Result<Remaining, StoreError>> {
        far_away(async {
            match self.pass(&self.state.touches, group.len() as u64).await {
                Ok(()) => self.inner.touch(group).await,
                Err(error) => vec![Err(error); group.len()],
            }
        })
        .await
    }

    async fn clear(
        &self,
        partition: &PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> Result<Cleared, StoreError> {
        far_away(async {
            self.pass(&self.state.clears, 1).await?;
            let answer = self.inner.clear(partition, expected, id).await;
            let lost = self.clears() == self.state.lost_clear.load(Ordering::SeqCst);
            match lost || self.state.losing_answers.load(Ordering::SeqCst) {
                true => Err(StoreError::new(StoreErrorKind::Timeout)),
                false => answer,
            }
        })
        .await
    }

    async fn raise(
        &self,
        partition: &PartitionId,
        raise: Raise,
        keep: Option<Duration>,
    ) -> Result<u64, StoreError> {
        far_away(async {
            self.pass(&self.state.raises, 1).await?;
            self.note_epoch(partition);
            let answer = self.inner.raise(partition, raise, keep).await;
            match self.state.losing_answers.load(Ordering::SeqCst) {
                true => Err(StoreError::new(StoreErrorKind::Timeout)),
                false => answer,
            }
        })
        .await
    }

    fn feed(&self, namespace: &str) -> Option<Feed> {
        let ear = Ear {
            line: self.state.line.as_ref()?.subscribe(),
            store: self.inner.clone(),
            namespace: namespace.to_owned(),
            told: None,
        };
        Some(Box::pin(stream::unfold(ear, async |mut ear| {
            Some((ear.event().await, ear))
        })))
    }

    async fn relocate(&self, from: &Origin, commit: &Commit) -> Result<Outcome, StoreError> {
        far_away(async {
            self.pass(&self.state.relocates, 1).await?;
            let answer = self.inner.relocate(from, commit).await;
            let _permit = self.state.move_gate.acquire().await.expect("never closed");
            if self.state.down_after_move.load(Ordering::SeqCst) {
                self.set_down(true);
            }
            match self.state.losing_answers.load(Ordering::SeqCst) {
                true => Err(StoreError::new(StoreErrorKind::Timeout)),
                false => answer,
            }
        })
        .await
    }

    async fn acquire_lease(&self, lease: &Lease, ttl: Duration) -> Result<LeaseState, StoreError> {
        far_away(async {
            self.pass(&self.state.leases, 1).await?;
            self.inner.acquire_lease(lease, ttl).await
        })
        .await
    }

    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        far_away(async {
            self.pass(&self.state.renewals, 1).await?;
            self.inner.renew_lease(lease, ttl).await
        })
        .await
    }

    async fn release_lease(&self, lease: &Lease) -> Result<bool, StoreError> {
        far_away(async {
            self.pass(&self.state.releases, 1).await?;
            self.inner.release_lease(lease).await
        })
        .await
    }
}

/// Somebody who listens.
struct Ear {
    line: watch::Receiver<Line>,
    store: MemoryStore,
    namespace: String,
    told: Option<Feed>,
}

impl Ear {
    async fn event(&mut self) -> FeedEvent {
        loop {
            let line = *self.line.borrow_and_update();
            match line {
                Line::Cut if self.told.take().is_some() => return FeedEvent::Lost,
                Line::Open => {
                    let feed = || self.store.feed(&self.namespace).expect("memory tells");
                    let told = self.told.get_or_insert_with(feed);
                    tokio::select! {
                        biased;
                        _ = self.line.changed() => {}
                        event = told.next() => return event.expect("it does not end"),
                    }
                }
                _ => {
                    // Whoever could mend it may have gone.
                    if self.line.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
            }
        }
    }
}
