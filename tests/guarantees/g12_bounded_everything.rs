use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use tokio::time::Instant;
use tower_token_cache::{
    Acquisitions, BreakerState, Durability, Error, KeyError, Lifetimes, Timeouts, TokenCache,
    TokenSet,
};

use common::support::*;

#[tokio::test]
async fn pending_changes_are_bounded_and_nothing_is_lost_at_the_bound() {
    let store = TestStore::default();
    let cache = builder(store.clone())
        .max_pending_changes(10)
        .timeouts(Timeouts::new().operation(Duration::from_millis(300)))
        .build()
        .unwrap();
    store.set_down(true);
    for number in 0..10 {
        let tokens = cache.tokens(session(&format!("{number}")));
        tokens.insert("graph", token("t")).await.unwrap();
    }
    let one_more = cache.tokens(session("10"));
    assert!(matches!(
        one_more.insert("graph", token("t")).await,
        Err(Error::Overloaded)
    ));
    assert_eq!(
        access(&one_more, "graph").await,
        None,
        "nothing was changed"
    );
    assert_eq!(cache.stats().pending_changes, 10);
    // Newest wins per entry: a change of the same entry needs room only for a moment.
    store.set_down(false);
    drained(&cache).await;
    one_more.insert("graph", token("t")).await.unwrap();
    assert_eq!(one_more.commit().await.unwrap(), Durability::Stored);
    for number in 0..11 {
        assert!(
            stored(store.clone(), &format!("{number}"), "graph")
                .await
                .is_some()
        );
    }
}

#[tokio::test]
async fn past_the_bound_a_change_waits_for_room_and_is_committed_in_line() {
    let store = TestStore::default();
    let cache = builder(store.clone())
        .max_pending_bytes(20_000)
        .build()
        .unwrap();
    for number in 0..100 {
        let tokens = cache.tokens(session(&format!("{number}")));
        tokens
            .insert("graph", token(&"x".repeat(9_000)))
            .await
            .unwrap();
    }
    drained(&cache).await;
    for number in 0..100 {
        assert!(
            stored(store.clone(), &format!("{number}"), "graph")
                .await
                .is_some()
        );
    }
}

#[tokio::test]
async fn changes_of_requests_that_still_run_make_room_too() {
    use axum::Router;
    use axum::routing::get;
    let store = TestStore::default();
    let cache = builder(store.clone())
        .max_pending_changes(5)
        .build()
        .unwrap();
    let stuck = async |tokens: tower_token_cache::Tokens| {
        tokens.insert("graph", token("t")).await.unwrap();
        std::future::pending::<()>().await
    };
    let app = app(&cache, Router::new().route("/", get(stuck)));
    for number in 0..20 {
        let app = app.clone();
        tokio::spawn(async move { fetch(&app, &number.to_string(), "/").await });
    }
    eventually("all have changed a token", async || store.commits() >= 15).await;
    for number in 0..20 {
        let tokens = cache.tokens(session(&number.to_string()));
        eventually("visible", async || access(&tokens, "graph").await.is_some()).await;
    }
}

#[tokio::test]
async fn a_token_set_over_one_mebibyte_is_refused_and_changes_nothing() {
    let cache = cache(TestStore::default());
    let tokens = cache.tokens(session("s"));
    tokens
        .insert("graph", token(&"x".repeat(1 << 20)))
        .await
        .unwrap();
    let large = TokenSet::from(token(&"y".repeat(1 << 20))).with_refresh_token("z");
    let refused = tokens.insert("graph", large).await;
    assert!(
        matches!(refused, Err(Error::TooLarge { .. })),
        "{refused:?}"
    );
    assert!(access(&tokens, "graph").await.unwrap().starts_with('x'));
    assert_eq!(
        tokens.commit().await.unwrap(),
        Durability::Stored,
        "the largest one can be stored"
    );
}

