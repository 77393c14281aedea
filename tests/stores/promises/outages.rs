//! Stores that do not answer, or crash.

use std::time::{Duration, Instant};

use common::support::{access, builder, drained, eventually, hears, session, token};
use tower_token_cache::Durability;

use super::home::{Durable, Home};
use super::{finds, follows, put, ready, stored};

/// The operation timeout, and some room for a busy machine.
const NOBODY_WAITS_LONGER: Duration = Duration::from_millis(1500);

pub(super) async fn an_outage_is_survived<H: Home>() {
    let mut home = H::alone().await;
    // With the timeouts of an application.
    let one = ready(builder(home.store().await)).await;
    let other = ready(builder(home.store().await)).await;
    for sid in ["known", "left"] {
        put(&one.tokens(session(sid)), "graph", "t").await;
        finds(&other, sid, "graph", Some("t")).await;
        // What the feed has told of is compared first.
        drained(&one).await;
        assert!(one.tokens(session(sid)).reload().await.unwrap());
    }
    home.hang().await;
    for _ in 0..20 {
        let asked = Instant::now();
        let found = access(&one.tokens(session("known")), "graph").await;
        assert_eq!(found.as_deref(), Some("t"));
        assert!(asked.elapsed() < NOBODY_WAITS_LONGER);
    }
    let asked = Instant::now();
    let unknown = one.tokens(session("unknown")).get("graph").await.unwrap();
    assert!(!unknown.is_hit());
    assert!(asked.elapsed() < NOBODY_WAITS_LONGER);
    let tokens = one.tokens(session("known"));
    tokens.insert("mail", token("meanwhile")).await.unwrap();
    let asked = Instant::now();
    assert_eq!(tokens.commit().await.unwrap(), Durability::Pending);
    assert_eq!(access(&tokens, "mail").await.as_deref(), Some("meanwhile"));
    let left = one.tokens(session("left")).sign_out().await.unwrap();
    assert_eq!(left, Durability::Pending);
    assert_eq!(access(&one.tokens(session("left")), "graph").await, None);
    assert!(asked.elapsed() < 3 * NOBODY_WAITS_LONGER);
    home.wake().await;
    for cache in [&one, &other] {
        drained(cache).await;
        follows(cache).await;
        finds(cache, "known", "mail", Some("meanwhile")).await;
        finds(cache, "left", "graph", None).await;
    }
    let found = stored(&home, "known", "mail").await;
    assert_eq!(found.as_deref(), Some("meanwhile"));
    assert_eq!(stored(&home, "left", "graph").await, None);
}

pub(super) async fn a_session_outlives_a_crash<H: Durable>() {
    let mut home = H::alone().await;
    let cache = builder(home.store().await).build().unwrap();
    hears(&cache).await;
    let tokens = cache.tokens(session("s"));
    put(&tokens, "graph", "before").await;
    // What was announced when the store crashes may be a sign-out: it is looked into first.
    eventually("the change is told", async || cache.stats().feed_hints > 0).await;
    assert!(tokens.reload().await.unwrap());
    home.kill();
    // At once, or when a comparison that is under way has failed.
    finds(&cache, "s", "graph", Some("before")).await;
    // What changes waits.
    let tokens = cache.tokens(session("s"));
    tokens.insert("mail", token("meanwhile")).await.unwrap();
    assert_ne!(tokens.commit().await.unwrap(), Durability::Stored);
    home.restart();
    drained(&cache).await;
    hears(&cache).await;
    for (key, text) in [("graph", "before"), ("mail", "meanwhile")] {
        assert_eq!(stored(&home, "s", key).await.as_deref(), Some(text));
    }
}
