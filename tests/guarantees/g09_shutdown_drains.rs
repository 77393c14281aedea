use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::sync::Notify;
use tower_token_cache::{Durability, Error, Tokens};

use common::support::*;

#[tokio::test]
async fn everything_that_waits_is_flushed_and_counted() {
    let server = RedisServer::start();
    let cache = redis_cache(&server).await;
    server.hang();
    for number in 0..300 {
        let tokens = cache.tokens(session(&format!("{number}")));
        tokens.set_failure_policy(tower_token_cache::FailurePolicy::Degrade);
        tokens.insert("graph", token("t")).await.unwrap();
    }
    server.wake();
    let before = cache.stats();
    let report = cache.shutdown(Duration::from_secs(10)).await;
    assert_eq!(report.abandoned, 0);
    assert!(report.flushed >= 300 - before.flushed_changes.min(300));
    assert_eq!(cache.stats().flushed_changes, 300);
    let refused = cache
        .tokens(session("late"))
        .insert("graph", token("t"))
        .await;
    assert!(matches!(refused, Err(Error::ShutDown)));
    for number in 0..300 {
        let store = redis_store(&server).await;
        if number % 50 == 0 {
            assert!(stored(store, &format!("{number}"), "graph").await.is_some());
        }
    }
}

#[tokio::test]
async fn what_l2_does_not_take_within_the_deadline_is_reported() {
    let store = TestStore::default();
    let cache = cache(store.clone());
    store.set_down(true);
    for number in 0..7 {
        let tokens = cache.tokens(session(&format!("{number}")));
        tokens.insert("graph", token("t")).await.unwrap();
    }
    let report = cache.shutdown(Duration::from_millis(300)).await;
    assert_eq!((report.flushed, report.abandoned), (0, 7));
    assert_eq!(cache.stats().abandoned_changes, 7);
}

#[tokio::test(start_paused = true)]
async fn sign_outs_that_l2_has_not_heard_of_are_counted_and_reported() {
    let store = seeded().await;
    let cache = cache(store.clone());
    store.set_down(true);
    for id in ["s", "other", "s"] {
        let answer = cache.tokens(session(id)).sign_out().await;
        assert_eq!(answer.unwrap(), Durability::Pending);
    }
    assert_eq!(cache.stats().pending_sign_outs, 2, "one each");
    let report = cache.shutdown(Duration::from_millis(300)).await;
    let sign_outs = (report.sign_outs_flushed, report.sign_outs_abandoned);
    assert_eq!(sign_outs, (0, 2));
    assert_eq!(cache.stats().abandoned_sign_outs, 2);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_tells_l2_of_sign_outs_that_wait() {
    let store = seeded().await;
    let cache = cache(store.clone());
    store.set_down(true);
    let answer = cache.tokens(session("s")).sign_out().await;
    assert_eq!(answer.unwrap(), Durability::Pending);
    store.set_down(false);
    let report = cache.shutdown(Duration::from_secs(10)).await;
    let sign_outs = (report.sign_outs_flushed, report.sign_outs_abandoned);
    assert_eq!(sign_outs, (1, 0));
    assert_eq!(cache.stats().pending_sign_outs, 0);
    assert_eq!(stored(store, "s", "graph").await, None);
}

/// Signing everybody out ends what waits to be told of one.
#[tokio::test(start_paused = true)]
async fn a_sign_out_that_another_one_makes_needless_waits_no_more() {
    let store = seeded().await;
    let (one, other) = (cache(store.clone()), cache(store.clone()));
    let tokens = one.tokens(session("s"));
    assert_eq!(access(&tokens, "graph").await.as_deref(), Some("t"));
    store.set_down(true);
    assert_eq!(tokens.sign_out().await.unwrap(), Durability::Pending);
    store.set_down(false);
    other.sign_out_all().await.unwrap();
    eventually("it is not waited for", async || {
        one.stats().pending_sign_outs == 0
    })
    .await;
}

/// A server stops waiting for its slowest requests at some time, but their tasks live on.
#[tokio::test]
async fn changes_of_requests_that_are_still_running_are_flushed() {
    let store = TestStore::default();
    let cache = cache(store.clone());
    let changed = Arc::new(Notify::new());
    let gate = changed.clone();
    let slow = async move |tokens: Tokens| {
        tokens.insert("graph", token("t")).await.unwrap();
        gate.notify_one();
        std::future::pending::<()>().await;
    };
    let app = app(&cache, Router::new().route("/slow", get(slow)));
    let running = tokio::spawn(async move { send(&app, "s", "/slow").await });
    changed.notified().await;
    let report = cache.shutdown(Duration::from_secs(10)).await;
    assert_eq!((report.flushed, report.abandoned), (1, 0));
    assert_eq!(stored(store, "s", "graph").await.as_deref(), Some("t"));
    assert!(!running.is_finished());
}

#[tokio::test]
async fn dropping_the_last_handle_still_writes_what_waits() {
    let store = TestStore::default();
    cache(store.clone())
        .tokens(session("s"))
        .insert("graph", token("t"))
        .await
        .unwrap();
    eventually("stored", async || store.commits() == 1).await;
    assert_eq!(stored(store, "s", "graph").await.as_deref(), Some("t"));
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_is_dropped_leaves_no_task() {
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = tasks();
    for shuts_down in [true, false] {
        let store = TestStore::telling();
        let cache = cache(store.clone());
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        // Dropped while the feed is lost.
        store.cut();
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        if shuts_down {
            cache.shutdown(std::time::Duration::from_secs(1)).await;
        }
        drop(cache);
        store.mend();
    }
    // L1 is swept each minute.
    tokio::time::sleep(std::time::Duration::from_secs(61)).await;
    assert_eq!(tasks(), before);
}