/// One that is too large to be read in time would fail all reads of it, and open the breaker for everybody.
#[tokio::test]
async fn a_partition_over_eight_mebibytes_is_refused_and_loses_nothing() {
    let server = RedisServer::start();
    let store = redis_store(&server).await;
    let (here, there) = (cache(store.clone()), cache(store));
    let large = token(&"x".repeat(1_000_000));
    let tokens = here.tokens(session("s"));
    for number in 0..8 {
        let name = format!("resource {number}");
        tokens.insert(name, large.clone()).await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
    }
    let refused = |outcome| {
        matches!(
            outcome,
            Err(Error::TooLarge {
                limit: 0x80_0000,
                ..
            })
        )
    };
    assert!(refused(tokens.insert("one more", large.clone()).await));
    let fill = token(&"x".repeat(350_000));
    tokens.insert("small", fill).await.unwrap();
    let call = async |_| -> Result<TokenSet, Infallible> { panic!("the provider is asked") };
    let mut full = false;
    for number in 0..200 {
        let outcome = tokens.insert(format!("tiny {number}"), token("t")).await;
        full |= outcome.is_err() && refused(outcome);
    }
    assert!(full);
    let acquired = tokens.get_or_acquire("another resource", call).await;
    assert!(refused(acquired.map(drop)));

    // What is there can be replaced, read elsewhere, and removed.
    tokens.insert("resource 0", large.clone()).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    let elsewhere = there.tokens(session("s"));
    assert_eq!(
        access(&elsewhere, "resource 7").await.unwrap().len(),
        1_000_000
    );
    assert_eq!(there.stats().l2_state, BreakerState::Closed);
    tokens.remove("resource 1").await.unwrap();
    tokens.insert("one more", large).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
}

#[tokio::test]
async fn bad_token_keys_are_typed_errors() {
    let tokens = cache(TestStore::default()).tokens(session("s"));
    for (key, error) in [
        (String::new(), KeyError::Empty),
        ("x".repeat(5000), KeyError::TooLong { limit: 4096 }),
        ("a\u{1}b".into(), KeyError::InvalidCharacter),
    ] {
        let refused = tokens.insert(&key, token("t")).await;
        assert!(matches!(refused, Err(Error::InvalidKey(kind)) if kind == error));
        let refused = tokens.get(&key).await;
        assert!(matches!(refused, Err(Error::InvalidKey(kind)) if kind == error));
    }
    // The reserved entries cannot be had under a token key.
    tokens
        .insert("graph", TokenSet::from(token("t")).with_refresh_token("r"))
        .await
        .unwrap();
    let refused = tokens.get("\u{1}refresh_token").await;
    assert!(matches!(refused, Err(Error::InvalidKey(_))));
    assert_eq!(tokens.keys().await.unwrap().len(), 1);
}

