//! L2 that lies, refuses, hangs and dies.

use std::time::Duration;

use tower_token_cache::{L1, OnFailure, RedisStore, StoreError, StoreErrorKind, Timeouts};

use super::evidence::Evidence;
use super::*;

pub(crate) async fn happen(evidence: &Evidence, server: &mut RedisServer) {
    for sealed in [false, true] {
        server.query::<()>("FLUSHALL");
        tampered(evidence, server, sealed).await;
        foreign(evidence, server, sealed).await;
    }
    refused(evidence, server).await;
    server.hang();
    every_policy(evidence, server, "hangs").await;
    server.wake();
    server.kill();
    every_policy(evidence, server, "is down").await;
    addresses(evidence).await;
}

/// A cache that keeps nothing in memory.
async fn forgetful(server: &RedisServer, policy: FailurePolicy, sealed: bool) -> TokenCache {
    let settings = builder(redis_store(server).await)
        .failure_policy(policy)
        .l1(L1::disabled());
    match sealed {
        true => settings.key_ring(journeys::ring()),
        false => settings,
    }
    .build()
    .unwrap()
}

async fn look(evidence: &Evidence, cache: &TokenCache) {
    let handle = cache.tokens(session(SESSION));
    evidence.outcome("get", handle.get("graph").await);
    evidence.outcome("keys", handle.keys().await);
    evidence.outcome("refresh_token", handle.refresh_token().await);
    evidence.outcome("contains", handle.contains("graph").await);
}

/// Every byte of every value, one in ten at a time, so that each kind of damage occurs.
async fn tampered(evidence: &Evidence, server: &RedisServer, sealed: bool) {
    let cache = forgetful(server, FailurePolicy::Strict, sealed).await;
    let handle = cache.tokens(session(SESSION));
    handle.insert("graph", tokens()).await.unwrap();
    assert_stored(handle.commit().await.unwrap());
    let key = server.only_key();
    let fields: Vec<Vec<u8>> =
        redis::from_redis_value(server.command(&[b"HKEYS", key.as_bytes()])).unwrap();
    for field in fields.iter().filter(|field| field.len() == 17) {
        let value = server.command(&[b"HGET", key.as_bytes(), field]);
        let value: Vec<u8> = redis::from_redis_value(value).unwrap();
        for at in (16..value.len()).step_by(10) {
            let mut changed = value.clone();
            changed[at] ^= 0x41;
            server.command(&[b"HSET", key.as_bytes(), field, &changed]);
            look(evidence, &cache).await;
        }
        server.command(&[b"HSET", key.as_bytes(), field, &value[..value.len() / 2]]);
        look(evidence, &cache).await;
        let large = indiscretion().repeat(2000);
        server.command(&[b"HSET", key.as_bytes(), field, large.as_bytes()]);
        look(evidence, &cache).await;
    }
    assert!(cache.stats().unopenable > 10);
}

/// Another type of key, and a hash that is none of ours.
async fn foreign(evidence: &Evidence, server: &RedisServer, sealed: bool) {
    let cache = forgetful(server, FailurePolicy::Strict, sealed).await;
    let key = server.only_key();
    let text = indiscretion();
    server.command(&[b"SET", key.as_bytes(), text.as_bytes()]);
    look(evidence, &cache).await;
    let handle = cache.tokens(session(SESSION));
    evidence.outcome("insert", handle.insert("graph", tokens()).await);
    evidence.outcome("commit", handle.commit().await);
    server.query::<()>(&format!("DEL {key}"));
    server.command(&[b"HSET", key.as_bytes(), b"h", text.as_bytes()]);
    look(evidence, &cache).await;
}

/// Redis quotes the beginning of commands that it does not know or allow.
async fn refused(evidence: &Evidence, server: &RedisServer) {
    for rule in ["-evalsha", "-hgetall", "-@all +ping +hello +client"] {
        let cache = forgetful(server, FailurePolicy::Strict, false).await;
        look(evidence, &cache).await;
        server.query::<()>(&format!("ACL SETUSER default {rule}"));
        let handle = cache.tokens(session(SESSION));
        let _ = handle.insert("graph", tokens()).await;
        evidence.outcome("commit", handle.commit().await);
        look(evidence, &cache).await;
        evidence.outcome("move_to", handle.move_to(session(NEXT_SESSION)).await);
        evidence.outcome("sign_out", handle.sign_out().await);
        if !rule.contains("@all") {
            server.query::<()>("ACL SETUSER default +@all");
        }
    }
}

async fn every_policy(evidence: &Evidence, server: &RedisServer, what: &str) {
    for policy in POLICIES {
        for answer in [OnFailure::Policy, OnFailure::Fail] {
            let shown = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
            let seen = shown.clone();
            let cache = builder(redis_store(server).await)
                .failure_policy(policy)
                .timeouts(
                    Timeouts::new()
                        .attempt(Duration::from_millis(20))
                        .operation(Duration::from_millis(50)),
                )
                .on_l2_failure(move |failure| {
                    seen.lock().unwrap().push_str(&format!("{failure:?}"));
                    answer
                })
                .build()
                .unwrap();
            look(evidence, &cache).await;
            let handle = cache.tokens(session(SESSION));
            evidence.outcome(what, handle.insert("graph", tokens()).await);
            evidence.outcome(what, handle.commit().await);
            evidence.outcome(what, handle.link_user(USER).await);
            let failing = async |_| Err::<TokenSet, _>(indiscretion());
            if let Err(error) = handle.get_or_acquire("other", failing).await {
                evidence.text(what, &format!("{error} {error:?}"));
            }
            evidence.outcome(what, handle.move_to(session(NEXT_SESSION)).await);
            evidence.outcome(what, handle.sign_out().await);
            evidence.outcome(what, cache.sign_out_user(USER).await);
            let report = cache.shutdown(Duration::from_millis(50)).await;
            evidence.debug(what, &report);
            evidence.outcome(what, handle.insert("graph", tokens()).await);
            evidence.text("a failure", &shown.lock().unwrap());
        }
    }
}

/// Addresses with passwords, good and bad.
async fn addresses(evidence: &Evidence) {
    let port = common::free_port();
    let schemes = [
        "redis",
        "nonsense",
        "redis+cluster",
        "redis+sentinel",
        "rediss",
    ];
    for scheme in schemes {
        for rest in [format!("127.0.0.1:{port}"), String::new(), "h:99999".into()] {
            let url = format!("{scheme}://user:{PASSWORD}@{rest}");
            evidence.debug("a builder", &RedisStore::builder(url.as_str()));
            match RedisStore::connect(url.as_str()).await {
                Err(error) => evidence.error("an address", &error),
                Ok(store) => {
                    evidence.debug("a store", &store);
                    let cache = build(store, FailurePolicy::Strict, false).await;
                    look(evidence, &cache).await;
                }
            }
        }
    }
    let error = StoreError::new(StoreErrorKind::Refused);
    evidence.error("an error", &error);
}
