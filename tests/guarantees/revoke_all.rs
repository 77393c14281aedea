//! Signing everybody out at once.

use std::time::Duration;

use tower_token_cache::{Error, Lookup};

use crate::common::support::*;
use crate::common::wire::Wire;

#[tokio::test]
async fn everybody_is_signed_out_on_all_instances_and_can_sign_in_again() {
    let (store, wire) = (TestStore::default(), Wire::new());
    let instance = || {
        builder(store.clone())
            .backplane(wire.clone())
            .build()
            .unwrap()
    };
    let (one, other) = (instance(), instance());
    for id in ["a", "b"] {
        let tokens = one.tokens(session(id));
        tokens.insert("graph", token(id)).await.unwrap();
        tokens.commit().await.unwrap();
        assert!(
            other
                .tokens(session(id))
                .get("graph")
                .await
                .unwrap()
                .is_hit()
        );
    }
    let waiting = other.tokens(session("b"));
    waiting.insert("mail", token("late")).await.unwrap();
    one.revoke_all().await.unwrap();
    let fresh = cache(store.clone());
    for cache in [&one, &fresh] {
        for id in ["a", "b"] {
            let found = cache.tokens(session(id)).get("graph").await.unwrap();
            assert_eq!(found, Lookup::Absent);
        }
    }
    eventually("the other instance learns of it", async || {
        !other
            .tokens(session("a"))
            .get("graph")
            .await
            .unwrap()
            .is_hit()
    })
    .await;
    let late = waiting.insert("graph", token("late")).await;
    assert!(matches!(late, Err(Error::SignedOut)));
    drained(&other).await;
    assert_eq!(stored(store.clone(), "b", "mail").await, None);
    let again = other.tokens(session("a"));
    again.insert("graph", token("again")).await.unwrap();
    again.commit().await.unwrap();
    assert_eq!(stored(store, "a", "graph").await.as_deref(), Some("again"));
}

#[tokio::test(start_paused = true)]
async fn without_a_backplane_others_learn_of_it_within_ten_seconds() {
    let store = TestStore::default();
    let (one, other) = (cache(store.clone()), cache(store));
    let tokens = other.tokens(session("s"));
    tokens.insert("graph", token("t")).await.unwrap();
    tokens.commit().await.unwrap();
    one.revoke_all().await.unwrap();
    tokio::time::sleep(Duration::from_secs(11)).await;
    let found = other.tokens(session("s")).get("graph").await.unwrap();
    assert_eq!(found, Lookup::Absent);
}

#[tokio::test]
async fn an_l2_that_cannot_be_asked_is_an_error() {
    let store = TestStore::default();
    let cache = cache(store.clone());
    store.set_down(true);
    assert!(matches!(
        cache.revoke_all().await,
        Err(Error::Unavailable(_))
    ));
}
