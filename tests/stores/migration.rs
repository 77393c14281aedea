//! A running site moves from one store to another.

mod back;
mod engine;
mod killed;
mod races;
mod servers;
mod tried;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::passes_on;
use common::store::commit_of;
use futures_util::{StreamExt, TryStreamExt};
use tower_token_cache::store::conformance::{self, Harness};
use tower_token_cache::store::{
    Cleared, Commit, CommitId, Feed, Lease, LeaseState, Listed, Listing, Loaded, MigratingStore,
    Movable, Origin, Outcome, PartitionId, Portable, Progress, Raise, Remaining, Revision,
};
use tower_token_cache::{Clock, MemoryStore, StoreError, StoreErrorKind, Timestamp, TokenStore};

const NAMESPACE: &str = "test";

fn id(name: &str) -> PartitionId {
    PartitionId::for_tests(NAMESPACE, name)
}

fn commit(name: &str, number: u64, value: &str) -> Commit {
    commit_of(&id(name), number.to_be_bytes(), 1, value.to_owned())
}

async fn put(store: &impl TokenStore, name: &str, number: u64, value: &str) -> Outcome {
    let answers = store.commit(&[commit(name, number, value)]).await;
    answers.into_iter().next().unwrap().unwrap()
}

async fn load(store: &impl TokenStore, name: &str) -> Loaded {
    store.load(&[id(name)]).await.remove(0).unwrap()
}

async fn value(store: &impl TokenStore, name: &str) -> Option<String> {
    let loaded = load(store, name).await;
    let value = loaded.entries.first().map(|entry| entry.value.to_vec());
    value.map(|value| String::from_utf8(value).unwrap())
}

async fn move_all<O, N>(store: &MigratingStore<O, N>) -> Progress
where
    O: Movable + Listed,
    N: Movable,
{
    let run = store.mover(NAMESPACE).per_second(1_000_000).run();
    let progress: Vec<_> = run.try_collect().await.unwrap();
    *progress.last().unwrap()
}

fn conformance_stores() -> (MemoryStore, MemoryStore, Clock) {
    let clock = Clock::manual(Timestamp::now());
    let store = || MemoryStore::new().with_clock(clock.clone());
    (store(), store(), clock.clone())
}

mod a_store_that_moves_conforms {
    use super::*;

    fn harness() -> Harness<MigratingStore<MemoryStore, MemoryStore>> {
        let (old, new, clock) = conformance_stores();
        Harness::manual(MigratingStore::moving(old, new), clock)
    }

    tower_token_cache::conformance_tests!(harness());
}

mod a_store_that_follows_conforms {
    use super::*;

    fn harness() -> Harness<MigratingStore<MemoryStore, MemoryStore>> {
        let (old, new, clock) = conformance_stores();
        Harness::manual(MigratingStore::following(old, new), clock)
    }

    tower_token_cache::conformance_tests!(harness());
}

/// Each call goes to an instance that follows, or to one that moves.
mod a_fleet_of_both_conforms {
    use super::*;

    fn harness() -> Harness<Fleet<MemoryStore, MemoryStore>> {
        let (old, new, clock) = conformance_stores();
        Harness::manual(Fleet::new(old, new), clock)
    }

    tower_token_cache::conformance_tests!(harness());
}

/// Instances of the two steps, which take turns at random. Boxed, because one future of all checks is too large for a stack.
struct Fleet<O, N> {
    following: MigratingStore<O, N>,
    moving: MigratingStore<O, N>,
    random: AtomicU64,
}

impl<O: Movable + Clone, N: Movable + Clone> Fleet<O, N> {
    fn new(old: O, new: N) -> Self {
        let random = AtomicU64::new(Timestamp::now().as_millis());
        Self {
            following: MigratingStore::following(old.clone(), new.clone()),
            moving: MigratingStore::moving(old, new),
            random,
        }
    }

    fn any(&self) -> &MigratingStore<O, N> {
        let number = self
            .random
            .fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        match number >> 62 {
            0 => &self.moving,
            _ => &self.following,
        }
    }
}

impl<O: Movable + Clone, N: Movable + Clone> TokenStore for Fleet<O, N> {
    async fn load(&self, group: &[PartitionId]) -> Vec<Result<Loaded, StoreError>> {
        Box::pin(self.any().load(group)).await
    }

    async fn revisions(&self, group: &[PartitionId]) -> Vec<Result<Revision, StoreError>> {
        Box::pin(self.any().revisions(group)).await
    }

    async fn commit(&self, group: &[Commit]) -> Vec<Result<Outcome, StoreError>> {
        Box::pin(self.any().commit(group)).await
    }

