//! What a probe is told, in time and truly.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tower_token_cache::seal::{KeyRecord, KeyRepository, KeyRingError, KeyRingErrorKind};
use tower_token_cache::{
    BreakerState, Durability, KeyRing, Lookup, RedisStore, StoreErrorKind, TokenCache,
};

use common::eventually;
use common::support::{RedisServer, TestStore, cache, session, token};

const TIMEOUT: Duration = Duration::from_millis(200);

/// An answer that is late by less is in time: the machine may be busy.
const LATE: Duration = Duration::from_secs(2);

async fn kind(cache: &TokenCache) -> Option<StoreErrorKind> {
    let health = cache.check(TIMEOUT).await;
    health.store.err().map(|error| error.kind())
}

#[tokio::test]
async fn the_store_is_really_asked_even_while_no_request_asks_it() {
    let store = TestStore::telling();
    let cache = cache(store.clone());
    let health = cache.check(TIMEOUT).await;
    assert!(health.is_ready(), "{health:?}");
    eventually("the feed has begun", async || {
        cache.check(TIMEOUT).await.feed_alive == Some(true)
    })
    .await;

    store.set_down(true);
    assert_eq!(kind(&cache).await, Some(StoreErrorKind::Unreachable));
    assert_eq!(cache.stats().l2_errors, 0, "a probe is no operation");
    for number in 0..10 {
        let tokens = cache.tokens(session(&number.to_string()));
        assert_eq!(tokens.get("graph").await.unwrap(), Lookup::Unavailable);
    }
    assert_eq!(cache.stats().l2_state, BreakerState::Open);
    assert_eq!(kind(&cache).await, Some(StoreErrorKind::Unreachable));
    store.set_down(false);
    assert_eq!(kind(&cache).await, None, "while the breaker is open");
}

#[tokio::test]
async fn what_waits_and_a_shutdown_are_told() {
    let store = TestStore::default();
    let cache = cache(store.clone());
    let tokens = cache.tokens(session("ada"));
    tokens.insert("graph", token("t")).await.unwrap();
    assert_eq!(tokens.commit().await.unwrap(), Durability::Stored);
    store.set_down(true);
    tokens.insert("mail", token("t")).await.unwrap();
    assert_eq!(cache.check(TIMEOUT).await.pending_changes, 1);
    assert_eq!(tokens.sign_out().await.unwrap(), Durability::Pending);
    assert_eq!(cache.check(TIMEOUT).await.pending_sign_outs, 1);
    store.set_down(false);
    assert!(cache.check(TIMEOUT).await.is_ready());
    cache.shutdown(Duration::from_secs(10)).await;
    let health = cache.check(TIMEOUT).await;
    assert!(health.store.is_ok() && health.is_shut_down && !health.is_ready());
}

#[tokio::test]
async fn a_store_that_hangs_and_an_engine_that_is_blocked_do_not_hold_it_up() {
    let store = TestStore::default();
    let hanging = cache(store.clone());
    store.hang();
    // Nothing drives this runtime.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let builder = TokenCache::builder(TestStore::default()).runtime(runtime.handle().clone());
    let blocked = builder.build().unwrap();
    for cache in [&hanging, &blocked] {
        let asked = Instant::now();
        assert_eq!(kind(cache).await, Some(StoreErrorKind::Timeout));
        assert!(asked.elapsed() < TIMEOUT + LATE);
    }
    runtime.shutdown_background();
    assert_eq!(kind(&blocked).await, Some(StoreErrorKind::Unreachable));
}

/// A repository that is away at times.
#[derive(Clone, Default)]
struct Repository {
    records: Arc<std::sync::Mutex<Vec<KeyRecord>>>,
    is_away: Arc<AtomicBool>,
}

impl KeyRepository for Repository {
    async fn list(&self) -> Result<Vec<KeyRecord>, KeyRingError> {
        match self.is_away.load(Ordering::Relaxed) {
            true => Err(KeyRingError::new(KeyRingErrorKind::Unreachable)),
            false => Ok(self.records.lock().unwrap().clone()),
        }
    }

    async fn add(&self, record: &KeyRecord) -> Result<bool, KeyRingError> {
        self.records.lock().unwrap().push(record.clone());
        Ok(true)
    }
}

#[tokio::test]
async fn a_key_ring_that_cannot_be_read_is_told_and_its_keys_go_on() {
    let repository = Repository::default();
    let ring = KeyRing::builder(repository.clone()).open().await.unwrap();
    let builder = TokenCache::builder(TestStore::default()).key_ring(ring);
    let cache = builder.build().unwrap();
    assert!(matches!(cache.check(TIMEOUT).await.key_ring, Some(Ok(()))));
    repository.is_away.store(true, Ordering::Relaxed);
    let health = cache.check(TIMEOUT).await;
    assert!(health.is_ready());
    let json = serde_json::to_value(&health).unwrap();
    assert_eq!(json["key_ring"], "unreachable");
    assert_eq!(
        (&json["store"], &json["is_ready"]),
        (&"ok".into(), &true.into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_does_not_answer_fails_the_start_where_that_is_asked_for() {
    let server = RedisServer::start();
    let none = Duration::ZERO;
    let store = RedisStore::builder(server.url()).connect(none).await;
    let cache = cache(store.unwrap());
    assert!(cache.check(Duration::from_secs(5)).await.is_ready());

    server.command(&[b"CONFIG", b"SET", b"requirepass", b"right"]);
    let wrong = server.url().replace("redis://", "redis://:very-secret@");
    let error = RedisStore::builder(wrong.clone())
        .connect(none)
        .await
        .unwrap_err();
    assert_eq!(error.option(), "url");
    let text = format!("{:#}", anyhow::Error::from(error.clone()));
    assert!(text.contains("AuthenticationFailed"), "{text}");
    assert!(!format!("{text} {error:?}").contains("very-secret"));
    let locked_out = common::support::cache(RedisStore::connect(wrong).await.unwrap());
    let health = locked_out.check(Duration::from_secs(5)).await;
    let json = serde_json::to_string(&health).unwrap();
    assert!(json.contains(r#""store":"unreachable""#), "{json}");
    assert!(!format!("{health:?} {json}").contains("very-secret"));

    let (nowhere, patience) = (
        format!("redis://127.0.0.1:{}", common::free_port()),
        LATE / 4,
    );
    let asked = Instant::now();
    let error = RedisStore::builder(nowhere).connect(patience).await;
    assert_eq!(error.unwrap_err().option(), "url");
    assert!(
        asked.elapsed() > patience - Duration::from_millis(60),
        "it is patient"
    );
}
