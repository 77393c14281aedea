//! Calls that fail, and what is remembered of it.

use std::io;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::*;

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
            kind_of(outcome)
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

/// An acquire function that asks for what only its own end brings is told at once, through how many others
/// it may ask; and what does not wait for it is not in its way.
#[tokio::test(start_paused = true)]
async fn an_acquire_function_does_not_wait_for_itself() {
    // Session `s` has a refresh token, and whoever redeems it goes before all others of the session.
    let chains: [(&[_], bool); 6] = [
        (&[("s", "graph"), ("s", "graph")], false),
        (&[("s", "graph"), ("s", "mail")], false),
        (&[("s", "graph"), ("t", "mail"), ("s", "mail")], false),
        (&[("t", "mail"), ("t", "mail")], false),
        (&[("s", "graph"), ("t", "mail")], true),
        (&[("t", "mail"), ("t", "graph")], true),
    ];
    for (chain, goes_on) in chains {
        let began = Instant::now();
        let answer = acquired_within(cache(expired().await), chain).await;
        let itself = answer.is_err_and(|error| error.contains("of its own partition"));
        assert_eq!(itself, !goes_on, "{chain:?}");
        assert!(began.elapsed() < Duration::from_secs(5), "{chain:?}");
    }
}

/// Acquires the first of these tokens by a function that acquires the second, and so on. An error comes
/// with its sources.
fn acquired_within(
    cache: TokenCache,
    chain: &'static [(&'static str, &'static str)],
) -> BoxFuture<'static, Result<(), String>> {
    Box::pin(async move {
        let Some(((sid, name), inner)) = chain.split_first() else {
            return Ok(());
        };
        let tokens = cache.tokens(session(sid));
        let call = move |_| async move {
            let inner = acquired_within(cache, inner).await;
            inner.map(|()| set(1)).map_err(io::Error::other)
        };
        let error = tokens.get_or_acquire(*name, call).await.err();
        let error = error.as_ref().map(|error| error as &dyn std::error::Error);
        let errors = std::iter::successors(error, |error| error.source());
        let texts: Vec<_> = errors.map(ToString::to_string).collect();
        match texts.is_empty() {
            true => Ok(()),
            false => Err(texts.join(": ")),
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_too_long_ends() {
    let cache = builder(expired().await)
        .acquisitions(Acquisitions::new().timeout(Duration::from_secs(5)))
        .build()
        .unwrap();
    let tokens = cache.tokens(session("s"));
    let call = |_: Prior| std::future::pending::<Result<TokenSet, ProviderError>>();
    let outcome = tokens.get_or_acquire("graph", call).await;
    assert_eq!(kind_of(outcome), AcquireErrorKind::TimedOut);
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
            kind_of(outcome)
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
        kind_of(again.map(|_| String::new())),
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
async fn an_unknown_refresh_token_is_not_an_absent_one() {
    let store = expired().await;
    store.set_down(true);
    let tokens = cache(store).tokens(session("s"));
    let call = |prior: Prior| async move {
        assert!(prior.refresh_token().is_none() && !prior.is_known());
        Err::<TokenSet, _>(ProviderError::unreachable("nothing is known"))
    };
    let outcome = tokens.get_or_acquire("graph", call).await;
    assert_eq!(kind_of(outcome), AcquireErrorKind::Failed);
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
