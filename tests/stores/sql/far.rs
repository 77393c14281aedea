//! A database that is far away, with the timeouts that caches have by default.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::feed::Listener;
use common::issuer::Issuer;
use common::postgres::PostgresServer;
use common::proxy::Proxy;
use common::store::load_one;
use common::support::{access, builder, cache, session, token};
use common::{assert_stored, eventually};
use futures_util::future::join_all;
use tower_token_cache::{
    Durability, PostgresStore, Secret, StoreError, StoreErrorKind, Timeouts, TokenCache, TokenStore,
};

use crate::promises::once::{acquire, keep_expired};

use super::server::{PATIENCE, Server, on_both, partition, reasons};

on_both! {
    a_database_that_is_far_away_is_used
    a_burst_of_cold_sessions_is_refreshed_once
}

/// More than there are connections, many times.
const SESSIONS: usize = 300;

/// Each round-trip takes a sixth of an attempt, and a new connection several.
async fn a_database_that_is_far_away_is_used<S: Server>() {
    let server = S::shared();
    let (_, prefix) = server.store(PATIENCE).await;
    let (proxy, url) = Proxy::before(&server.url()).await;
    proxy.delay(40);
    let far = || S::build(&url, &prefix, Duration::from_secs(1)).unwrap();
    is_used(far(), far()).await;
}

/// On two instances that have none of the sessions in memory.
async fn a_burst_of_cold_sessions_is_refreshed_once<S: Server>() {
    let server = S::shared();
    let (store, prefix) = server.store(PATIENCE).await;
    let near = patient(store);
    let issuers: Vec<_> = (0..SESSIONS).map(|_| Issuer::new()).collect();
    let sid = |at: usize| session(&format!("s{at}"));
    let kept = (0..SESSIONS).map(async |at| keep_expired(&near.tokens(sid(at))).await);
    join_all(kept).await;
    let (proxy, url) = Proxy::before(&server.url()).await;
    // Only a stall of the machine itself takes longer.
    let timeouts = Timeouts::new().attempt(Duration::from_secs(1));
    let far = || {
        let store = S::build(&url, &prefix, PATIENCE).unwrap();
        builder(store).timeouts(timeouts.clone()).build().unwrap()
    };
    let fleet = [far(), far()];
    proxy.delay(20);
    let requests = (0..2 * SESSIONS).map(async |at| {
        let (cache, at) = (&fleet[at % 2], at / 2);
        acquire(&cache.tokens(sid(at)), &issuers[at]).await.unwrap()
    });
    for token in join_all(requests).await {
        assert_eq!(token, "a1");
    }
    for issuer in &issuers {
        assert_eq!((issuer.calls(), issuer.reuses()), (1, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_takes_longer_than_an_attempt_is_used() {
    let server = PostgresServer::shared();
    let (_, prefix) = Server::store(&*server, PATIENCE).await;
    let slow = || {
        let source = async || {
            tokio::time::sleep(Duration::from_millis(400)).await;
            Ok::<_, StoreError>(Secret::from("hush".to_string()))
        };
        let builder = PostgresStore::builder(server.url()).table_prefix(&prefix);
        builder.credentials(source).build().unwrap()
    };
    is_used(slow(), slow()).await;
}

/// Neither an operation nor the feed ends with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_source_that_panics_is_asked_again() {
    let server = PostgresServer::start();
    let panics = Arc::<AtomicBool>::default();
    let whether = panics.clone();
    let source = move || {
        assert!(!whether.load(Ordering::Relaxed), "the file is not there");
        async { Ok::<_, StoreError>(Secret::from("hush".to_string())) }
    };
    let builder = PostgresStore::builder(server.url()).credentials(source);
    let store = builder.build().unwrap();
    store.migrate().await.unwrap();
    let mut listener = Listener::on(&store, "test").await;
    panics.store(true, Ordering::Relaxed);
    server.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tower-token-cache'",
    );
    listener.until_lost().await;
    let refused = load_one(&store, &partition("a")).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Unreachable);
    assert!(reasons(&refused).contains("panicked"), "{refused:?}");
    listener.proves_nothing(Duration::from_secs(2)).await;
    panics.store(false, Ordering::Relaxed);
    assert!(listener.until_now().await.everything);
    load_one(&store, &partition("a")).await.unwrap();
}

/// Each of them does, and takes longer in all than an attempt may: only a server that answers nobody is late.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_connection_waits_as_long_as_the_server_answers() {
    let server = PostgresServer::shared();
    let (near, prefix) = Server::store(&*server, PATIENCE).await;
    let near = patient(near);
    let (proxy, url) = Proxy::before(&server.url()).await;
    let narrow = PostgresStore::builder(url)
        .table_prefix(&prefix)
        .connections(1);
    let store = narrow.response_timeout(PATIENCE).build().unwrap();
    let timeouts = Timeouts::new().attempt(Duration::from_millis(500));
    let timeouts = timeouts.operation(PATIENCE);
    let cache = builder(store).timeouts(timeouts).build().unwrap();
    let sid = |number| session(&format!("user {number}"));
    for number in 0..8 {
        let tokens = near.tokens(sid(number));
        tokens.insert("graph", token("t")).await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
    }
    proxy.delay(60);
    let sign_outs = (0..8).map(async |number| cache.tokens(sid(number)).sign_out().await);
    for done in join_all(sign_outs).await {
        assert_stored(done.unwrap());
    }
    assert_eq!(cache.stats().l2_errors, 0);
}

/// Waits, however busy the machine is.
fn patient(store: impl TokenStore) -> TokenCache {
    let timeouts = Timeouts::new().attempt(PATIENCE).operation(PATIENCE);
    builder(store).timeouts(timeouts).build().unwrap()
}

/// By an instance that writes, and one that has nothing in memory and no connection.
async fn is_used(one: impl TokenStore, other: impl TokenStore) {
    let (one, other) = (cache(one), cache(other));
    let tokens = one.tokens(session("s"));
    tokens.insert("graph", token("t")).await.unwrap();
    eventually("it is stored", async || {
        tokens.commit().await.unwrap() == Durability::Stored
    })
    .await;
    eventually("it is read", async || {
        access(&other.tokens(session("s")), "graph")
            .await
            .as_deref()
            == Some("t")
    })
    .await;
    assert_stored(other.tokens(session("s")).sign_out().await.unwrap());
}
