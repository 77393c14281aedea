//! The kit for simple stores: what compare-and-set alone has to keep.

#[path = "../../examples/custom_store/src/folder.rs"]
mod folder;

use std::time::Duration;

use common::cas::Cells;
use common::store::{commit_of, load_one};
use tower_token_cache::store::conformance::{self, Harness};
use tower_token_cache::store::{
    CasAdapter, CommitId, EntryId, Lease, LeaseState, Lifetime, Outcome, PartitionId,
    REMEMBERED_COMMITS, Raise, TOMBSTONE,
};
use tower_token_cache::{Clock, StoreErrorKind, Timestamp, TokenStore};

const TTL: Duration = Duration::from_secs(10);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn manual() -> Clock {
    Clock::manual(Timestamp::now())
}

fn on(cells: &Cells, clock: &Clock) -> CasAdapter<Cells> {
    CasAdapter::new(cells.clone()).with_clock(clock.clone())
}

fn partition() -> PartitionId {
    PartitionId::for_tests("test", "a")
}

mod a_simple_store_conforms {
    use super::*;

    fn harness() -> Harness<CasAdapter<Cells>> {
        let clock = manual();
        Harness::manual(on(&Cells::default(), &clock), clock)
    }

    tower_token_cache::conformance_tests!(harness());
}

#[tokio::test]
async fn a_simple_store_keeps_its_own_rules() {
    let clock = manual();
    let harness = Harness::manual(on(&Cells::default(), &clock), clock);
    conformance::cas_store(&harness).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_simple_store_conforms_on_several_threads() {
    for _ in 0..20 {
        let clock = manual();
        let harness = Harness::manual(on(&Cells::default(), &clock), clock);
        conformance::concurrent_commits_all_survive(&harness).await;
        conformance::concurrent_expectations_have_one_winner(&harness).await;
        conformance::concurrent_leases_have_one_owner(&harness).await;
        conformance::concurrent_moves_have_one_winner(&harness).await;
        conformance::concurrent_raises_all_count(&harness).await;
    }
}

/// The example `custom_store`, as two processes have it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_in_a_folder_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let folder = || folder::Folder(directory.path().into());
    let clock = manual();
    let store = CasAdapter::new(folder()).with_clock(clock.clone());
    let harness = Harness::manual(store, clock);
    conformance::all(&harness).await;
    conformance::cas_store(&harness).await;

    let commits = (1..=20).map(|id| commit_of(&partition(), [id; 8], id, "value"));
    let commits = commits.map(|commit| async move {
        let answer = CasAdapter::new(folder()).commit(&[commit]).await.remove(0);
        answer.unwrap()
    });
    futures_util::future::join_all(commits).await;
    let store = CasAdapter::new(folder());
    let loaded = load_one(&store, &partition()).await.unwrap();
    assert_eq!((loaded.version, loaded.entries.len()), (20, 20));

    // Its time says when it is of no use any more.
    let file = store
        .inner()
        .0
        .join(format!("test:{}", partition().encoded()));
    let modified = || std::fs::metadata(&file).unwrap().modified().unwrap();
    let now = std::time::SystemTime::now();
    assert!(modified() > now + 1000 * DAY);
    store
        .clear(&partition(), None, CommitId([99; 8]))
        .await
        .unwrap();
    assert!(modified() > now + TOMBSTONE && modified() < now + 2 * TOMBSTONE);
}

/// Each operation begins again, and is applied once.
#[tokio::test(start_paused = true)]
async fn who_comes_second_begins_again() {
    let (cells, clock) = (Cells::default(), manual());
    let store = on(&cells, &clock);
    let commit = commit_of(&partition(), [1; 8], 1, "value");
    let lease = Lease::new(partition(), EntryId::from([1; 16]), [1; 16]);
    cells.collide(7);
    let committed = store.commit(std::slice::from_ref(&commit)).await.remove(0);
    assert!(matches!(
        committed,
        Ok(Outcome::Committed { version: 1, .. })
    ));
    cells.collide(7);
    let granted = store.acquire_lease(&lease, TTL).await.unwrap();
    assert_eq!(granted, LeaseState::Granted);
    cells.collide(7);
    assert!(store.renew_lease(&lease, TTL).await.unwrap());
    cells.collide(7);
    assert!(store.release_lease(&lease).await.unwrap());
    cells.collide(7);
    let cleared = store.clear(&partition(), None, CommitId([2; 8])).await;
    assert_eq!(cleared.unwrap().generation, 1);
}

/// A store that never agrees is given up, and the caller may try again.
#[tokio::test(start_paused = true)]
async fn who_never_comes_first_gets_an_error_in_time() {
    let (cells, clock) = (Cells::default(), manual());
    cells.collide(u32::MAX);
    let commit = commit_of(&partition(), [1; 8], 1, "value");
    let refused = on(&cells, &clock).commit(&[commit]).await.remove(0);
    assert_eq!(refused.unwrap_err().kind(), StoreErrorKind::Timeout);
}

