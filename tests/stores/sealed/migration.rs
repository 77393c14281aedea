//! From no encryption to encryption: nobody signs in again, and it has to be asked for.

use std::time::Duration;

use tower_token_cache::{Clock, Error, MemoryStore, Timestamp, Token, TokenSet};

use super::*;

fn plain(store: impl TokenStore) -> TokenCache {
    builder(store).l1(L1::disabled()).build().unwrap()
}

fn migrating(store: impl TokenStore, ring: &KeyRing, clock: &Clock, hours: u64) -> TokenCache {
    let until = Timestamp::now().saturating_add(Duration::from_secs(hours * 3600));
    let builder = builder(store).l1(L1::disabled()).key_ring(ring.clone());
    let builder = builder.clock(clock.clone()).accept_plaintext_until(until);
    builder.build().unwrap()
}

/// A user as an earlier version has left them: two tokens, refresh and id token, signed out once.
async fn left_behind(store: impl TokenStore) -> PartitionKey {
    let cache = plain(store);
    let tokens = cache.tokens(user("ada"));
    tokens
        .insert("graph", token("of an earlier session"))
        .await
        .unwrap();
    assert_stored(tokens.commit().await.unwrap());
    assert_stored(tokens.sign_out().await.unwrap());
    let tokens = cache.tokens(user("ada"));
    let set = TokenSet::from(token("graph-1")).with_refresh_token("refresh-1");
    tokens.insert("graph", set).await.unwrap();
    tokens.insert("mail", token("mail-1")).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    user("ada")
}

#[tokio::test]
async fn plaintext_is_moved_and_sealed_when_it_is_first_used() {
    let server = RedisServer::start();
    let store = redis_store(&server).await;
    let ada = left_behind(store.clone()).await;
    let ring = KeyRing::generate().unwrap();
    let cache = migrating(store.clone(), &ring, &Clock::system(), 1);
    assert_eq!(hit(&cache, &ada, "graph").await.as_deref(), Some("graph-1"));
    let stats = cache.stats();
    assert_eq!((stats.accepted_plaintext, stats.unopenable), (3, 0));

    // All of it is there for an instance that takes no plaintext, and nothing is counted again.
    let strict = sealed(store.clone(), &ring);
    for (name, text) in [("graph", "graph-1"), ("mail", "mail-1")] {
        assert_eq!(hit(&strict, &ada, name).await.as_deref(), Some(text));
    }
    let keys: Vec<String> = server.query("KEYS *");
    for key in keys {
        let dump = format!("{:?}", server.command(&[b"HGETALL", key.as_bytes()]));
        assert!(!dump.contains("graph-1") && !dump.contains("refresh-1"));
    }
    assert_eq!(hit(&cache, &ada, "mail").await.as_deref(), Some("mail-1"));
    assert_eq!(cache.stats().accepted_plaintext, 3);
    assert_eq!(hit(&plain(store), &ada, "graph").await, None);
}

#[tokio::test]
async fn two_instances_may_move_a_user_at_once() {
    let server = RedisServer::start();
    let store = redis_store(&server).await;
    let ring = KeyRing::generate().unwrap();
    for round in 0..20 {
        let ada = user(&format!("ada{round}"));
        store_token(&plain(store.clone()), &ada, "graph", "t").await;
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let cache = migrating(store.clone(), &ring, &Clock::system(), 1);
            let ada = ada.clone();
            tasks.spawn(async move { hit(&cache, &ada, "graph").await });
        }
        for found in tasks.join_all().await {
            assert_eq!(found.as_deref(), Some("t"));
        }
    }
}

#[tokio::test]
async fn plaintext_has_to_be_asked_for_and_ends() {
    let store = MemoryStore::new();
    let ada = left_behind(store.clone()).await;
    let ring = KeyRing::generate().unwrap();
    assert_eq!(
        hit(&sealed(store.clone(), &ring), &ada, "graph").await,
        None
    );
    let late = Clock::manual(Timestamp::now().saturating_add(Duration::from_secs(2 * 3600)));
    assert_eq!(
        hit(&migrating(store.clone(), &ring, &late, 1), &ada, "graph").await,
        None
    );
    let cache = migrating(store, &ring, &Clock::system(), 1);
    assert_eq!(hit(&cache, &ada, "graph").await.as_deref(), Some("graph-1"));
}

#[tokio::test]
async fn a_sign_out_before_the_move_is_final() {
    let store = MemoryStore::new();
    let ada = left_behind(store.clone()).await;
    let ring = KeyRing::generate().unwrap();
    let cache = migrating(store.clone(), &ring, &Clock::system(), 1);
    // Without a read before it.
    assert_stored(cache.tokens(ada.clone()).sign_out().await.unwrap());
    assert_eq!(hit(&cache, &ada, "graph").await, None);
    assert_eq!(hit(&plain(store), &ada, "graph").await, None);
}

#[tokio::test]
async fn a_handle_from_before_a_sign_out_changes_nothing_after_the_move() {
    let store = MemoryStore::new();
    let ada = left_behind(store.clone()).await;
    let ring = KeyRing::generate().unwrap();
    let cache = migrating(store.clone(), &ring, &Clock::system(), 1);
    let slow = cache.tokens(ada.clone());
    assert!(slow.get("graph").await.unwrap().is_hit());
    assert_stored(cache.tokens(ada.clone()).sign_out().await.unwrap());
    // Whether it is told or not: the store refuses it.
    let _ = slow.insert("graph", Token::new("late")).await;
    let _ = slow.commit().await;
    assert_eq!(hit(&cache, &ada, "graph").await, None);
}