    async fn touch(&self, group: &[PartitionId]) -> Vec<Result<Remaining, StoreError>> {
        Box::pin(self.any().touch(group)).await
    }

    async fn clear(
        &self,
        partition: &PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> Result<Cleared, StoreError> {
        Box::pin(self.any().clear(partition, expected, id)).await
    }

    async fn raise(
        &self,
        partition: &PartitionId,
        raise: Raise,
        keep: Option<Duration>,
    ) -> Result<u64, StoreError> {
        Box::pin(self.any().raise(partition, raise, keep)).await
    }

    fn feed(&self, namespace: &str) -> Option<Feed> {
        self.any().feed(namespace)
    }

    async fn relocate(&self, from: &Origin, commit: &Commit) -> Result<Outcome, StoreError> {
        Box::pin(self.any().relocate(from, commit)).await
    }

    async fn acquire_lease(&self, lease: &Lease, ttl: Duration) -> Result<LeaseState, StoreError> {
        Box::pin(self.any().acquire_lease(lease, ttl)).await
    }

    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        Box::pin(self.any().renew_lease(lease, ttl)).await
    }

    async fn release_lease(&self, lease: &Lease) -> Result<bool, StoreError> {
        Box::pin(self.any().release_lease(lease)).await
    }
}

#[tokio::test]
async fn stores_in_this_process_are_movable() {
    let clock = Clock::manual(Timestamp::now());
    let memory = MemoryStore::new().with_clock(clock.clone());
    conformance::movable(&Harness::manual(memory, clock.clone())).await;
    let cells = common::cas::Cells::default();
    let cas = tower_token_cache::store::CasAdapter::new(cells).with_clock(clock.clone());
    conformance::movable(&Harness::manual(cas, clock.clone())).await;
    let directory = tempfile::tempdir().unwrap();
    let sqlite = tower_token_cache::SqliteStore::open(directory.path().join("tokens.db"));
    let sqlite = sqlite.await.unwrap().with_clock(clock.clone());
    conformance::movable(&Harness::manual(sqlite, clock)).await;
}

#[tokio::test]
async fn what_is_read_stays_where_it_is_and_what_is_changed_moves() {
    let (old, new) = (MemoryStore::new(), MemoryStore::new());
    put(&old, "ada", 1, "first").await;
    let store = MigratingStore::moving(old.clone(), new.clone());
    assert_eq!(value(&store, "ada").await.as_deref(), Some("first"));
    assert_eq!(value(&new, "ada").await, None);
    put(&store, "ada", 2, "second").await;
    assert_eq!(value(&new, "ada").await.as_deref(), Some("second"));
    assert_eq!(load(&new, "ada").await.version, 2, "the same life goes on");
    assert_eq!(value(&old, "ada").await, None);
}

#[tokio::test]
async fn sign_outs_hold_before_during_and_after() {
    for signed_out_by in [
        "the old store",
        "one that follows",
        "one that moves",
        "the new store",
    ] {
        for moved_before in [false, true] {
            if (signed_out_by, moved_before) == ("the old store", true)
                || (signed_out_by, moved_before) == ("the new store", false)
            {
                // Those steps do not follow each other.
                continue;
            }
            let (old, new) = (MemoryStore::new(), MemoryStore::new());
            put(&old, "ada", 1, "first").await;
            let following = MigratingStore::following(old.clone(), new.clone());
            let moving = MigratingStore::moving(old.clone(), new.clone());
            if moved_before {
                move_all(&moving).await;
            }
            let sign_out = CommitId([9; 8]);
            let cleared = match signed_out_by {
                "the old store" => old.clear(&id("ada"), Some(0), sign_out).await,
                "one that follows" => following.clear(&id("ada"), None, sign_out).await,
                "one that moves" => moving.clear(&id("ada"), Some(0), sign_out).await,
                _ => new.clear(&id("ada"), Some(0), sign_out).await,
            };
            let case = format!("signed out by {signed_out_by}, moved before: {moved_before}");
            assert!(cleared.unwrap().ended, "{case}");
            for store in [&following, &moving, &following] {
                assert_eq!(value(store, "ada").await, None, "{case}");
                let late = put(store, "ada", 2, "late").await;
                assert_eq!(late, Outcome::Stale { generation: 1 }, "{case}");
            }
            move_all(&moving).await;
            assert_eq!(load(&new, "ada").await.generation, 1, "{case}");
            let late = put(&new, "ada", 3, "late").await;
            assert_eq!(late, Outcome::Stale { generation: 1 }, "{case}");
        }
    }
}

