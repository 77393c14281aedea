//! One redemption per refresh token, on all instances; the rest wait and get its answer. The same
//! with processes that are killed and paused is in `tests/fleet.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tower_token_cache::{
    AcquireErrorKind, CacheLevel, Clock, Durability, Error, FailurePolicy, Lookup, MemoryStore,
    Prior, ProviderError, RefreshReason, Timestamp, Token, TokenCache, TokenSet, TokenSource,
    Tokens,
};

use crate::common::issuer::{Issuer, set};
use crate::common::support::*;

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
    tokens.commit().await.unwrap();
}

async fn acquire(tokens: &Tokens, issuer: &Issuer) -> Result<String, Error> {
    let issuer = issuer.clone();
    let token = tokens
        .get_or_acquire("graph", |prior| issuer.refresh(prior))
        .await?;
    Ok(token.access_token().to_owned())
}

async fn kind_of(outcome: Result<String, Error>) -> AcquireErrorKind {
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
async fn the_answer_is_in_l2_before_anybody_has_it() {
    let (store, issuer) = (expired().await, Issuer::new());
    let tokens = cache(store.clone()).tokens(session("s"));
    issuer.hold();
    let request = tokio::spawn({
        let (tokens, issuer) = (tokens.clone(), issuer.clone());
        async move { acquire(&tokens, &issuer).await }
    });
    issuer.arrival().await;
    let groups = store.groups();
    store.hang();
    issuer.release();
    eventually("the commit is sent", async || store.groups() > groups).await;
    assert!(!request.is_finished());
    assert_eq!(access_in_memory(&tokens).await, None);
    store.wake();
    assert_eq!(request.await.unwrap().unwrap(), "a1");
    assert_eq!(access_in_memory(&tokens).await.as_deref(), Some("a1"));
}

async fn access_in_memory(tokens: &Tokens) -> Option<String> {
    let tokens = tokens.clone();
    let policy = tokens.failure_policy();
    tokens.set_failure_policy(FailurePolicy::Bypass);
    let found = access(&tokens, "graph").await;
    tokens.set_failure_policy(policy);
    found
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_stop_the_call() {
    let (store, issuer) = (expired().await, Issuer::new());
    let cache = cache(store.clone());
    let tokens = cache.tokens(session("s"));
    issuer.hold();
    let request = tokio::spawn({
        let (tokens, issuer) = (tokens.clone(), issuer.clone());
        async move { acquire(&tokens, &issuer).await }
    });
    issuer.arrival().await;
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
    issuer.hold();
    let request = tokio::spawn({
        let (tokens, issuer) = (tokens.clone(), issuer.clone());
        async move { acquire(&tokens, &issuer).await }
    });
    issuer.arrival().await;
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

#[tokio::test]
async fn a_panic_is_an_error_for_everyone_who_waits() {
    let clock = Clock::manual(Timestamp::now());
    let cache = builder(expired().await)
        .clock(clock.clone())
        .build()
        .unwrap();
    let calls = Arc::new(AtomicU64::new(0));
    let mut requests = JoinSet::new();
    for _ in 0..10 {
        let (tokens, calls) = (cache.tokens(session("s")), calls.clone());
        requests.spawn(async move {
            let call = move |_: Prior| async move {
                calls.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                panic!("the acquire function's own")
            };
            let outcome: Result<Token, Error> = tokens
                .get_or_acquire("graph", |prior| async { never(call(prior).await).await })
                .await;
            kind_of(outcome.map(|_| String::new())).await
        });
    }
    let kinds = requests.join_all().await;
    assert!(kinds.iter().all(|kind| *kind == AcquireErrorKind::Panicked));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    clock.advance(Duration::from_secs(2));
    let issuer = Issuer::new();
    assert_eq!(
        acquire(&cache.tokens(session("s")), &issuer).await.unwrap(),
        "a1"
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_too_long_ends() {
    let cache = builder(expired().await)
        .acquire_timeout(Duration::from_secs(5))
        .build()
        .unwrap();
    let tokens = cache.tokens(session("s"));
    let call = |_: Prior| std::future::pending::<Result<TokenSet, ProviderError>>();
    let outcome = tokens.get_or_acquire("graph", call).await;
    assert_eq!(
        kind_of(outcome.map(|_| String::new())).await,
        AcquireErrorKind::TimedOut
    );
}

#[tokio::test]
async fn a_refused_grant_is_remembered_by_all_until_the_user_signs_in_again() {
    let store = expired().await;
    let (one, other) = (cache(store.clone()), cache(store));
    let calls = Arc::new(AtomicU64::new(0));
    let mut requests = JoinSet::new();
    for request in 0..1000 {
        let cache = if request % 2 == 0 { &one } else { &other };
        let (tokens, calls) = (cache.tokens(session("s")), calls.clone());
        requests.spawn(async move {
            let call = |_: Prior| async move {
                calls.fetch_add(1, Ordering::SeqCst);
                Err::<TokenSet, _>(ProviderError::refused("invalid_grant"))
            };
            let outcome = tokens.get_or_acquire("graph", call).await;
            kind_of(outcome.map(|_| String::new())).await
        });
    }
    let kinds = requests.join_all().await;
    let expected = AcquireErrorKind::ReauthenticationRequired;
    assert!(kinds.iter().all(|kind| *kind == expected));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    let tokens = one.tokens(session("s"));
    assert!(tokens.keys().await.unwrap().is_empty(), "it is no token");
    let old = Token::new("a0").with_expires_at(Timestamp::from_millis(1));
    let signed_in = TokenSet::from(old).with_refresh_token("r5");
    tokens.insert("graph", signed_in).await.unwrap();
    let call = |prior: Prior| async move {
        assert_eq!(prior.refresh_token().unwrap().expose(), "r5");
        Ok::<_, ProviderError>(set(6))
    };
    let token = tokens.get_or_acquire("graph", call).await.unwrap();
    assert_eq!(token.access_token(), "a6");
}

#[tokio::test]
async fn a_provider_that_asks_for_time_gets_it() {
    let clock = Clock::manual(Timestamp::now());
    let cache = builder(expired().await)
        .clock(clock.clone())
        .build()
        .unwrap();
    let tokens = cache.tokens(session("s"));
    let later = |_: Prior| async {
        let busy = ProviderError::status(http::StatusCode::TOO_MANY_REQUESTS);
        Err::<TokenSet, _>(busy.with_retry_after(Duration::from_secs(40)))
    };
    let outcome = tokens.get_or_acquire("graph", later).await;
    let Err(Error::Acquire(error)) = outcome else {
        panic!("it must fail")
    };
    assert_eq!(error.kind(), AcquireErrorKind::RetryLater);
    let retry_at = clock.now().saturating_add(Duration::from_secs(40));
    assert_eq!(error.retry_at(), Some(retry_at));
    assert!(error.downcast_ref::<ProviderError>().is_some());
    clock.advance(Duration::from_secs(39));
    let again = tokens.get_or_acquire("graph", never).await;
    assert_eq!(
        kind_of(again.map(|_| String::new())).await,
        AcquireErrorKind::RetryLater
    );
    clock.advance(Duration::from_secs(1));
    let issuer = Issuer::new();
    assert_eq!(acquire(&tokens, &issuer).await.unwrap(), "a1");
}

#[tokio::test]
async fn other_failures_back_off_and_keep_the_callers_error() {
    #[derive(Debug)]
    struct Mine;
    impl std::fmt::Display for Mine {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("mine")
        }
    }
    impl std::error::Error for Mine {}
    let clock = Clock::manual(Timestamp::now());
    let cache = builder(expired().await)
        .clock(clock.clone())
        .build()
        .unwrap();
    let tokens = cache.tokens(session("s"));
    let mut last = Duration::ZERO;
    for _ in 0..4 {
        let failing = |_: Prior| async { Err::<TokenSet, _>(Mine) };
        let outcome = tokens.get_or_acquire("graph", failing).await;
        let Err(Error::Acquire(error)) = outcome else {
            panic!("it must fail")
        };
        assert_eq!(error.kind(), AcquireErrorKind::Failed);
        assert!(error.downcast_ref::<Mine>().is_some());
        let pause = error.retry_at().unwrap().since(clock.now());
        assert!(pause > last, "each pause is longer");
        last = pause;
        clock.advance(pause);
    }
}

#[tokio::test]
async fn while_l2_is_down_one_process_still_makes_one_call() {
    let (store, issuer) = (expired().await, Issuer::new());
    let cache = cache(store.clone());
    let tokens = cache.tokens(session("s"));
    let _ = tokens.get("graph").await.unwrap();
    store.set_down(true);
    let mut requests = JoinSet::new();
    for _ in 0..20 {
        let (tokens, issuer) = (cache.tokens(session("s")), issuer.clone());
        requests.spawn(async move {
            let call = |prior| issuer.refresh(prior);
            tokens.acquire("graph").unwrap().with(call).await.unwrap()
        });
    }
    for acquired in requests.join_all().await {
        assert_eq!(acquired.token.access_token(), "a1");
        if acquired.metadata.token_source == TokenSource::IdentityProvider {
            assert!(!acquired.metadata.exclusive);
            assert_eq!(acquired.metadata.durability, Some(Durability::Pending));
        }
    }
    assert_eq!((issuer.calls(), issuer.reuses()), (1, 0));
    assert_eq!(access(&tokens, "graph").await.as_deref(), Some("a1"));
    store.set_down(false);
    drained(&cache).await;
    assert_eq!(stored(store, "s", "graph").await.as_deref(), Some("a1"));
}

#[tokio::test]
async fn others_wait_until_l2_has_the_answer() {
    let (store, issuer) = (expired().await, Issuer::new());
    let (one, other) = (cache(store.clone()), cache(store.clone()));
    store.set_refusing_commits(true);
    assert_eq!(
        acquire(&one.tokens(session("s")), &issuer).await.unwrap(),
        "a1"
    );
    let waiting = tokio::spawn({
        let (tokens, issuer) = (other.tokens(session("s")), issuer.clone());
        async move { acquire(&tokens, &issuer).await }
    });
    let leases = store.leases();
    eventually("the other is turned away", async || {
        store.leases() > leases + 3
    })
    .await;
    assert_eq!(issuer.calls(), 1);
    store.set_refusing_commits(false);
    assert_eq!(waiting.await.unwrap().unwrap(), "a1");
    assert_eq!((issuer.calls(), issuer.reuses()), (1, 0));
}

#[tokio::test]
async fn under_strict_an_answer_that_l2_does_not_take_is_an_error_and_is_kept() {
    let (store, issuer) = (expired().await, Issuer::new());
    let cache = cache(store.clone());
    let tokens = cache.tokens(session("s"));
    tokens.set_failure_policy(FailurePolicy::Strict);
    issuer.hold();
    let request = tokio::spawn({
        let (tokens, issuer) = (tokens.clone(), issuer.clone());
        async move { acquire(&tokens, &issuer).await }
    });
    issuer.arrival().await;
    store.set_down(true);
    issuer.release();
    assert!(matches!(request.await.unwrap(), Err(Error::Unavailable(_))));
    store.set_down(false);
    drained(&cache).await;
    assert_eq!(acquire(&tokens, &issuer).await.unwrap(), "a1");
    assert_eq!((issuer.calls(), issuer.reuses()), (1, 0));
    assert_eq!(stored(store, "s", "graph").await.as_deref(), Some("a1"));
}

#[tokio::test]
async fn an_unknown_refresh_token_is_not_an_absent_one() {
    let store = expired().await;
    store.set_down(true);
    let tokens = cache(store).tokens(session("s"));
    let call = |prior: Prior| async move {
        assert!(prior.refresh_token().is_none() && !prior.is_known());
        Err::<TokenSet, _>(ProviderError::unreachable("nothing is known"))
    };
    let outcome = tokens.get_or_acquire("graph", call).await;
    assert_eq!(
        kind_of(outcome.map(|_| String::new())).await,
        AcquireErrorKind::Failed
    );
}

#[tokio::test]
async fn a_sign_out_during_the_call_wins() {
    for elsewhere in [false, true] {
        let (store, issuer) = (expired().await, Issuer::new());
        let here = cache(store.clone());
        let tokens = here.tokens(session("s"));
        issuer.hold();
        let request = tokio::spawn({
            let (tokens, issuer) = (tokens.clone(), issuer.clone());
            async move { acquire(&tokens, &issuer).await }
        });
        issuer.arrival().await;
        let other = match elsewhere {
            true => cache(store.clone()),
            false => here.clone(),
        };
        other.tokens(session("s")).sign_out().await.unwrap();
        issuer.release();
        assert!(matches!(request.await.unwrap(), Err(Error::SignedOut)));
        drained(&here).await;
        assert_eq!(stored(store, "s", "graph").await, None, "{elsewhere}");
        let fresh = here.tokens(session("s"));
        assert_eq!(fresh.refresh_token().await.unwrap(), Lookup::Absent);
    }
}

#[tokio::test]
async fn a_sign_in_elsewhere_during_the_call_wins() {
    let (store, issuer) = (expired().await, Issuer::new());
    let tokens = cache(store.clone()).tokens(session("s"));
    issuer.hold();
    let request = tokio::spawn({
        let (tokens, issuer) = (tokens.clone(), issuer.clone());
        async move { acquire(&tokens, &issuer).await }
    });
    issuer.arrival().await;
    let other = cache(store.clone()).tokens(session("s"));
    other.insert("graph", set(70)).await.unwrap();
    other.commit().await.unwrap();
    issuer.release();
    assert_eq!(request.await.unwrap().unwrap(), "a70");
    let refresh_token = cache(store).tokens(session("s")).refresh_token().await;
    assert_eq!(refresh_token.unwrap().hit().unwrap().expose(), "r70");
}

#[tokio::test]
async fn a_sign_in_here_during_the_call_wins() {
    let (store, issuer) = (expired().await, Issuer::new());
    let here = cache(store.clone());
    let tokens = here.tokens(session("s"));
    issuer.hold();
    let request = tokio::spawn({
        let (tokens, issuer) = (tokens.clone(), issuer.clone());
        async move { acquire(&tokens, &issuer).await }
    });
    issuer.arrival().await;
    here.tokens(session("s"))
        .insert("graph", set(70))
        .await
        .unwrap();
    issuer.release();
    request.await.unwrap().unwrap();
    drained(&here).await;
    assert_eq!(
        stored(store.clone(), "s", "graph").await.as_deref(),
        Some("a70")
    );
    let refresh_token = cache(store).tokens(session("s")).refresh_token().await;
    assert_eq!(refresh_token.unwrap().hit().unwrap().expose(), "r70");
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_no_conflict_with_itself() {
    let (store, issuer) = (expired().await, Issuer::new());
    let cache = cache(store.clone());
    let tokens = cache.tokens(session("s"));
    let _ = tokens.get("graph").await.unwrap();
    store.set_losing_answers(true);
    assert_eq!(acquire(&tokens, &issuer).await.unwrap(), "a1");
    store.set_losing_answers(false);
    drained(&cache).await;
    assert_eq!(cache.stats().superseded_changes, 0);
    assert_eq!(stored(store, "s", "graph").await.as_deref(), Some("a1"));
}

#[tokio::test]
async fn a_token_that_will_expire_soon_is_served_and_replaced_in_the_background() {
    let issuer = Issuer::new();
    let clock = Clock::manual(Timestamp::now());
    let cache = builder(MemoryStore::new().with_clock(clock.clone()))
        .clock(clock.clone())
        .build()
        .unwrap();
    let tokens = cache.tokens(session("s"));
    let end = clock.now().saturating_add(Duration::from_secs(3600));
    let old = TokenSet::from(Token::new("a0").with_expires_at(end)).with_refresh_token("r0");
    tokens.insert("graph", old).await.unwrap();
    clock.advance(Duration::from_secs(3600 - 331));
    assert_eq!(acquire(&tokens, &issuer).await.unwrap(), "a0");
    assert_eq!(
        issuer.calls(),
        0,
        "it is not due before 110 % of five minutes"
    );
    clock.advance(Duration::from_secs(331 - 269));
    issuer.hold();
    for _ in 0..100 {
        assert_eq!(acquire(&tokens, &issuer).await.unwrap(), "a0");
    }
    issuer.arrival().await;
    issuer.release();
    eventually("the successor is there", async || {
        acquire(&tokens, &issuer).await.unwrap() == "a1"
    })
    .await;
    assert_eq!((issuer.calls(), issuer.reuses()), (1, 0));
}

#[tokio::test]
async fn a_refresh_ahead_that_fails_is_no_error() {
    let clock = Clock::manual(Timestamp::now());
    let cache = builder(MemoryStore::new().with_clock(clock.clone()))
        .clock(clock.clone())
        .build()
        .unwrap();
    let tokens = cache.tokens(session("s"));
    let end = clock.now().saturating_add(Duration::from_secs(60));
    tokens
        .insert("graph", Token::new("a0").with_expires_at(end))
        .await
        .unwrap();
    for _ in 0..100 {
        let failing =
            |_: Prior| async { Err::<TokenSet, _>(ProviderError::refused("server_error")) };
        let token = tokens.get_or_acquire("graph", failing).await.unwrap();
        assert_eq!(token.access_token(), "a0");
        tokio::task::yield_now().await;
    }
    eventually("the failure is counted", async || {
        cache.stats().failed_acquisitions > 0
    })
    .await;
    assert_eq!(cache.stats().failed_acquisitions, 1, "it backs off");
}

#[tokio::test]
async fn short_lives_are_not_refreshed_all_the_time() {
    let (cache, issuer) = (cache(MemoryStore::new()), Issuer::new());
    let tokens = cache.tokens(session("s"));
    let short = Token::new("a0").with_expires_in(Duration::from_secs(60));
    let set = TokenSet::from(short).with_refresh_token("r0");
    tokens.insert("graph", set).await.unwrap();
    assert_eq!(acquire(&tokens, &issuer).await.unwrap(), "a0");
    let acquired = tokens.acquire("graph").unwrap().with(never).await.unwrap();
    let end = acquired.metadata.expires_at.unwrap();
    let before = end.since(acquired.metadata.refresh_at.unwrap());
    assert!((Duration::from_secs(10)..Duration::from_secs(14)).contains(&before));
    assert_eq!(issuer.calls(), 0);
}

#[tokio::test]
async fn the_time_of_the_refresh_is_fixed_per_token_and_differs_between_instances() {
    let store = MemoryStore::new();
    let token = token("t");
    let mut times = std::collections::BTreeSet::new();
    for _ in 0..8 {
        let tokens = cache(store.clone()).tokens(session("s"));
        tokens.insert("graph", token.clone()).await.unwrap();
        let first = tokens
            .get_with_metadata("graph")
            .await
            .unwrap()
            .1
            .refresh_at;
        let again = tokens
            .get_with_metadata("graph")
            .await
            .unwrap()
            .1
            .refresh_at;
        assert_eq!(first, again);
        let before = token.expires_at().unwrap().since(first.unwrap());
        assert!((Duration::from_secs(270)..=Duration::from_secs(330)).contains(&before));
        times.insert(first.unwrap());
    }
    assert!(times.len() > 4, "instances do not march in step");
}

#[tokio::test]
async fn a_burst_of_rejections_of_one_token_makes_one_call() {
    let issuer = Issuer::new();
    let store = TestStore::default();
    let (one, other) = (cache(store.clone()), cache(store));
    one.tokens(session("s"))
        .insert("graph", set(0))
        .await
        .unwrap();
    one.tokens(session("s")).commit().await.unwrap();
    let rejected = set(0).access().clone();
    let mut requests = JoinSet::new();
    for cache in [&one, &other] {
        for _ in 0..50 {
            let (tokens, issuer) = (cache.tokens(session("s")), issuer.clone());
            let rejected = rejected.clone();
            requests.spawn(async move {
                let call = |prior| issuer.refresh(prior);
                let token = tokens.rejected("graph", &rejected, call).await.unwrap();
                assert_eq!(token.access_token(), "a1");
            });
        }
    }
    requests.join_all().await;
    assert_eq!((issuer.calls(), issuer.reuses()), (1, 0));
}

#[tokio::test]
async fn a_rejected_token_that_l2_has_replaced_needs_no_call() {
    let store = TestStore::default();
    let here = cache(store.clone()).tokens(session("s"));
    here.insert("graph", set(0)).await.unwrap();
    here.commit().await.unwrap();
    let other = cache(store).tokens(session("s"));
    other.insert("graph", set(9)).await.unwrap();
    other.commit().await.unwrap();
    assert_eq!(access(&here, "graph").await.as_deref(), Some("a0"), "L1");
    let token = here
        .rejected("graph", set(0).access(), never)
        .await
        .unwrap();
    assert_eq!(token.access_token(), "a9");
}

#[tokio::test]
async fn force_claims_and_a_minimal_rest_of_life_ask_the_provider() {
    let (cache, issuer) = (cache(TestStore::default()), Issuer::new());
    let tokens: Tokens = cache.tokens(session("s"));
    tokens.insert("graph", set(0)).await.unwrap();
    let refresh = || {
        let issuer = issuer.clone();
        move |prior| issuer.refresh(prior)
    };
    let acquisition = || tokens.acquire("graph").unwrap();
    let forced = acquisition().force_refresh().with(refresh()).await.unwrap();
    assert_eq!(forced.token.access_token(), "a1");
    let reason = RefreshReason::ForceRefreshOrClaims;
    assert_eq!(forced.metadata.refresh_reason, reason);
    let checked = {
        let refresh = refresh();
        move |prior: Prior| {
            assert_eq!(prior.claims(), Some("{}"));
            refresh(prior)
        }
    };
    let claimed = acquisition().claims("{}").with(checked).await.unwrap();
    assert_eq!(claimed.token.access_token(), "a2");
    assert_eq!(claimed.metadata.refresh_reason, reason);
    let enough = acquisition().min_remaining(Duration::from_secs(60));
    assert_eq!(enough.with(never).await.unwrap().token.access_token(), "a2");
    let longer = acquisition().min_remaining(Duration::from_secs(7200));
    let longer = longer.with(refresh()).await.unwrap();
    assert_eq!(longer.token.access_token(), "a3");
    assert_eq!(longer.metadata.refresh_reason, RefreshReason::Expired);
    let scoped = acquisition().scopes(["mail.read"]).unwrap();
    let scoped = scoped.with(refresh()).await.unwrap();
    assert_eq!(scoped.token.access_token(), "a4");
    assert_eq!(issuer.reuses(), 0);
}

#[tokio::test]
async fn an_absurd_lifetime_is_no_panic() {
    let tokens = cache(TestStore::default()).tokens(session("s"));
    for expires_in in ["-5", "0", "1e300", "\"99999999999999999999\""] {
        let json = format!(r#"{{"access_token":"a","expires_in":{expires_in}}}"#);
        let call = |_: Prior| async move { serde_json::from_str::<TokenSet>(&json) };
        let acquisition = tokens.acquire("graph").unwrap().force_refresh();
        assert_eq!(
            acquisition.with(call).await.unwrap().token.access_token(),
            "a"
        );
    }
}

#[tokio::test]
async fn without_l2_by_policy_nothing_is_written() {
    let (store, issuer) = (expired().await, Issuer::new());
    let tokens: Tokens = cache(store.clone()).tokens(session("s"));
    let _ = tokens.get("graph").await.unwrap();
    tokens.set_failure_policy(FailurePolicy::Bypass);
    let (groups, leases) = (store.groups(), store.leases());
    assert_eq!(acquire(&tokens, &issuer).await.unwrap(), "a1");
    assert_eq!(access(&tokens, "graph").await.as_deref(), Some("a1"));
    assert_eq!((store.groups(), store.leases()), (groups, leases));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_to_the_provider_are_bounded() {
    let cache: TokenCache = builder(MemoryStore::new())
        .max_acquisitions(5)
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