#[tokio::test]
async fn what_cannot_be_read_is_left_behind_and_counted() {
    let server = RedisServer::start();
    let store = redis_store(&server).await;
    let ada = left_behind(store.clone()).await;
    let place = server.only_key();
    let hash = server.command(&[b"HGETALL", place.as_bytes()]);
    let hash: Vec<(Vec<u8>, Vec<u8>)> = redis::from_redis_value(hash).unwrap();
    let is_mail = |value: &[u8]| value.windows(6).any(|window| window == b"mail-1");
    let (field, value) = hash.iter().find(|(_, value)| is_mail(value)).unwrap();
    server.command(&[b"HSET", place.as_bytes(), field, &value[..value.len() - 1]]);
    let ring = KeyRing::generate().unwrap();
    let cache = migrating(store, &ring, &Clock::system(), 1);
    assert_eq!(hit(&cache, &ada, "graph").await.as_deref(), Some("graph-1"));
    assert_eq!(hit(&cache, &ada, "mail").await, None);
    let stats = cache.stats();
    assert_eq!((stats.unopenable, stats.unopenable_reasons.damaged), (1, 1));
}

/// Instances that have users in memory, and the moment comes from which on all of them seal.
#[tokio::test]
async fn encryption_begins_under_load_and_nobody_is_signed_out() {
    let store = MemoryStore::new();
    let ada = left_behind(store.clone()).await;
    let ring = KeyRing::generate().unwrap();
    let clock = Clock::manual(Timestamp::now());
    let minutes = |n: u64| clock.now().saturating_add(Duration::from_secs(60 * n));
    let (from, until) = (minutes(1), minutes(30));
    let instance = || {
        let builder = builder(store.clone())
            .key_ring(ring.clone())
            .clock(clock.clone());
        let builder = builder.seal_from(from).accept_plaintext_until(until);
        builder.build().unwrap()
    };
    let (a, b, c) = (instance(), instance(), instance());
    for cache in [&a, &b, &c] {
        assert_eq!(hit(cache, &ada, "graph").await.as_deref(), Some("graph-1"));
    }
    store_token(&a, &ada, "plain", "still plain").await;
    assert_eq!(
        hit(&plain(store.clone()), &ada, "plain").await.as_deref(),
        Some("still plain")
    );
    clock.advance(Duration::from_secs(60));

    // Each commits one entry, without having read the partition again.
    store_token(&a, &ada, "of a", "a").await;
    store_token(&b, &ada, "of b", "b").await;
    let strict = sealed(store.clone(), &ring);
    let all = [
        ("graph", "graph-1"),
        ("mail", "mail-1"),
        ("plain", "still plain"),
        ("of a", "a"),
    ];
    for (name, text) in all.into_iter().chain([("of b", "b")]) {
        for cache in [&strict, &c.clone(), &a, &b] {
            let tokens = cache.tokens(ada.clone());
            tokens.reload().await.unwrap();
            assert_eq!(
                hit(cache, &ada, name).await.as_deref(),
                Some(text),
                "{name}"
            );
        }
    }
    for cache in [&a, &b, &c, &strict] {
        assert_eq!(cache.stats().unopenable, 0);
        assert_eq!(cache.stats().signed_out_changes, 0);
    }
}

/// A change that was made before a sign-out elsewhere stays without effect when it arrives after
/// encryption has begun.
#[tokio::test]
async fn a_sign_out_before_encryption_begins_holds_after_it() {
    let store = MemoryStore::new();
    let ada = left_behind(store.clone()).await;
    let ring = KeyRing::generate().unwrap();
    let clock = Clock::manual(Timestamp::now());
    let later = |minutes: u64| {
        clock
            .now()
            .saturating_add(Duration::from_secs(60 * minutes))
    };
    let builder = builder(store.clone())
        .key_ring(ring.clone())
        .clock(clock.clone());
    let builder = builder
        .seal_from(later(1))
        .accept_plaintext_until(later(30));
    let cache = builder.build().unwrap();
    let tokens = cache.tokens(ada.clone());
    assert!(tokens.get("graph").await.unwrap().is_hit());
    assert_stored(
        plain(store.clone())
            .tokens(ada.clone())
            .sign_out()
            .await
            .unwrap(),
    );
    clock.advance(Duration::from_secs(60));
    let late = tokens.insert("late", token("late")).await;
    assert!(matches!(late, Err(Error::SignedOut)), "{late:?}");
    let strict = sealed(store, &ring);
    assert_eq!(hit(&strict, &ada, "late").await, None);
    assert_eq!(hit(&strict, &ada, "graph").await, None);
}

#[tokio::test]
async fn encryption_without_keys_is_an_error_at_build() {
    let option = |builder: tower_token_cache::Builder| builder.build().unwrap_err().option();
    let builder = || builder(MemoryStore::new());
    assert_eq!(option(builder().require_encryption()), "require_encryption");
    let until = Timestamp::now();
    assert_eq!(
        option(builder().accept_plaintext_until(until)),
        "accept_plaintext_until"
    );
    let ring = KeyRing::generate().unwrap();
    assert!(
        builder()
            .require_encryption()
            .key_ring(ring)
            .build()
            .is_ok()
    );
}