/// What an instance on the old store alone does to what has moved is refused, and brings nothing back.
#[tokio::test]
async fn an_instance_that_was_forgotten_changes_nothing_that_has_moved() {
    let (old, new) = (MemoryStore::new(), MemoryStore::new());
    put(&old, "ada", 1, "first").await;
    let store = MigratingStore::moving(old.clone(), new.clone());
    put(&store, "ada", 2, "second").await;
    assert_eq!(value(&old, "ada").await, None, "no token that was replaced");
    let late = put(&old, "ada", 3, "of the old one").await;
    assert!(matches!(late, Outcome::Stale { .. }), "{late:?}");
    assert_eq!(value(&store, "ada").await.as_deref(), Some("second"));

    // Its user signs in there again, and that ends with the old store.
    let mut again = commit("ada", 4, "of the old one");
    again.generation = 1;
    old.commit(&[again]).await.remove(0).unwrap();
    assert_eq!(value(&store, "ada").await.as_deref(), Some("second"));
}

#[tokio::test]
async fn what_was_signed_out_in_the_new_store_does_not_come_back() {
    let (old, new, clock) = conformance_stores();
    put(&old, "ada", 1, "first").await;
    let store = MigratingStore::moving(old.clone(), new.clone());
    put(&store, "ada", 2, "second").await;
    store
        .clear(&id("ada"), Some(0), CommitId([9; 8]))
        .await
        .unwrap();
    assert_eq!(value(&store, "ada").await, None);
    // Without a trace, as by eviction or by hand.
    new.forget(&id("ada"));
    assert_eq!(value(&store, "ada").await, None);
    clock.advance(Duration::from_secs(25 * 3600));
    assert_eq!(value(&store, "ada").await, None);
    assert_eq!(move_all(&store).await.moved, 0);
    assert_eq!(value(&new, "ada").await, None);
}

/// What one that follows does while another one moves the partition is done, once, or refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_change_is_lost_while_partitions_move() {
    for round in 0..50 {
        let (old, new) = (MemoryStore::new(), MemoryStore::new());
        let fleet = Arc::new(Fleet::new(old.clone(), new.clone()));
        put(&fleet.following, "ada", 0, "begun").await;
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 1..=8_u64 {
            let fleet = fleet.clone();
            tasks.spawn(async move {
                for number in 0..8 {
                    let number = writer << 32 | number;
                    let mut commit = commit("ada", number, "x");
                    commit.changes[0].entry = [100 + writer as u8; 16].into();
                    let store = if writer % 2 == 0 && number % 8 > 3 {
                        &fleet.moving
                    } else {
                        &fleet.following
                    };
                    let outcome = store.commit(&[commit]).await.remove(0).unwrap();
                    assert!(matches!(outcome, Outcome::Committed { .. }), "{outcome:?}");
                    tokio::task::yield_now().await;
                }
            });
        }
        tasks.join_all().await;
        let loaded = load(&new, "ada").await;
        assert_eq!(
            (loaded.version, loaded.entries.len()),
            (65, 9),
            "round {round}"
        );
        let stored: Vec<_> = new.partitions();
        let live: Vec<_> = new
            .load(&stored)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
        let live = live
            .iter()
            .filter(|loaded| !loaded.entries.is_empty())
            .count();
        assert_eq!(live, 1, "nothing is left aside");
    }
}

/// A store whose calls fail from the n-th on.
#[derive(Clone)]
struct Failing<S>(S, Arc<AtomicU64>);

impl<S> Failing<S> {
    fn new(inner: S, calls: &Arc<AtomicU64>) -> Self {
        Self(inner, calls.clone())
    }

    fn check(&self) -> Result<(), StoreError> {
        let less = |left: u64| left.checked_sub(1);
        let left = self
            .1
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        left.map(drop)
            .map_err(|_| StoreError::new(StoreErrorKind::Unreachable))
    }
}

impl<S: TokenStore> TokenStore for Failing<S> {
    passes_on!(touch, leases);

    async fn load(&self, group: &[PartitionId]) -> Vec<Result<Loaded, StoreError>> {
        match self.check() {
            Ok(()) => self.0.load(group).await,
            Err(error) => vec![Err(error); group.len()],
        }
    }

    async fn commit(&self, group: &[Commit]) -> Vec<Result<Outcome, StoreError>> {
        match self.check() {
            Ok(()) => self.0.commit(group).await,
            Err(error) => vec![Err(error); group.len()],
        }
    }

    async fn clear(
        &self,
        partition: &PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> Result<Cleared, StoreError> {
        self.check()?;
        self.0.clear(partition, expected, id).await
    }

    async fn raise(
        &self,
        partition: &PartitionId,
        raise: Raise,
        keep: Option<Duration>,
    ) -> Result<u64, StoreError> {
        self.check()?;
        self.0.raise(partition, raise, keep).await
    }
}

impl<S: Movable> Movable for Failing<S> {
    async fn export(&self, partition: &PartitionId) -> Result<Option<Portable>, StoreError> {
        self.check()?;
        self.0.export(partition).await
    }

