//! Our stores against the contract.

use std::sync::Arc;
use std::time::Duration;

use common::store::Least;
use tower_token_cache::store::conformance::{self, Harness};
use tower_token_cache::store::{
    CommitId, EntryId, Lease, LeaseState, Origin, Outcome, PartitionId,
};
use tower_token_cache::{Clock, MemoryStore, SqliteStore, Timestamp, TokenStore};

mod memory_store_conforms {
    use super::*;

    fn harness() -> Harness<MemoryStore> {
        let clock = Clock::manual(Timestamp::now());
        Harness::manual(MemoryStore::new().with_clock(clock.clone()), clock)
    }

    tower_token_cache::conformance_tests!(harness());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_store_conforms_on_several_threads() {
    let clock = Clock::manual(Timestamp::now());
    let store = MemoryStore::new().with_clock(clock.clone());
    let harness = Harness::manual(store, clock);
    conformance::concurrent_commits_all_survive(&harness).await;
    conformance::concurrent_expectations_have_one_winner(&harness).await;
    conformance::concurrent_leases_have_one_owner(&harness).await;
    // Its operations are short: it takes some rounds until two meet.
    for _ in 0..100 {
        let (store, clock) = (MemoryStore::new(), Clock::manual(Timestamp::now()));
        let harness = Harness::manual(store.with_clock(clock.clone()), clock);
        conformance::concurrent_moves_have_one_winner(&harness).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_conforms_with_the_defaults() {
    let harness = || {
        let clock = Clock::manual(Timestamp::now());
        let store = Least(MemoryStore::new().with_clock(clock.clone()));
        Harness::manual(Arc::new(store), clock)
    };
    conformance::all(&harness()).await;
    for _ in 0..100 {
        conformance::concurrent_moves_have_one_winner(&harness()).await;
    }
}

#[test]
fn a_shared_store_hides_nothing_of_what_it_is() {
    let shared = Arc::new(MemoryStore::new());
    assert!(!TokenStore::is_persistent(&shared));
    assert!(TokenStore::feed(&shared, "test").is_some());
}

/// The sign-out of the old partition was made, and its answer was lost.
#[tokio::test]
async fn a_move_in_steps_goes_on_where_it_stopped() {
    let (old, new) = (partition("old"), partition("new"));
    let moves = common::store::commit_of(&new, [2; 8], 1, "moved");
    let begun = common::store::commit_of(&old, [1; 8], 1, "begun");
    for id in [[2; 8], [3; 8]] {
        let store = Least(MemoryStore::new());
        let committed = store.commit(std::slice::from_ref(&begun)).await.remove(0);
        assert!(matches!(
            committed,
            Ok(Outcome::Committed { version: 1, .. })
        ));
        let from = Origin::new(old.clone(), 0, 1);
        store.clear(&old, Some(0), CommitId(id)).await.unwrap();
        let moved = store.relocate(&from, &moves).await.unwrap();
        match id == moves.id.0 {
            true => assert!(matches!(moved, Outcome::Committed { version: 1, .. })),
            false => assert_eq!(moved, Outcome::Conflict, "another sign-out was first"),
        }
    }
}

fn partition(name: &str) -> PartitionId {
    PartitionId::for_tests("test", name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sqlite_store_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::manual(Timestamp::now());
    let store = SqliteStore::open(directory.path().join("tokens.db"))
        .await
        .unwrap();
    let store = store.with_clock(clock.clone());
    conformance::all(&Harness::manual(store, clock)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_store() {
    let server = common::redis::RedisServer::start();
    let store = tower_token_cache::RedisStore::connect(server.url());
    let store = store.await.expect("a valid URL");
    conformance::all(&Harness::real_time(store)).await;
}

#[tokio::test]
async fn leases_in_redis_are_keys_that_expire() {
    let server = common::redis::RedisServer::start();
    let store = tower_token_cache::RedisStore::connect(server.url());
    let store = store.await.expect("a valid URL");
    let lease = Lease::new(partition("a"), EntryId::from([7; 16]), [1; 16]);
    let ttl = Duration::from_secs(60);
    let lives = || -> i64 { server.query(&format!("PTTL {}", server.only_key())) };
    store.acquire_lease(&lease, ttl).await.unwrap();
    let key = server.only_key();
    assert!(key.contains(&format!("{{{}}}:", lease.partition.encoded())));
    assert!((1..=60_000).contains(&lives()), "{}", lives());
    store.renew_lease(&lease, ttl * 2).await.unwrap();
    assert!((60_001..=120_000).contains(&lives()), "{}", lives());
    store.acquire_lease(&lease, Duration::ZERO).await.unwrap();
    store.acquire_lease(&lease, Duration::MAX).await.unwrap();
    assert!(lives() > 1 << 40);

    for foreign in ["SET KEY x", "SET KEY 0123456789abcdef", "LPUSH KEY x"] {
        let _: redis::Value = server.query(&format!("DEL {key}"));
        let _: redis::Value = server.query(&foreign.replace("KEY", &key));
        assert!(!store.renew_lease(&lease, ttl).await.unwrap(), "{foreign}");
        assert!(!store.release_lease(&lease).await.unwrap(), "{foreign}");
        let state = store.acquire_lease(&lease, ttl).await.unwrap();
        assert_eq!(state, LeaseState::Granted, "{foreign}");
        assert!((1..=60_000).contains(&lives()), "{foreign}");
    }
}
