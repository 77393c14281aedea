use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query};
use axum::routing::get;
use futures_util::future::join_all;
use tower_token_cache::{MemoryStore, TokenCache, Tokens};

use common::support::*;

#[derive(serde::Deserialize)]
struct Delay {
    ms: u64,
}

/// Reads the partition, thinks, and adds an entry: what loses updates where whole records are
/// saved.
fn adding(cache: &TokenCache) -> Router {
    let add = async |tokens: Tokens, Path(name): Path<String>, Query(delay): Query<Delay>| {
        let _ = tokens.get("other").await.unwrap();
        if delay.ms > 0 {
            tokio::time::sleep(Duration::from_millis(delay.ms)).await;
        }
        tokens.insert(&name, token(&name)).await.unwrap();
    };
    app(cache, Router::new().route("/add/{name}", get(add)))
}

/// 500 pairs of requests that each add an entry of their own to one partition; how many entries
/// an instance that starts afterwards misses.
async fn lost(server: &RedisServer, apps: [&Router; 2], caches: &[TokenCache], ms: u64) -> usize {
    let trial = async |trial: usize| {
        let sid = format!("{ms}-{trial}");
        let (a, b) = (format!("/add/a?ms={ms}"), format!("/add/b?ms={ms}"));
        let (a, b) = tokio::join!(fetch(apps[0], &sid, &a), fetch(apps[1], &sid, &b));
        assert!(a.0.is_success() && b.0.is_success());
    };
    for chunk in (0..500).collect::<Vec<_>>().chunks(25) {
        join_all(chunk.iter().map(|number| trial(*number))).await;
    }
    for cache in caches {
        drained(cache).await;
    }
    let fresh = redis_cache(server).await;
    let mut missing = 0;
    for trial in 0..500 {
        let tokens = fresh.tokens(session(&format!("{ms}-{trial}")));
        eventually("L2 can be asked", async || tokens.reload().await.unwrap()).await;
        for name in ["a", "b"] {
            let found = access(&tokens, name).await;
            missing += usize::from(found.as_deref() != Some(name));
        }
    }
    missing
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_requests_on_one_instance_and_on_two_lose_nothing() {
    let server = RedisServer::start();
    for instances in [1, 2] {
        server.query::<()>("FLUSHALL");
        let mut caches = Vec::new();
        for _ in 0..instances {
            caches.push(redis_cache(&server).await);
        }
        let apps: Vec<Router> = caches.iter().map(adding).collect();
        let apps = [&apps[0], apps.last().unwrap()];
        for ms in [0, 1, 5, 20] {
            let lost = lost(&server, apps, &caches, ms).await;
            assert_eq!(lost, 0, "{instances} instances, {ms} ms");
        }
    }
}

#[tokio::test]
async fn only_changed_entries_are_sent() {
    let server = RedisServer::start();
    let tokens = redis_cache(&server).await.tokens(session("s"));
    tokens
        .insert("large", token(&"x".repeat(100_000)))
        .await
        .unwrap();
    assert_stored(tokens.commit().await.unwrap());
    server.query::<()>("CONFIG RESETSTAT");
    tokens.insert("small", token("y")).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    let stats: String = server.query("INFO stats");
    let received: u64 = stats
        .lines()
        .find_map(|line| line.strip_prefix("total_net_input_bytes:")?.parse().ok())
        .unwrap();
    assert!(
        received < 10_000,
        "{received} bytes were sent for one small entry"
    );
}

#[tokio::test]
async fn the_later_commit_wins_whatever_the_clocks_say() {
    use tower_token_cache::{Clock, Timestamp, Token};
    let server = RedisServer::start();
    let at = |hours: u64| {
        Clock::manual(Timestamp::now().saturating_add(Duration::from_secs(hours * 3600)))
    };
    let fast = builder(redis_store(&server).await)
        .clock(at(5))
        .build()
        .unwrap();
    let slow = builder(redis_store(&server).await)
        .clock(at(0))
        .build()
        .unwrap();
    let (fast, slow) = (fast.tokens(session("s")), slow.tokens(session("s")));
    fast.insert("graph", Token::new("first")).await.unwrap();
    assert_stored(fast.commit().await.unwrap());
    slow.insert("graph", Token::new("second")).await.unwrap();
    assert_stored(slow.commit().await.unwrap());
    let store = redis_store(&server).await;
    assert_eq!(stored(store, "s", "graph").await.as_deref(), Some("second"));
}

#[tokio::test]
async fn a_commit_that_finds_others_commits_reads_them_before_it_answers() {
    let store = TestStore::default();
    let (a, b) = (cache(store.clone()), cache(store.clone()));
    let (a, b) = (a.tokens(session("s")), b.tokens(session("s")));
    a.insert("one", token("1")).await.unwrap();
    assert_stored(a.commit().await.unwrap());
    b.insert("two", token("2")).await.unwrap();
    assert_stored(b.commit().await.unwrap());
    a.insert("three", token("3")).await.unwrap();
    assert_stored(a.commit().await.unwrap());
    assert_eq!(access(&a, "two").await.as_deref(), Some("2"));
    assert_eq!(a.keys().await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_does_not_undo_a_later_one() {
    let store = TestStore::default();
    let (a, b) = (cache(store.clone()), cache(store.clone()));
    let on_a = a.tokens(session("s"));
    on_a.get("graph").await.unwrap().hit();
    store.set_losing_answers(true);
    on_a.insert("graph", token("from a")).await.unwrap();
    eventually("a's commit is applied", async || store.commits() == 1).await;
    store.set_losing_answers(false);
    let on_b = b.tokens(session("s"));
    on_b.insert("graph", token("from b, later")).await.unwrap();
    assert_stored(on_b.commit().await.unwrap());
    drained(&a).await;
    let found = stored(store.clone(), "s", "graph").await;
    assert_eq!(found.as_deref(), Some("from b, later"));
    let on_a = access(&a.tokens(session("s")), "graph").await;
    assert_eq!(on_a.as_deref(), Some("from b, later"), "a has noticed");
}

#[tokio::test]
async fn a_commit_that_is_repeated_does_not_hide_what_came_in_between() {
    // Each has a way to L2 of its own.
    let server = MemoryStore::new();
    let store = TestStore::new(server.clone());
    let (a, b) = (cache(store.clone()), cache(TestStore::new(server)));
    let on_a = a.tokens(session("s"));
    on_a.get("graph").await.unwrap().hit();
    store.set_losing_answers(true);
    on_a.insert("graph", token("from a")).await.unwrap();
    eventually("a's commit is applied", async || store.commits() == 1).await;
    // It knows the version of its own commit, and not that of the next.
    assert!(on_a.reload().await.unwrap());
    let on_b = b.tokens(session("s"));
    on_b.insert("mail", token("from b")).await.unwrap();
    assert_stored(on_b.commit().await.unwrap());
    store.set_losing_answers(false);
    drained(&a).await;
    assert_eq!(access(&on_a, "mail").await.as_deref(), Some("from b"));
}
