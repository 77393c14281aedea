//! Instances that share a database: what the crate promises, once through on each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::assert_stored;
use common::eventually;
use common::playground::{PLAYGROUNDS, Playground};
use common::provider::{CLIENT_ID, CLIENT_SECRET, Provider};
use common::support::{access, cache, drained, hears, session, token};
use futures_util::future::join_all;
use tower_token_cache::{
    Durability, Lookup, Prior, ProviderError, Timestamp, Token, TokenCache, TokenSet,
};

use super::server::{PATIENCE, Server, on_both};

on_both! {
    a_refresh_happens_once_and_a_sign_out_is_final
    what_one_changes_the_others_see
    a_value_is_taken_once
    a_fleet_redeems_once
    a_session_outlives_a_crash_of_the_database
}

async fn caches<S: Server>(server: &S) -> [TokenCache; 2] {
    let (store, prefix) = server.store(PATIENCE).await;
    let other = S::build(&server.url(), &prefix, PATIENCE).unwrap();
    [cache(store), cache(other)]
}

async fn a_refresh_happens_once_and_a_sign_out_is_final<S: Server>() {
    let server = S::shared();
    let caches = caches(&*server).await;
    let calls = Arc::new(AtomicU64::new(0));
    for number in 0..20 {
        let [one, other] = [0, 1].map(|at| caches[at].tokens(session(&format!("s{number}"))));
        let old = Token::new("old").with_expires_at(Timestamp::from_millis(1));
        let old = TokenSet::from(old).with_refresh_token("r0");
        one.insert("graph", old).await.unwrap();
        assert_stored(one.commit().await.unwrap());
        let redeem = || {
            let calls = calls.clone();
            async move |_: Prior| {
                calls.fetch_add(1, Ordering::SeqCst);
                Ok::<_, ProviderError>(TokenSet::from(token("new")))
            }
        };
        let (a, b) = tokio::join!(
            one.get_or_acquire("graph", redeem()),
            other.get_or_acquire("graph", redeem())
        );
        for token in [a.unwrap(), b.unwrap()] {
            assert_eq!(token.access_token(), "new");
        }
        assert_eq!(calls.load(Ordering::SeqCst), number + 1);
        assert_stored(other.sign_out().await.unwrap());
        eventually("it is over", async || {
            let again = caches[0].tokens(session(&format!("s{number}")));
            matches!(again.get("graph").await, Ok(Lookup::Absent))
        })
        .await;
    }
}

async fn what_one_changes_the_others_see<S: Server>() {
    let server = S::shared();
    let caches = caches(&*server).await;
    for cache in &caches {
        hears(cache).await;
    }
    for value in 0..20 {
        let value = format!("v{value}");
        let tokens = caches[0].tokens(session("s"));
        tokens.insert("graph", token(&value)).await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
        eventually("the other sees it", async || {
            access(&caches[1].tokens(session("s")), "graph")
                .await
                .as_deref()
                == Some(&value)
        })
        .await;
    }
}

async fn a_value_is_taken_once<S: Server>() {
    let server = S::shared();
    let caches = caches(&*server).await;
    for number in 0..20 {
        let id = format!("s{number}");
        let tokens = caches[0].tokens(session(&id));
        tokens
            .put("state", &number, Duration::from_secs(60))
            .await
            .unwrap();
        assert_stored(tokens.commit().await.unwrap());
        let takes = (0..20).map(|at| {
            let tokens = caches[at % 2].tokens(session(&id));
            async move { tokens.take::<i32>("state").await }
        });
        let taken = join_all(takes).await;
        let taken = taken.into_iter().filter_map(|taken| taken.unwrap().hit());
        assert_eq!(taken.collect::<Vec<_>>(), [number]);
    }
}

/// Four processes of both frameworks.
async fn a_fleet_redeems_once<S: Server>() {
    let server = S::start();
    let provider = Provider::start().await;
    let start = |number: usize| {
        let (store, issuer) = (server.url(), provider.issuer(&number.to_string()));
        let options = [
            ["--store", &store],
            ["--issuer", &issuer],
            ["--client-id", CLIENT_ID],
            ["--client-secret", CLIENT_SECRET],
        ];
        let example = PLAYGROUNDS[number % PLAYGROUNDS.len()];
        Arc::new(Playground::start(example, options.as_flattened()))
    };
    let fleet: Vec<_> = (0..4).map(start).collect();
    for user in 0..8 {
        let user = format!("user {user}");
        let refresh_token = provider.sign_in(&user);
        fleet[0].sign_in(&user, &refresh_token).await;
        let all = (0..40).map(|at| {
            let (process, user) = (fleet[at % 4].clone(), user.clone());
            async move { process.try_acquire(&user, "/acquire/graph").await }
        });
        for answer in join_all(all).await {
            let answer = answer.expect("an answer");
            assert_eq!(answer.status, 200, "{:?}", answer.body);
            let token = answer.body["access_token"].as_str().unwrap();
            assert!(provider.is_newest(&user, token), "{token}");
        }
        assert_eq!((provider.redemptions(&user), provider.reuses()), (1, 0));
    }
}

async fn a_session_outlives_a_crash_of_the_database<S: Server>() {
    let mut server = S::start();
    let (store, _) = server.store(Duration::from_secs(1)).await;
    let cache = cache(store);
    hears(&cache).await;
    let tokens = cache.tokens(session("s"));
    tokens.insert("graph", token("before")).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    // What was announced when the database crashes may be a sign-out: it is looked into first.
    eventually("the change is told", async || cache.stats().feed_hints > 0).await;
    assert!(tokens.reload().await.unwrap());
    server.kill();
    // At once, or when a comparison that is under way has failed.
    eventually("memory answers", async || {
        let tokens = cache.tokens(session("s"));
        access(&tokens, "graph").await.as_deref() == Some("before")
    })
    .await;
    // What changes waits.
    let tokens = cache.tokens(session("s"));
    tokens.insert("mail", token("meanwhile")).await.unwrap();
    assert_ne!(tokens.commit().await.unwrap(), Durability::Stored);
    server.restart();
    drained(&cache).await;
    hears(&cache).await;
    let tokens = cache.tokens(session("s"));
    assert!(tokens.reload().await.unwrap());
    assert_eq!(access(&tokens, "mail").await.as_deref(), Some("meanwhile"));
}
