//! `CookieStore` against the store contract. It has three exceptions: a partition is limited in size,
//! what no request uses is forgotten when there is no room, and whether a session is there its cookie says. Moves obey the contract too,
//! although no handle of a session in cookies can ask for one.
//! What is beyond the store, the way to the browser, is in the other tests.

use tower_token_cache::store::PartitionId;
use tower_token_cache::store::conformance::{self, Harness};
use tower_token_cache::{Clock, MemoryStore, Timestamp, TokenStore};

use super::server::builder;
use common::store::{commit_of, load_one};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cookie_store_conforms() {
    let clock = Clock::manual(Timestamp::now());
    let store = builder().clock(clock.clone()).max_size(64 * 1024);
    let store = store.build().unwrap();
    let harness = Harness::manual(store, clock);
    let harness = harness.with_largest_value(32 << 10);
    conformance::all(&harness.without_lives()).await;
}

#[tokio::test]
async fn exception_what_nobody_uses_is_forgotten_when_there_is_no_room() {
    let store = builder().memory(10 * 1024).build().unwrap();
    let id = |n: u64| PartitionId::for_tests("test", &n.to_string());
    for n in 0..100 {
        let commit = commit_of(&id(n), n.to_be_bytes(), 1, vec![7; 300]);
        store.commit(&[commit]).await.remove(0).unwrap();
    }
    let mut kept = 0;
    for n in 0..100 {
        kept += load_one(&store, &id(n)).await.unwrap().version;
    }
    assert!((5..=11).contains(&kept), "{kept} of 100 partitions");
    assert_eq!(load_one(&store, &id(99)).await.unwrap().version, 1);
}

#[tokio::test]
async fn with_a_store_for_sign_outs_the_rest_is_kept_there() {
    let clock = Clock::manual(Timestamp::now());
    let sign_outs = MemoryStore::new().with_clock(clock.clone());
    let store = builder().clock(clock.clone()).sign_outs_in(sign_outs);
    let harness = Harness::manual(store.build().unwrap(), clock);
    let harness = harness.with_largest_value(1 << 20);
    conformance::values_come_back_as_they_were(&harness).await;
    conformance::commits_change_only_what_they_name(&harness).await;
    conformance::versions_rise_by_one(&harness).await;
}
