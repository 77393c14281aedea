use std::time::Duration;

use tokio::task::JoinSet;
use tower_token_cache::{
    BreakerState, Lookup, PartitionKey, RedisStore, Timeouts, TokenCache, TokenStore,
};

use common::proxy::Proxy;
use common::support::*;
use common::topologies::Cluster;

const USERS: usize = 1000;
/// For one answer; far more than any needs that waits for nobody else's.
const PATIENCE: Duration = Duration::from_secs(1);

fn user(number: usize) -> PartitionKey {
    session(&format!("user-{number}"))
}

/// Users with a token each, of whom no later instance has anything in memory.
async fn signed_in(store: impl TokenStore) {
    let cache = cache(store);
    for number in 0..USERS {
        let tokens = cache.tokens(user(number));
        tokens.insert("graph", token("t")).await.unwrap();
    }
    drained(&cache).await;
}

async fn far_store(url: String) -> RedisStore {
    let store = RedisStore::builder(url).response_timeout(PATIENCE);
    store.build().unwrap()
}

fn patient(store: impl TokenStore) -> TokenCache {
    let patient = Timeouts::new().attempt(PATIENCE).operation(2 * PATIENCE);
    builder(store).timeouts(patient).build().unwrap()
}

/// How many of these users are served, all of them coming at once.
async fn served_at_once(cache: &TokenCache, users: impl IntoIterator<Item = usize>) -> usize {
    let mut tasks = JoinSet::new();
    for number in users {
        let tokens = cache.tokens(user(number));
        tasks.spawn(async move { tokens.get("graph").await.unwrap() });
    }
    let answers = tasks.join_all().await.into_iter();
    answers.filter(|it| matches!(it, Lookup::Hit(_))).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_cold_users_at_once_are_all_served() {
    let server = RedisServer::start();
    signed_in(redis_store(&server).await).await;
    let (proxy, url) = Proxy::before(&server.url()).await;
    for millis in [1, 5, 20] {
        proxy.delay(millis);
        let cache = patient(far_store(url.clone()).await);
        let before = server.calls("time");
        assert_eq!(served_at_once(&cache, 0..USERS).await, USERS, "{millis} ms");
        let stats = cache.stats();
        assert_eq!(stats.l2_errors, 0, "{millis} ms");
        assert_eq!(stats.l2_state, BreakerState::Closed, "{millis} ms");
        // The time is asked once per round-trip.
        let groups = server.calls("time") - before;
        assert!(groups < 250, "{millis} ms: {groups} round-trips");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_cold_users_of_a_cluster_are_all_served_but_those_of_a_dead_server() {
    let cluster = Cluster::start_with("cluster-replica-no-failover yes\n").await;
    let store = far_store(cluster.url()).await;
    signed_in(store.clone()).await;
    let cache = patient(store.clone());
    assert_eq!(served_at_once(&cache, 0..USERS).await, USERS);
    assert_eq!(cache.stats().l2_state, BreakerState::Closed);

    let dead = &cluster.nodes[0];
    let cold = patient(store);
    let (mut hung, mut healthy) = (Vec::new(), Vec::new());
    for number in 0..60 {
        let id = cold.partition_id(&user(number)).await.unwrap();
        match cluster.slot_of(&format!("{}:{{{}}}", id.namespace(), id.encoded())) < 16384 / 3 {
            true => hung.push(number),
            false => healthy.push(number),
        }
    }
    // Whose prefix is known.
    assert_eq!(served_at_once(&cold, [900]).await, 1);
    dead.hang();
    let (healthy, count) = (healthy.clone(), healthy.len());
    let waiting = {
        let cold = cold.clone();
        tokio::spawn(async move { served_at_once(&cold, hung.into_iter().take(3)).await })
    };
    assert_eq!(served_at_once(&cold, healthy).await, count);
    assert!(!waiting.is_finished(), "they have not waited for these");
    assert_eq!(waiting.await.unwrap(), 0);
    dead.wake();
}

#[tokio::test]
async fn what_is_asked_at_once_goes_out_together() {
    let store = TestStore::default();
    signed_in(store.clone()).await;
    let cold = cache(store.clone());
    assert_eq!(served_at_once(&cold, [0]).await, 1);
    let before = (store.loads(), store.load_groups());
    assert_eq!(served_at_once(&cold, 1..641).await, 640);
    assert_eq!(store.loads() - before.0, 640);
    assert_eq!(store.load_groups() - before.1, 10);
}

#[tokio::test]
async fn a_server_that_hangs_keeps_no_other_ones_users_waiting() {
    let store = TestStore::default();
    signed_in(store.clone()).await;
    let cold = cache(store.clone());
    assert_eq!(served_at_once(&cold, [0]).await, 1);
    let mut theirs = Vec::new();
    for number in 1..=10 {
        theirs.push(cold.partition_id(&user(number)).await.unwrap());
    }
    store.kill_server_of(theirs);
    let hung = {
        let cold = cold.clone();
        tokio::spawn(async move { served_at_once(&cold, 1..=10).await })
    };
    assert_eq!(served_at_once(&cold, 11..=100).await, 90);
    assert!(!hung.is_finished());
    assert_eq!(hung.await.unwrap(), 0);
    // One question, one failure.
    assert_eq!(cold.stats().l2_errors, 1);
    assert_eq!(cold.stats().l2_state, BreakerState::Closed);
}

#[tokio::test]
async fn a_load_that_hangs_holds_up_no_later_one() {
    let store = TestStore::default();
    signed_in(store.clone()).await;
    let cold = cache(store.clone());
    assert_eq!(served_at_once(&cold, [0]).await, 1);
    store.kill_server_of([cold.partition_id(&user(1)).await.unwrap()]);
    let before = store.load_groups();
    let first = {
        let cold = cold.clone();
        tokio::spawn(async move { served_at_once(&cold, [1]).await })
    };
    eventually("it is asked for", async || store.load_groups() > before).await;
    assert_eq!(served_at_once(&cold, 2..100).await, 98);
    assert!(!first.is_finished());
    assert_eq!(first.await.unwrap(), 0);
}

#[tokio::test]
async fn a_load_that_fails_takes_nobody_along() {
    let store = TestStore::default();
    signed_in(store.clone()).await;
    let cold = cache(store.clone());
    assert_eq!(served_at_once(&cold, [0]).await, 1);
    store.refuse_loads_of(cold.partition_id(&user(7)).await.unwrap());
    assert_eq!(served_at_once(&cold, 1..=50).await, 49);
    let stats = cold.stats();
    assert_eq!(stats.l2_errors, 1, "the one that failed");
    assert_eq!(stats.l2_state, BreakerState::Closed);
}

#[test]
fn a_runtime_that_ends_before_it_has_asked_strands_nobody() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().unwrap()
    };
    let (first, second) = (runtime(), runtime());
    let cold = first.block_on(async {
        let store = TestStore::default();
        signed_in(store.clone()).await;
        let cold = cache(store);
        assert_eq!(served_at_once(&cold, [0]).await, 1);
        cold
    });
    first.shutdown_background();
    second.block_on(async {
        for number in 1..3 {
            let tokens = cold.tokens(user(number));
            let answer = tokio::time::timeout(Duration::from_secs(5), tokens.get("graph")).await;
            let _whichever = answer.expect("an answer").unwrap();
        }
    });
}