#[tokio::test]
async fn bad_settings_name_the_option() {
    use tower_token_cache::{L1, MemoryStore, RedisStore, TokenCache};
    let builder = || TokenCache::builder(MemoryStore::new());
    for (option, built) in [
        ("namespace", builder().namespace("").build()),
        ("namespace", builder().namespace("a{b}").build()),
        (
            "L1::max_bytes",
            builder().l1(L1::new().max_bytes(0)).build(),
        ),
        (
            "L1::expiration_ratio",
            builder().l1(L1::new().expiration_ratio(0.0)).build(),
        ),
        (
            "L1::expiration_ratio",
            builder().l1(L1::new().expiration_ratio(f64::NAN)).build(),
        ),
        (
            "L1::revalidate_every",
            builder()
                .l1(L1::new().revalidate_every(Duration::ZERO))
                .build(),
        ),
        (
            "Lifetimes::after_write",
            builder()
                .lifetimes(Lifetimes::new().after_write(Duration::ZERO))
                .build(),
        ),
        (
            "Lifetimes::sliding",
            builder()
                .lifetimes(Lifetimes::new().sliding(Duration::ZERO))
                .build(),
        ),
        (
            "Lifetimes::absolute",
            builder()
                .lifetimes(Lifetimes::new().absolute(Duration::ZERO))
                .build(),
        ),
        (
            "Timeouts::attempt",
            builder()
                .timeouts(Timeouts::new().attempt(Duration::ZERO))
                .build(),
        ),
        (
            "Timeouts::attempt",
            builder()
                .timeouts(Timeouts::new().attempt(Duration::from_secs(2)))
                .build(),
        ),
        (
            "Timeouts::operation",
            builder()
                .timeouts(Timeouts::new().operation(Duration::ZERO))
                .build(),
        ),
        (
            "Acquisitions::timeout",
            builder()
                .acquisitions(Acquisitions::new().timeout(Duration::ZERO))
                .build(),
        ),
        (
            "Acquisitions::lease_ttl",
            builder()
                .acquisitions(Acquisitions::new().lease_ttl(Duration::ZERO))
                .build(),
        ),
        (
            "Acquisitions::max",
            builder().acquisitions(Acquisitions::new().max(0)).build(),
        ),
        (
            "max_pending_changes",
            builder().max_pending_changes(0).build(),
        ),
        ("max_pending_bytes", builder().max_pending_bytes(0).build()),
    ] {
        let error = built.expect_err(option);
        assert_eq!(error.option(), option);
        assert!(error.to_string().contains(option));
    }
    for url in [
        "",
        "localhost",
        "http://localhost",
        "redis://localhost/not-a-number",
        "rediss://h/#insecure",
        "redis+cluster://",
        "redis+cluster://h/1",
        "redis+sentinel://h",
        "redis+sentinel://h/name/not-a-number",
    ] {
        let error = RedisStore::connect(url).await.expect_err(url);
        assert_eq!(error.option(), "url");
    }
}

/// What waits when somebody is told that his changes are written.
struct Waiting {
    cache: TokenCache,
    seen: Mutex<Option<u64>>,
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        *self.seen.lock().unwrap() = Some(self.cache.stats().pending_changes);
    }
}

#[tokio::test]
async fn what_is_said_to_be_written_waits_no_more() {
    let cache = cache(TestStore::default());
    let tokens = cache.tokens(session("s"));
    tokens.insert("graph", token("t")).await.unwrap();
    let waiting = Arc::new(Waiting {
        cache: cache.clone(),
        seen: Mutex::default(),
    });
    let mut commit = pin!(tokens.commit());
    let waker = Waker::from(waiting.clone());
    let mut context = Context::from_waker(&waker);
    assert!(commit.as_mut().poll(&mut context).is_pending());
    eventually("it is told", async || {
        waiting.seen.lock().unwrap().is_some()
    })
    .await;
    assert_eq!(*waiting.seen.lock().unwrap(), Some(0));
    assert_eq!(commit.await.unwrap(), Durability::Stored);
}

/// There is no room for a change, and nothing that could give some.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_room_while_l2_is_known_to_be_away() {
    let store = TestStore::default();
    let cache = builder(store.clone()).max_pending_changes(10);
    let cache = cache.build().unwrap();
    let known = |number: usize| cache.tokens(session(&number.to_string()));
    for number in 0..=10 {
        assert_eq!(access(&known(number), "graph").await, None);
    }
    store.set_down(true);
    for number in 0..10 {
        known(number).insert("graph", token("t")).await.unwrap();
    }
    eventually("the breaker opens", async || {
        cache.stats().l2_state == BreakerState::Open
    })
    .await;
    // Between the probes, during which there may be room in a moment.
    eventually("it is refused at once", async || {
        let begun = Instant::now();
        let refused = known(10).insert("graph", token("t")).await;
        assert!(matches!(refused, Err(Error::Overloaded)), "{refused:?}");
        begun.elapsed() == Duration::ZERO
    })
    .await;
    store.set_down(false);
    drained(&cache).await;
    known(10).insert("graph", token("t")).await.unwrap();
}
