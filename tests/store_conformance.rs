//! Our stores against the contract.
#![allow(clippy::unwrap_used)]

mod common;

use tower_token_cache::store::conformance::{self, Harness};
use tower_token_cache::{Clock, MemoryStore, SqliteStore, Timestamp};

#[tokio::test]
async fn memory_store_conforms() {
    let clock = Clock::manual(Timestamp::now());
    let store = MemoryStore::new().with_clock(clock.clone());
    conformance::all(&Harness::manual(store, clock)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_store_conforms_on_several_threads() {
    let clock = Clock::manual(Timestamp::now());
    let store = MemoryStore::new().with_clock(clock.clone());
    conformance::concurrent_commits_all_survive(&Harness::manual(store, clock)).await;
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
