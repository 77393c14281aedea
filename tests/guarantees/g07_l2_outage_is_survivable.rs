use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tower_token_cache::{
    BreakerState, CacheLevel, Clock, Durability, Error, FailurePolicy, L2Operation, Lookup,
    OnFailure, RequestHead, StoreErrorKind, Timestamp, TokenCache, TokenCacheLayer, Tokens, key,
};

use common::support::*;

/// An instance whose clock stands still, with these users in L1 and in L2.
async fn with_known<const N: usize>(
    store: &TestStore,
    users: [&str; N],
) -> (TokenCache, Clock, [Tokens; N]) {
    let clock = Clock::manual(Timestamp::now());
    let cache = builder(store.clone()).clock(clock.clone()).build();
    let cache = cache.unwrap();
    let users = users.map(|user| cache.tokens(session(user)));
    for user in &users {
        user.insert("graph", token("t")).await.unwrap();
        assert_stored(user.commit().await.unwrap());
    }
    (cache, clock, users)
}

/// The default operation timeout, and some room for a busy machine.
const NOBODY_WAITS_LONGER: Duration = Duration::from_millis(1500);

#[tokio::test]
async fn redis_hangs_users_in_l1_are_served_and_others_wait_no_longer_than_the_operation_timeout() {
    let server = RedisServer::start();
    let cache = redis_cache(&server).await;
    let known = cache.tokens(session("known"));
    known.insert("graph", token("t")).await.unwrap();
    assert_stored(known.commit().await.unwrap());
    server.hang();
    // Not a measurement: a hit that asked Redis would add up to minutes.
    let started = Instant::now();
    for _ in 0..1000 {
        assert_eq!(
            access(&cache.tokens(session("known")), "graph")
                .await
                .as_deref(),
            Some("t")
        );
    }
    assert!(started.elapsed() < NOBODY_WAITS_LONGER);
    for number in 0..8 {
        let started = Instant::now();
        let tokens = cache.tokens(session(&format!("unknown-{number}")));
        assert_eq!(tokens.get("graph").await.unwrap(), Lookup::Unavailable);
        assert_eq!(tokens.last_read(), CacheLevel::Unavailable);
        assert!(started.elapsed() < NOBODY_WAITS_LONGER);
    }
    // By now the breaker is open: the store is not asked at all.
    let asked = cache.stats().l2_errors;
    let tokens = cache.tokens(session("one-more"));
    assert_eq!(tokens.get("graph").await.unwrap(), Lookup::Unavailable);
    assert_eq!(cache.stats().l2_errors, asked);
    server.wake();
    eventually("redis is asked again", async || {
        tokens.get("graph").await.unwrap() == Lookup::Absent
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_engine_keeps_time_whatever_the_store_does() {
    let store = TestStore::default();
    let cache = cache(store.clone());
    store.hang();
    let started = tokio::time::Instant::now();
    let tokens = cache.tokens(session("s"));
    assert_eq!(tokens.get("graph").await.unwrap(), Lookup::Unavailable);
    assert!(
        started.elapsed() <= Duration::from_millis(260),
        "the attempt timeout"
    );
    let started = tokio::time::Instant::now();
    tokens.insert("graph", token("t")).await.unwrap();
    assert_eq!(tokens.commit().await.unwrap(), Durability::Pending);
    assert_eq!(tokens.sign_out().await.unwrap(), Durability::Pending);
    assert!(
        started.elapsed() <= Duration::from_millis(3 * 1010),
        "the operation timeout, each"
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_a_hung_store_once() {
    let store = TestStore::default();
    let (cache, clock, [known]) = with_known(&store, ["known"]).await;
    store.hang();
    // Past the bound on staleness, so that memory alone will not do.
    clock.advance(Duration::from_secs(61));
    let all = async |tokens: &Tokens| {
        let started = tokio::time::Instant::now();
        let lookup = tokens.get("graph").await.unwrap();
        let refresh_token = tokens.refresh_token().await.unwrap();
        assert_eq!(refresh_token, Lookup::Unavailable);
        assert_eq!(tokens.last_read(), CacheLevel::Unavailable);
        tokens.insert("other", token("o")).await.unwrap();
        (lookup.is_hit(), started.elapsed())
    };
    let attempt_timeout = Duration::from_millis(250);
    let unknown = cache.tokens(session("unknown"));
    for (tokens, is_hit) in [(&known, true), (&unknown, false)] {
        let (hit, elapsed) = all(tokens).await;
        assert_eq!(hit, is_hit);
        assert!(
            elapsed <= attempt_timeout + Duration::from_millis(10),
            "{elapsed:?}"
        );
    }
    // A moment later it may be back, which only who asks finds out.
    clock.advance(Duration::from_secs(1));
    store.wake();
    assert_eq!(unknown.get("graph").await.unwrap(), Lookup::Absent);

    // Strict has no answer without L2, and asks each time.
    let strict = cache.tokens(session("strict"));
    strict.set_failure_policy(FailurePolicy::Strict);
    store.set_down(true);
    clock.advance(Duration::from_secs(2));
    for _ in 0..2 {
        let errors = cache.stats().l2_errors;
        strict.get("graph").await.unwrap_err();
        assert!(cache.stats().l2_errors > errors);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_behind_a_question_that_hangs() {
    let store = TestStore::default();
    let (_cache, clock, [first, second]) = with_known(&store, ["first", "second"]).await;
    store.hang();
    clock.advance(Duration::from_secs(61));
    let first = tokio::spawn(async move { access(&first, "graph").await });
    tokio::time::sleep(Duration::from_millis(10)).await;
    let started = tokio::time::Instant::now();
    assert_eq!(access(&second, "graph").await.as_deref(), Some("t"));
    let elapsed = started.elapsed();
    assert!(elapsed <= Duration::from_millis(300), "{elapsed:?}");
    assert_eq!(first.await.unwrap().as_deref(), Some("t"));
}

#[tokio::test(start_paused = true)]
async fn once_the_breaker_is_open_users_in_l1_do_not_even_wait_for_the_probe() {
    let store = TestStore::default();
    let (cache, clock, [known]) = with_known(&store, ["known"]).await;
    store.hang();
    for number in 0..5 {
        let tokens = cache.tokens(session(&format!("unknown-{number}")));
        assert_eq!(tokens.get("graph").await.unwrap(), Lookup::Unavailable);
    }
    assert_eq!(cache.stats().l2_state, BreakerState::Open);

    // Past the bound on staleness: a closed breaker would have each of them ask L2.
    clock.advance(Duration::from_secs(61));
    let (loads, misses) = (store.loads(), cache.stats().l1_misses);
    for _ in 0..10 {
        assert_eq!(access(&known, "graph").await.as_deref(), Some("t"));
        assert_eq!(known.last_read(), CacheLevel::L1);
    }
    assert_eq!((store.loads(), cache.stats().l1_misses), (loads, misses));

    // Half-open: somebody has to ask, and is served meanwhile.
    tokio::time::advance(Duration::from_millis(1200)).await;
    assert_eq!(cache.stats().l2_state, BreakerState::HalfOpen);
    let half_open = tokio::time::Instant::now();
    assert_eq!(access(&known, "graph").await.as_deref(), Some("t"));
    assert_eq!(half_open.elapsed(), Duration::ZERO);
    store.wake();
    eventually("the probe closes the breaker", async || {
        cache.stats().l2_state == BreakerState::Closed
    })
    .await;

    // Strict asks, whatever it costs.
    store.hang();
    clock.advance(Duration::from_secs(61));
    known.set_failure_policy(FailurePolicy::Strict);
    let refused = known.get("graph").await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
}

#[tokio::test]
async fn changes_made_while_redis_is_dead_are_replayed() {
    let mut server = RedisServer::start_persistent();
    let cache = redis_cache(&server).await;
    let known = cache.tokens(session("known"));
    known.insert("graph", token("old")).await.unwrap();
    assert_stored(known.commit().await.unwrap());
    server.kill();
    known.insert("graph", token("older")).await.unwrap();
    known.insert("graph", token("new")).await.unwrap();
    let unknown = cache.tokens(session("unknown"));
    unknown.insert("graph", token("first")).await.unwrap();
    assert_eq!(
        access(&unknown, "graph").await.as_deref(),
        Some("first"),
        "visible meanwhile"
    );
    assert!(cache.stats().pending_changes >= 2);
    server.restart();
    drained(&cache).await;
    for (sid, text) in [("known", "new"), ("unknown", "first")] {
        let store = redis_store(&server).await;
        assert_eq!(stored(store, sid, "graph").await.as_deref(), Some(text));
    }
}

#[tokio::test]
async fn a_store_that_panics_loses_nothing_and_stops_nobody() {
    let store = TestStore::default();
    let cache = cache(store.clone());
    store.panic_once();
    for sid in ["one", "another"] {
        let tokens = cache.tokens(session(sid));
        tokens.insert("graph", token(sid)).await.unwrap();
        // Whoever waits for the one that panics is told.
        let _ = tokens.commit().await;
    }
    drained(&cache).await;
    for sid in ["one", "another"] {
        let found = stored(store.clone(), sid, "graph").await;
        assert_eq!(found.as_deref(), Some(sid));
    }
}

#[tokio::test]
async fn l1_eviction_never_drops_a_change_that_l2_has_not_got() {
    let store = TestStore::default();
    let l1 = tower_token_cache::L1::new().max_bytes(50_000);
    let cache = builder(store.clone()).l1(l1).build().unwrap();
    store.set_down(true);
    for number in 0..200 {
        let tokens = cache.tokens(session(&format!("{number}")));
        tokens
            .insert("graph", token(&"x".repeat(1000)))
            .await
            .unwrap();
    }
    assert!(cache.stats().l1_bytes <= 50_000);
    for number in 0..200 {
        let tokens = cache.tokens(session(&format!("{number}")));
        assert!(
            tokens.get("graph").await.unwrap().is_hit(),
            "served from what waits"
        );
    }
    store.set_down(false);
    drained(&cache).await;
    for number in 0..200 {
        assert!(
            stored(store.clone(), &format!("{number}"), "graph")
                .await
                .is_some()
        );
    }
}

#[tokio::test]
async fn strict_says_so_to_the_handler_and_to_the_client() {
    let store = TestStore::default();
    let cache = cache(store.clone());
    let put = async |tokens: Tokens| tokens.insert("graph", token("t")).await;
    let read = async |tokens: Tokens| match tokens.get("graph").await {
        Ok(lookup) => Ok(format!("{lookup:?}")),
        Err(error) => Err(error),
    };
    let strict_if_asked =
        |head: &RequestHead<'_>| (head.path() != "/lenient").then_some(FailurePolicy::Strict);
    let layer = TokenCacheLayer::new(cache.clone(), key::cookie("sid"));
    let app = Router::new()
        .route("/put", get(put))
        .route("/read", get(read))
        .route("/lenient", get(read))
        .layer(layer.failure_policy_for(strict_if_asked));
    assert_eq!(fetch(&app, "known", "/put").await.0, StatusCode::OK);
    store.set_down(true);
    assert_eq!(
        fetch(&app, "known", "/put").await.0,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(
        fetch(&app, "unknown", "/read").await.0,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(
        fetch(&app, "unknown", "/lenient").await,
        (StatusCode::OK, "Unavailable".into())
    );
    // On the handle.
    let tokens = cache.tokens(session("unknown"));
    tokens.set_failure_policy(FailurePolicy::Strict);
    assert!(matches!(
        tokens.get("graph").await,
        Err(Error::Unavailable(_))
    ));
    // The refused change is kept, as documented, and replayed.
    store.set_down(false);
    drained(&cache).await;
}

#[tokio::test]
async fn bypass_uses_memory_only() {
    let store = TestStore::default();
    let cache = cache(store.clone());
    let tokens = cache.tokens(session("s"));
    tokens.set_failure_policy(FailurePolicy::Bypass);
    assert_eq!(tokens.get("graph").await.unwrap(), Lookup::Absent);
    tokens.insert("graph", token("t")).await.unwrap();
    assert_eq!(access(&tokens, "graph").await.as_deref(), Some("t"));
    assert_eq!((store.loads(), store.commits()), (0, 0));
    // Others of this process see it too, also when they read the partition from L2.
    let other = cache.tokens(session("s"));
    assert_eq!(other.get("mail").await.unwrap(), Lookup::Absent);
    assert_eq!(access(&other, "graph").await.as_deref(), Some("t"));
    assert_stored(other.commit().await.unwrap());
    assert_eq!(store.commits(), 0);
    // A sign-out must be final: it reaches L2 all the same.
    assert_stored(tokens.sign_out().await.unwrap());
    assert_eq!(store.clears(), 1);
}

#[tokio::test]
async fn the_failure_hook_sees_each_attempt_and_decides() {
    let store = TestStore::default();
    let answer = Arc::new(std::sync::Mutex::new(OnFailure::Retry));
    let attempts = Arc::new(AtomicU32::new(0));
    let cache = {
        let (answer, attempts, store) = (answer.clone(), attempts.clone(), store.clone());
        builder(store.clone())
            .on_l2_failure(move |failure| {
                assert_eq!(failure.operation, L2Operation::Load);
                assert_eq!(failure.error.kind(), StoreErrorKind::Unreachable);
                assert!(
                    failure
                        .partition
                        .is_some_and(|digest| !digest.contains("secret"))
                );
                let seen = attempts.fetch_add(1, Ordering::SeqCst) + 1;
                let answer = *answer.lock().unwrap();
                if answer == OnFailure::Retry && seen == 2 {
                    store.set_down(false);
                }
                answer
            })
            .build()
            .unwrap()
    };
    store.set_down(true);
    let tokens = cache.tokens(session("secret"));
    assert_eq!(
        tokens.get("graph").await.unwrap(),
        Lookup::Absent,
        "the third attempt works"
    );
    assert_eq!(attempts.load(Ordering::SeqCst), 2);

    store.set_down(true);
    *answer.lock().unwrap() = OnFailure::Fail;
    let tokens = cache.tokens(session("secret-2"));
    assert!(matches!(
        tokens.get("graph").await,
        Err(Error::Unavailable(_))
    ));
    *answer.lock().unwrap() = OnFailure::Degrade;
    tokens.set_failure_policy(FailurePolicy::Strict);
    assert_eq!(tokens.get("graph").await.unwrap(), Lookup::Unavailable);
}
