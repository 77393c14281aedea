//! Signing everybody out at once.

use std::time::Duration;

use tower_token_cache::{
    Clock, Durability, Error, Lifetimes, Lookup, MemoryStore, Timestamp, Token, TokenCache,
};

use common::support::*;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn everybody_is_signed_out_on_all_instances_and_can_sign_in_again() {
    let store = TestStore::telling();
    let (one, other) = (cache(store.clone()), cache(store.clone()));
    for id in ["a", "b"] {
        let tokens = one.tokens(session(id));
        tokens.insert("graph", token(id)).await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
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
    one.sign_out_all().await.unwrap();
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
    assert_stored(again.commit().await.unwrap());
    assert_eq!(stored(store, "a", "graph").await.as_deref(), Some("again"));
}

#[tokio::test(start_paused = true)]
async fn without_a_feed_others_learn_of_it_within_ten_seconds() {
    let store = TestStore::default();
    let (one, other) = (cache(store.clone()), cache(store));
    let tokens = other.tokens(session("s"));
    tokens.insert("graph", token("t")).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    one.sign_out_all().await.unwrap();
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
        cache.sign_out_all().await,
        Err(Error::Unavailable(_))
    ));
}

fn instance(store: &TestStore, clock: &Clock) -> TokenCache {
    builder(store.clone()).clock(clock.clone()).build().unwrap()
}

async fn sign_in(cache: &TokenCache, id: &str) {
    let tokens = cache.tokens(session(id));
    tokens.insert("graph", token(id)).await.unwrap();
    assert_eq!(tokens.commit().await.unwrap(), Durability::Stored);
}

async fn is_signed_in(cache: &TokenCache, id: &str) -> bool {
    cache
        .tokens(session(id))
        .get("graph")
        .await
        .unwrap()
        .is_hit()
}

/// There is no second step that could fail, and nothing of it ends with a tombstone.
#[tokio::test]
async fn it_is_one_step_and_without_end() {
    let clock = Clock::manual(Timestamp::now());
    let store = TestStore::new(MemoryStore::new().with_clock(clock.clone()));
    let one = builder(store.clone()).lifetimes(Lifetimes::new().after_write(None));
    let one = one.clock(clock.clone()).build().unwrap();
    let forever = Token::new("t");
    let tokens = one.tokens(session("s"));
    tokens.insert("graph", forever).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    let commits = (store.groups(), store.clears());
    let raises = store.raises();
    one.sign_out_all().await.unwrap();
    assert_eq!((store.groups(), store.clears()), commits);
    assert_eq!(store.raises(), raises + 1);
    for hours in [0, 25, 10_000] {
        clock.advance(Duration::from_secs(hours * 3600));
        assert!(
            !is_signed_in(&instance(&store, &clock), "s").await,
            "{hours}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn one_whose_answer_is_lost_is_an_error_and_holds_all_the_same() {
    let store = TestStore::default();
    let cache = cache(store.clone());
    sign_in(&cache, "s").await;
    store.set_losing_answers(true);
    let unknown = cache.sign_out_all().await;
    assert!(matches!(unknown, Err(Error::Unavailable(_))));
    store.set_losing_answers(false);
    assert_eq!(stored(store.clone(), "s", "graph").await, None);
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(!is_signed_in(&cache, "s").await);
}

/// The number is lost with everything else, or alone: by a failover, by eviction, by hand.
#[tokio::test(start_paused = true)]
async fn a_number_that_l2_has_lost_is_written_back_by_who_knows_it() {
    let store = TestStore::default();
    let one = cache(store.clone());
    sign_in(&one, "old").await;
    one.sign_out_all().await.unwrap();
    sign_in(&one, "new").await;
    store.evict(&store.epochs()[0]);
    tokio::time::sleep(Duration::from_secs(11)).await;
    let fresh = cache(store.clone());
    assert!(
        is_signed_in(&fresh, "new").await,
        "the fleet has one number"
    );
    assert!(!is_signed_in(&fresh, "old").await);
}

#[tokio::test(start_paused = true)]
async fn a_number_that_nobody_knows_any_more_signs_everybody_out() {
    let store = TestStore::default();
    let clock = Clock::manual(Timestamp::now());
    {
        let one = instance(&store, &clock);
        sign_in(&one, "old").await;
        one.sign_out_all().await.unwrap();
        sign_in(&one, "new").await;
    }
    store.evict(&store.epochs()[0]);
    clock.advance(Duration::from_millis(1));
    let fresh = instance(&store, &clock);
    for id in ["old", "new"] {
        assert!(!is_signed_in(&fresh, id).await, "{id}");
    }
}

/// An old instance knows the number from before the loss, a new one that of after it.
#[tokio::test(start_paused = true)]
async fn after_a_loss_of_data_it_holds_on_old_and_new_instances() {
    for by_old in [true, false] {
        let store = TestStore::default();
        let old = cache(store.clone());
        for _ in 0..3 {
            old.sign_out_all().await.unwrap();
        }
        sign_in(&old, "s").await;
        store.evict(&store.epochs()[0]);
        let new = cache(store.clone());
        sign_in(&new, "t").await;
        let by = if by_old { &old } else { &new };
        by.sign_out_all().await.unwrap();
        assert!(!is_signed_in(by, "s").await);
        assert!(!is_signed_in(by, "t").await);
        tokio::time::sleep(Duration::from_secs(11)).await;
        for cache in [&old, &new] {
            for id in ["s", "t"] {
                assert!(!is_signed_in(cache, id).await, "{id} {by_old}");
            }
        }
        sign_in(&old, "again").await;
        assert!(is_signed_in(&new, "again").await, "one number for both");
    }
}

/// A clock that is behind does not make the number fall.
#[tokio::test]
async fn a_clock_that_is_behind_raises_it_all_the_same() {
    let store = TestStore::default();
    let now = Timestamp::now();
    let late = instance(&store, &Clock::manual(now));
    sign_in(&late, "s").await;
    let early = instance(&store, &Clock::manual(now.saturating_sub(HOUR)));
    sign_in(&early, "t").await;
    early.sign_out_all().await.unwrap();
    assert!(!is_signed_in(&early, "s").await && !is_signed_in(&early, "t").await);
    let fresh = instance(&store, &Clock::manual(now));
    assert!(!is_signed_in(&fresh, "s").await && !is_signed_in(&fresh, "t").await);
}

/// What a process keeps for an L2 that it has never reached may be from before.
#[tokio::test]
async fn changes_of_a_process_that_never_knew_the_number_are_older_than_it() {
    let store = TestStore::default();
    let clock = Clock::manual(Timestamp::now());
    sign_in(&instance(&store, &clock), "other").await;
    store.set_down(true);
    let cut_off = instance(&store, &clock);
    let tokens = cut_off.tokens(session("s"));
    tokens.insert("graph", token("before")).await.unwrap();
    store.set_down(false);
    clock.advance(Duration::from_secs(1));
    instance(&store, &clock).sign_out_all().await.unwrap();
    drained(&cut_off).await;
    assert!(!is_signed_in(&cut_off, "s").await);
    assert!(!is_signed_in(&instance(&store, &clock), "s").await);
}