/// An instance takes a lease over after it has watched it for its time, whatever the wall clocks show.
#[tokio::test]
async fn a_lease_is_taken_over_after_it_was_watched_for_its_time() {
    let cells = Cells::default();
    let (owner_clock, clock) = (
        manual(),
        Clock::manual(Timestamp::now().saturating_add(30 * DAY)),
    );
    let (owner, waiter) = (on(&cells, &owner_clock), on(&cells, &clock));
    let lease = |owner| Lease::new(partition(), EntryId::from([1; 16]), [owner; 16]);
    let state = owner.acquire_lease(&lease(1), TTL).await.unwrap();
    assert_eq!(state, LeaseState::Granted);
    let held = async |remaining| {
        let state = waiter.acquire_lease(&lease(2), TTL).await.unwrap();
        assert_eq!(state, LeaseState::Held { remaining });
    };
    // However long ago it was taken: the waiter sees it for the first time.
    clock.advance(10 * TTL);
    held(TTL).await;
    clock.advance(TTL / 2);
    held(TTL / 2).await;
    // A step ahead is no time that has passed.
    clock.set(clock.now().saturating_add(DAY));
    held(TTL).await;
    clock.set(clock.now().saturating_sub(40 * DAY));
    held(TTL).await;
    clock.advance(TTL / 2);
    assert!(owner.renew_lease(&lease(1), TTL).await.unwrap());
    held(TTL).await;
    clock.advance(TTL);
    let state = waiter.acquire_lease(&lease(2), TTL).await.unwrap();
    assert_eq!(state, LeaseState::Granted);
    assert!(!owner.renew_lease(&lease(1), TTL).await.unwrap());
    assert!(!owner.release_lease(&lease(1)).await.unwrap());
    assert!(waiter.release_lease(&lease(2)).await.unwrap());
    assert_eq!(cells.keys(), [""; 0], "nothing is left of it");
}

/// A damaged lease is free.
#[tokio::test]
async fn a_damaged_lease_is_free() {
    let (cells, clock) = (Cells::default(), manual());
    let store = on(&cells, &clock);
    let lease = Lease::new(partition(), EntryId::from([1; 16]), [1; 16]);
    store.acquire_lease(&lease, TTL).await.unwrap();
    let key = cells.keys().remove(0);
    let other = Lease::new(partition(), EntryId::from([1; 16]), [2; 16]);
    for foreign in [&b""[..], b"x", &[1; 32], &[1; 34], &[2; 33]] {
        cells.set(&key, foreign);
        assert!(!store.renew_lease(&lease, TTL).await.unwrap());
        let state = store.acquire_lease(&other, TTL).await.unwrap();
        assert_eq!(state, LeaseState::Granted, "{foreign:?}");
    }
}

/// A commit from before a sign-out is stale by any clock, for as long as the store has the tombstone.
#[tokio::test]
async fn no_clock_brings_a_signed_out_session_back() {
    for (days_ahead, back) in [(0, 0), (400, 0), (0, 400)] {
        let cells = Cells::default();
        let now = Timestamp::now().saturating_add(500 * DAY);
        let right = on(&cells, &Clock::manual(now));
        let other = Clock::manual(
            now.saturating_add(days_ahead * DAY)
                .saturating_sub(back * DAY),
        );
        let other = on(&cells, &other);
        let before = commit_of(&partition(), [1; 8], 1, "before");
        right
            .commit(std::slice::from_ref(&before))
            .await
            .remove(0)
            .unwrap();
        for (store, stale) in [(&right, &other), (&other, &right)] {
            let cleared = store.clear(&partition(), None, CommitId([2; 8])).await;
            let generation = cleared.unwrap().generation;
            let late = commit_of(&partition(), [3; 8], 1, "late");
            let outcome = stale.commit(&[late]).await.remove(0).unwrap();
            assert_eq!(outcome, Outcome::Stale { generation });
            let loaded = load_one(stale, &partition()).await.unwrap();
            assert!(loaded.entries.is_empty() && loaded.generation == generation);
        }
        let epoch = PartitionId::for_tests("test", "epoch");
        let hour = Some(Duration::from_secs(3600));
        assert_eq!(
            right.raise(&epoch, Raise::Beyond(7), hour).await.unwrap(),
            7
        );
        assert_eq!(other.raise(&epoch, Raise::Begin(1), hour).await.unwrap(), 7);
        assert_eq!(
            other.raise(&epoch, Raise::Beyond(0), hour).await.unwrap(),
            8
        );
    }
}

