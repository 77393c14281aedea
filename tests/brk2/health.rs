//! `check`, settings and numbers.

use std::time::Duration;

use common::support::*;
use tower_token_cache::{
    Acquisitions, Config, Error, L1, Lifetimes, MemoryStore, RedisStore, StoreErrorKind, Timeouts,
    Token, TokenCache, TokenSet, session::Cookie,
};

/// CONTRIBUTING and rustdoc: configuration never panics. The longest and the shortest time everywhere.
#[tokio::test(flavor = "multi_thread")]
async fn the_longest_and_the_shortest_time_panic_nowhere() {
    for time in [Duration::MAX, Duration::ZERO, Duration::from_nanos(1)] {
        let built = TokenCache::builder(MemoryStore::new())
            .timeouts(Timeouts::new().attempt(time).operation(time))
            .acquisitions(
                Acquisitions::new()
                    .refresh_before(time)
                    .timeout(time)
                    .lease_ttl(time),
            )
            .l1(L1::new().revalidate_every(time).max_staleness(time))
            .lifetimes(
                Lifetimes::new()
                    .after_write(time)
                    .sliding(time)
                    .absolute(time)
                    .negative_entry(time),
            )
            .build();
        println!("{time:?}: {:?}", built.as_ref().err());
        let Ok(cache) = built else { continue };
        let tokens = cache.tokens(session("s"));
        tokens.insert("api", token("t")).await.unwrap();
        tokens.put("v", "x", time).await.unwrap();
        let acquire = async |_| Ok::<_, Error>(TokenSet::from(Token::new("a")));
        tokens.get_or_acquire("more", acquire).await.unwrap();
        let health = cache.check(time).await;
        println!("{health:?}");
        cache.shutdown(time).await;
    }
    let cache = cache(MemoryStore::new());
    assert!(cache.check(Duration::MAX).await.is_ready());
    let cut = cache.check(Duration::ZERO).await;
    println!("{cut:?}");
    for time in [Duration::MAX, Duration::ZERO] {
        let _ = Cookie::new("sid").unwrap().rolling(time).fixed(time);
        let odd = token("t").with_expires_in(time);
        cache.tokens(session("o")).insert("api", odd).await.unwrap();
    }
    let server = RedisServer::start();
    let store = RedisStore::builder(server.url())
        .connect(Duration::MAX)
        .await;
    assert!(store.is_ok());
}

/// README: "a value that is not allowed is the error of `build()`".
#[test]
fn odd_settings_are_errors() {
    let mut taken = Vec::new();
    for json in [
        r#"{"l1":{"expiration_ratio":-1.0}}"#,
        r#"{"l1":{"expiration_ratio":0}}"#,
        r#"{"l1":{"expiration_ratio":1e308}}"#,
        r#"{"l1":{"max_staleness":"0s"}}"#,
        r#"{"l1":{"revalidate_every":"0s"}}"#,
        r#"{"namespace":""}"#,
        r#"{"journal":""}"#,
        r#"{"max_pending_changes":0}"#,
        r#"{"max_pending_bytes":0}"#,
        r#"{"timeouts":{"attempt":"2s","operation":"1s"}}"#,
        r#"{"timeouts":{"operation":"0ms"}}"#,
        r#"{"acquisitions":{"timeout":"0s"}}"#,
        r#"{"acquisitions":{"lease_ttl":"0s"}}"#,
        r#"{"acquisitions":{"lease_ttl":"1ms"}}"#,
        r#"{"lifetimes":{"sliding":"0s"}}"#,
    ] {
        let config: Config = serde_json::from_str(json).unwrap();
        if TokenCache::builder(MemoryStore::new())
            .config(config)
            .build()
            .is_ok()
        {
            taken.push(json);
        }
    }
    assert!(taken.is_empty(), "{taken:#?}");
}

/// check: "The answer comes after `timeout` at the latest, whatever they and the engine do." The runtime that the cache
/// works on is gone; and what is_ready says then.
#[test]
fn a_runtime_that_is_gone_is_told() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let builder = TokenCache::builder(MemoryStore::new()).runtime(runtime.handle().clone());
    let cache = builder.build().unwrap();
    drop(runtime);
    let other = tokio::runtime::Runtime::new().unwrap();
    let began = std::time::Instant::now();
    let health = other.block_on(cache.check(Duration::from_millis(300)));
    assert!(began.elapsed() < Duration::from_millis(600));
    assert!(!health.is_ready(), "{health:?}");
    assert_eq!(
        health.store.unwrap_err().kind(),
        StoreErrorKind::Unreachable
    );
}