    async fn adopt(&self, partition: &PartitionId, it: &Portable) -> Result<bool, StoreError> {
        self.check()?;
        self.0.adopt(partition, it).await
    }

    async fn withdraw(&self, from: &Origin, id: CommitId) -> Result<bool, StoreError> {
        self.check()?;
        self.0.withdraw(from, id).await
    }

    async fn remove(&self, partition: &PartitionId, last: CommitId) -> Result<bool, StoreError> {
        self.check()?;
        self.0.remove(partition, last).await
    }
}

impl<S: Listed> Listed for Failing<S> {
    async fn list(&self, namespace: &str, cursor: Option<&[u8]>) -> Result<Listing, StoreError> {
        self.check()?;
        self.0.list(namespace, cursor).await
    }
}

/// An instance dies after each number of calls that a move takes. Any other one finds the session, and goes on.
#[tokio::test]
async fn a_crash_anywhere_loses_nothing() {
    let mut done = false;
    for calls in 0..40 {
        for reader in ["one that follows", "one that moves", "a mover"] {
            let (old, new) = (MemoryStore::new(), MemoryStore::new());
            put(&old, "ada", 1, "first").await;
            old.clear(&id("bob"), Some(0), CommitId([8; 8]))
                .await
                .unwrap();
            let left = Arc::new(AtomicU64::new(calls));
            let dying = MigratingStore::moving(
                Failing::new(old.clone(), &left),
                Failing::new(new.clone(), &left),
            );
            let run = dying.mover(NAMESPACE).per_second(1_000_000).run();
            let told: Vec<_> = run.collect().await;
            done = told.last().unwrap().is_ok();

            let moving = MigratingStore::moving(old.clone(), new.clone());
            let case = format!("after {calls} calls, {reader}");
            match reader {
                "one that follows" => {
                    let following = MigratingStore::following(old.clone(), new.clone());
                    let found = value(&following, "ada").await;
                    assert_eq!(found.as_deref(), Some("first"), "{case}");
                    let outcome = put(&following, "ada", 2, "second").await;
                    assert!(
                        matches!(outcome, Outcome::Committed { version: 2, .. }),
                        "{case}"
                    );
                }
                "one that moves" => {
                    let outcome = put(&moving, "ada", 2, "second").await;
                    assert!(
                        matches!(outcome, Outcome::Committed { version: 2, .. }),
                        "{case}"
                    );
                }
                _ => {}
            }
            let late = put(&moving, "bob", 3, "late").await;
            assert_eq!(late, Outcome::Stale { generation: 1 }, "{case}");
            assert!(move_all(&moving).await.done, "{case}");
            let expected = if reader == "a mover" {
                "first"
            } else {
                "second"
            };
            assert_eq!(
                value(&new, "ada").await.as_deref(),
                Some(expected),
                "{case}"
            );
            assert_eq!(load(&new, "bob").await.generation, 1, "{case}");
        }
    }
    assert!(done, "the last ones died after the move");
}

/// The second mover begins where the first one was.
#[tokio::test]
async fn a_mover_goes_on_where_the_last_one_was() {
    let (old, new) = (MemoryStore::new(), MemoryStore::new());
    for user in 0..1600 {
        put(&old, &format!("user {user}"), user, "x").await;
    }
    let store = MigratingStore::moving(old, new.clone());
    let first = store.mover(NAMESPACE).per_second(1_000_000).run();
    let mut first = std::pin::pin!(first);
    let seen = first.next().await.unwrap().unwrap();
    assert_eq!((seen.seen, seen.moved, seen.passes), (500, 500, 0));
    first.next().await.unwrap().unwrap();

    let last = move_all(&store).await;
    assert_eq!((last.moved, last.passes), (600, 2), "and a pass over all");
    assert_eq!(last.seen, 600 + 1600);
    for user in 0..1600 {
        assert!(value(&new, &format!("user {user}")).await.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_mover_takes_its_time() {
    let (old, new) = (MemoryStore::new(), MemoryStore::new());
    for user in 0..100 {
        put(&old, &format!("user {user}"), user, "x").await;
    }
    let store = MigratingStore::moving(old, new);
    let start = tokio::time::Instant::now();
    let run = store.mover(NAMESPACE).per_second(10).run();
    run.try_collect::<Vec<_>>().await.unwrap();
    let took = start.elapsed().as_secs_f64();
    assert!((10.0..11.0).contains(&took), "{took}");
}