/// The store may drop a record when nothing of it counts any more, and a tombstone no earlier than a day after the
/// last write, whatever the clock of its writer showed.
#[tokio::test]
async fn the_store_is_told_how_long_a_record_counts() {
    let (cells, clock) = (Cells::default(), manual());
    let store = on(&cells, &clock);
    let keep = || cells.cell(&cells.keys()[0]).expect("one record").keep;
    let about = |time: Duration| keep().is_some_and(|keep| keep >= time && keep < time + DAY / 24);
    let write = async |id: u8, generation, since_write: Option<Duration>| {
        let mut commit = commit_of(&partition(), [id; 8], 1, "value");
        (commit.generation, commit.lifetime) = (generation, Lifetime::default());
        commit.lifetime.since_write = since_write;
        store.commit(&[commit]).await.remove(0).unwrap()
    };
    write(1, 0, None).await;
    assert_eq!(keep(), None, "without an end it is for ever");
    write(2, 0, Some(3 * DAY)).await;
    assert!(about(3 * DAY), "{:?}", keep());
    write(3, 0, Some(Duration::from_secs(1))).await;
    assert!(about(Duration::from_secs(1)), "{:?}", keep());
    store
        .clear(&partition(), None, CommitId([4; 8]))
        .await
        .unwrap();
    assert!(about(TOMBSTONE), "{:?}", keep());
    // The sign-out was by a clock that is a week behind.
    clock.set(clock.now().saturating_add(7 * DAY));
    write(5, 1, Some(Duration::from_secs(1))).await;
    assert!(about(TOMBSTONE), "{:?}", keep());
    let lease = Lease::new(partition(), EntryId::from([1; 16]), [1; 16]);
    store.acquire_lease(&lease, TTL).await.unwrap();
    let key = cells.keys().pop().expect("the longer one");
    assert!(cells.cell(&key).unwrap().keep.unwrap() > TTL);
}

/// A repeated commit, and any that changes nothing, writes nothing.
#[tokio::test]
async fn what_changes_nothing_writes_nothing() {
    let (cells, clock) = (Cells::default(), manual());
    let store = on(&cells, &clock);
    let commit = commit_of(&partition(), [1; 8], 1, "value");
    store
        .commit(std::slice::from_ref(&commit))
        .await
        .remove(0)
        .unwrap();
    let revision = || cells.cell(&cells.keys()[0]).map(|cell| cell.revision);
    let written = revision();
    clock.advance(TTL);
    store.commit(&[commit]).await.remove(0).unwrap();
    let mut stale = commit_of(&partition(), [2; 8], 1, "other");
    stale.life = Some(CommitId([9; 8]));
    let lost = store.commit(&[stale]).await.remove(0).unwrap();
    assert_eq!(lost, Outcome::Lost);
    store.touch(&[partition()]).await.remove(0).unwrap();
    assert_eq!(revision(), written);
    assert_eq!(cells.keys().len(), 1);
    store
        .touch(&[PartitionId::for_tests("test", "absent")])
        .await
        .remove(0)
        .unwrap();
    assert_eq!(cells.keys().len(), 1, "a touch makes no partition");
}

/// The record of the file was written by version 1 of the form, and says the same for ever.
#[tokio::test]
async fn a_stored_partition_is_readable_for_ever() {
    let (cells, clock) = (
        Cells::default(),
        Clock::manual(Timestamp::from_millis(2_000_000)),
    );
    let store = on(&cells, &clock);
    let id = partition();
    let golden = include_bytes!("../golden/partition.v1.bin");
    store.clear(&id, None, CommitId([1; 8])).await.unwrap();
    let mut commit = commit_of(&id, [2; 8], 7, "first");
    commit.generation = 1;
    commit.lifetime.sliding = Some(TTL);
    commit.lifetime.since_creation = Some(DAY);
    let second = commit_of(&id, [3; 8], 8, "second").changes.remove(0);
    commit.changes.push(second);
    store.commit(&[commit]).await.remove(0).unwrap();
    let key = cells.keys().remove(0);
    let written = cells.cell(&key).unwrap().bytes;
    assert_eq!(written, golden[..], "a new form needs another number");
    for cut in [0, 1, 2, 3, golden.len() / 2, golden.len() - 1] {
        cells.set(&key, &golden[..cut]);
        let loaded = load_one(&store, &id).await.unwrap();
        assert_eq!((loaded.damaged, loaded.generation), (1, 0));
    }
    cells.set(&key, &golden[..]);
    let loaded = load_one(&store, &id).await.unwrap();
    assert_eq!((loaded.generation, loaded.version), (1, 2));
    assert_eq!(loaded.entries.len(), 2);
    assert_eq!(loaded.entries[0].value, "first");
    assert_eq!(loaded.life, Some(CommitId([1; 8])));
    assert!(REMEMBERED_COMMITS >= 2 && loaded.commit == Some(CommitId([2; 8])));
    assert_eq!(loaded.remaining.idle, Some(TTL));
    assert_eq!(loaded.cleared_for, Some(Duration::ZERO));
}
