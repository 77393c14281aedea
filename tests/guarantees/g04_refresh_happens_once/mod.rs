//! One redemption per refresh token, on all instances; the rest wait and get its answer. The same
//! with processes that are killed and paused is in `tests/faults/fleet`.

mod busy;
mod failures;
mod landing;
mod need;
mod side_by_side;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tower_token_cache::{
    AcquireErrorKind, Acquisitions, CacheLevel, Clock, Durability, Error, FailurePolicy, Lookup,
    MemoryStore, Prior, ProviderError, RefreshReason, Timestamp, Token, TokenCache, TokenSet,
    TokenSource, Tokens,
};

use common::issuer::{Issuer, set};
use common::support::*;

/// A store in which session `s` has an expired token and the refresh token `r0`.
async fn expired() -> TestStore {
    let store = TestStore::default();
    keep_expired(&cache(store.clone()).tokens(session("s"))).await;
    store
}

async fn keep_expired(tokens: &Tokens) {
    let old = Token::new("a0").with_expires_at(Timestamp::from_millis(1));
    let set = TokenSet::from(old).with_refresh_token("r0");
    tokens.insert("graph", set).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
}

async fn acquire(tokens: &Tokens, issuer: &Issuer) -> Result<String, Error> {
    let issuer = issuer.clone();
    let token = tokens
        .get_or_acquire("graph", |prior| issuer.refresh(prior))
        .await?;
    Ok(token.access_token().to_owned())
}

/// A request whose call to the provider stands still.
async fn held(tokens: &Tokens, issuer: &Issuer) -> JoinHandle<Result<String, Error>> {
    issuer.hold();
    let request = tokio::spawn({
        let (tokens, issuer) = (tokens.clone(), issuer.clone());
        async move { acquire(&tokens, &issuer).await }
    });
    issuer.arrival().await;
    request
}

fn kind_of<T: fmt::Debug>(outcome: Result<T, Error>) -> AcquireErrorKind {
    match outcome {
        Err(Error::Acquire(error)) => error.kind(),
        other => panic!("not a failed acquisition: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_instances_with_250_requests_each_make_one_call() {
    let (store, issuer) = (expired().await, Issuer::new());
    let mut requests = JoinSet::new();
    for _ in 0..4 {
        let cache = cache(store.clone());
        for _ in 0..250 {
            let (tokens, issuer) = (cache.tokens(session("s")), issuer.clone());
            requests.spawn(async move { acquire(&tokens, &issuer).await.unwrap() });
        }
    }
    let answers = requests.join_all().await;
    assert!(answers.iter().all(|answer| answer == "a1"));
    assert_eq!((issuer.calls(), issuer.reuses()), (1, 0));
    assert_eq!(stored(store, "s", "graph").await.as_deref(), Some("a1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_on_redis() {
    let server = RedisServer::start();
    let issuer = Issuer::new();
    keep_expired(&redis_cache(&server).await.tokens(session("s"))).await;
    let mut requests = JoinSet::new();
    for _ in 0..3 {
        let cache = redis_cache(&server).await;
        for _ in 0..50 {
            let (tokens, issuer) = (cache.tokens(session("s")), issuer.clone());
            requests.spawn(async move { acquire(&tokens, &issuer).await.unwrap() });
        }
    }
    let answers = requests.join_all().await;
    assert!(answers.iter().all(|answer| answer == "a1"));
    assert_eq!((issuer.calls(), issuer.reuses()), (1, 0));
}

#[tokio::test]
async fn two_tokens_that_share_a_refresh_token_are_acquired_one_after_the_other() {
    let (store, issuer) = (expired().await, Issuer::new());
    let mut requests = JoinSet::new();
    for cache in [cache(store.clone()), cache(store)] {
        for name in ["graph", "mail", "files"] {
            let (tokens, issuer) = (cache.tokens(session("s")), issuer.clone());
            requests.spawn(async move {
                let call = |prior| issuer.refresh(prior);
                tokens.get_or_acquire(name, call).await.unwrap();
            });
        }
    }
    requests.join_all().await;
    assert_eq!((issuer.calls(), issuer.reuses()), (3, 0));
}

#[tokio::test]
async fn tokens_without_a_refresh_token_do_not_wait_for_each_other() {
    let cache = cache(TestStore::default());
    let both = Arc::new(tokio::sync::Barrier::new(2));
    let mut requests = JoinSet::new();
    for name in ["one", "two"] {
        let (tokens, both) = (cache.tokens(session("s")), both.clone());
        requests.spawn(async move {
            let call = move |_: Prior| async move {
                both.wait().await;
                Ok::<_, ProviderError>(TokenSet::from(token(name)))
            };
            tokens.get_or_acquire(name, call).await.unwrap();
        });
    }
    requests.join_all().await;
}

#[tokio::test]
async fn the_call_is_told_what_is_known() {
    let store = TestStore::default();
    let clock = Clock::manual(Timestamp::now());
    let cache = builder(store).clock(clock.clone()).build().unwrap();
    let tokens = cache.tokens(session("s"));
    let soon = clock.now().saturating_add(Duration::from_secs(60));
    let old = Token::new("old").with_expires_at(soon);
    let old = TokenSet::from(old)
        .with_refresh_token("r")
        .with_id_token("i");
    tokens.insert("graph", old).await.unwrap();
    clock.advance(Duration::from_secs(60));
    let call = |prior: Prior| async move {
        assert_eq!(prior.key().as_ref(), "graph");
        assert_eq!(prior.reason(), RefreshReason::Expired);
        assert_eq!(prior.token().unwrap().access_token(), "old");
        assert_eq!(prior.refresh_token().unwrap().expose(), "r");
        assert_eq!(prior.id_token().unwrap().expose(), "i");
        assert!(prior.is_known() && prior.claims().is_none());
        Ok::<_, ProviderError>(TokenSet::from(Token::new("new")))
    };
    let acquired = tokens.acquire("graph").unwrap().with(call).await.unwrap();
    assert_eq!(acquired.token.access_token(), "new");
    let metadata = acquired.metadata;
    assert_eq!(metadata.token_source, TokenSource::IdentityProvider);
    assert_eq!(metadata.cache_level, CacheLevel::None);
    assert_eq!(metadata.refresh_reason, RefreshReason::Expired);
    assert_eq!(metadata.durability, Some(Durability::Stored));
    assert!(metadata.exclusive);
    assert!(metadata.duration_in_http <= metadata.duration_total);
    // An answer without a refresh or id token keeps the old ones.
    assert_eq!(
        tokens
            .refresh_token()
            .await
            .unwrap()
            .hit()
            .unwrap()
            .expose(),
        "r"
    );
    assert_eq!(
        tokens.id_token().await.unwrap().hit().unwrap().expose(),
        "i"
    );
    let again = tokens.acquire("graph").unwrap().with(never).await.unwrap();
    assert_eq!(again.metadata.token_source, TokenSource::Cache);
    assert_eq!(again.metadata.cache_level, CacheLevel::L1);
    assert_eq!(again.metadata.refresh_reason, RefreshReason::NotApplicable);
}

async fn never(_: Prior) -> Result<TokenSet, ProviderError> {
    panic!("the provider is not to be asked")
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_stop_the_call() {
    let (store, issuer) = (expired().await, Issuer::new());
    let cache = cache(store.clone());
    let tokens = cache.tokens(session("s"));
    let request = held(&tokens, &issuer).await;
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    issuer.release();
    assert_eq!(acquire(&tokens, &issuer).await.unwrap(), "a1");
    assert_eq!((issuer.calls(), issuer.reuses()), (1, 0));
    assert_eq!(stored(store, "s", "graph").await.as_deref(), Some("a1"));
}

#[tokio::test]
async fn shutdown_waits_for_a_call_under_way() {
    let (store, issuer) = (expired().await, Issuer::new());
    let cache = cache(store.clone());
    let tokens = cache.tokens(session("s"));
    let request = held(&tokens, &issuer).await;
    let shutdown = tokio::spawn({
        let cache = cache.clone();
        async move { cache.shutdown(Duration::from_secs(10)).await }
    });
    eventually("no more changes are taken", async || {
        matches!(
            tokens.insert("other", token("t")).await,
            Err(Error::ShutDown)
        )
    })
    .await;
    assert!(!shutdown.is_finished());
    issuer.release();
    assert_eq!(shutdown.await.unwrap().abandoned, 0);
    assert_eq!(request.await.unwrap().unwrap(), "a1");
    assert_eq!(stored(store, "s", "graph").await.as_deref(), Some("a1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_to_the_provider_are_bounded() {
    let cache: TokenCache = builder(MemoryStore::new())
        .acquisitions(Acquisitions::new().max(5))
        .build()
        .unwrap();
    let (now, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut requests = JoinSet::new();
    for number in 0..2000 {
        let tokens = cache.tokens(session(&number.to_string()));
        let (now, most) = (now.clone(), most.clone());
        requests.spawn(async move {
            let call = |_: Prior| async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                now.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, ProviderError>(TokenSet::from(token("t")))
            };
            tokens.get_or_acquire("graph", call).await.unwrap();
        });
    }
    requests.join_all().await;
    assert_eq!(most.load(Ordering::SeqCst), 5);
}

/// A request from before a sign-out elsewhere finds the refresh token of the sign-in after it, and leaves it
/// alone.
#[tokio::test]
async fn a_request_redeems_nothing_of_the_session_after_its_own() {
    let (store, issuer) = (expired().await, Issuer::new());
    let here = cache(store.clone());
    let old = here.tokens(session("s"));
    assert_eq!(old.get("graph").await.unwrap(), Lookup::Absent);
    let there = cache(store.clone()).tokens(session("s"));
    assert_eq!(there.sign_out().await.unwrap(), Durability::Stored);
    keep_expired(&there).await;
    let first = acquire(&old, &issuer).await;
    assert!(matches!(first, Err(Error::SignedOut)), "{first:?}");
    assert_eq!(issuer.calls(), 0);
    let tokens = here.tokens(session("s"));
    assert_eq!(acquire(&tokens, &issuer).await.unwrap(), "a1");
    assert_eq!((issuer.calls(), issuer.reuses()), (1, 0));
    assert_eq!(stored(store, "s", "graph").await.as_deref(), Some("a1"));
}

/// A call for a session that was signed out hangs. The next session has its own, and ends the other's as
/// little as it waits for it.
#[tokio::test(start_paused = true)]
async fn the_next_session_does_not_wait_for_a_call_of_the_last() {
    for (out_here, in_here) in [(true, true), (true, false), (false, true), (false, false)] {
        let (store, [last, next]) = (expired().await, [Issuer::new(), Issuer::new()]);
        let (here, there) = (cache(store.clone()), cache(store.clone()));
        let hanging = held(&here.tokens(session("s")), &last).await;
        let on = |here_it_is: bool| match here_it_is {
            true => here.tokens(session("s")),
            false => there.tokens(session("s")),
        };
        assert_stored(on(out_here).sign_out().await.unwrap());
        keep_expired(&on(in_here)).await;
        let begun = tokio::time::Instant::now();
        assert_eq!(acquire(&on(in_here), &next).await.unwrap(), "a1");
        assert!(begun.elapsed() < Duration::from_secs(1));
        assert!(!hanging.is_finished());
        last.release();
        assert!(matches!(hanging.await.unwrap(), Err(Error::SignedOut)));
        assert_eq!((next.calls(), last.reuses()), (1, 0));
        let kept = cache(store).tokens(session("s"));
        let kept = kept.refresh_token().await.unwrap().hit().unwrap();
        assert_eq!(kept.expose(), "r1", "{out_here} {in_here}");
    }
}
