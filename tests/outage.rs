//! While L2 fails in part, and when it is back.
#![allow(unused_must_use, clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::support::{TestStore, access, builder, cache, session, stored, token};
use common::wire::Wire;
use tokio::time::{Instant, sleep};
use tower_token_cache::{BreakerState, Clock, Durability, Timestamp};

/// The breaker waits for up to half a minute between its probes. The backplane is tried each second,
/// and mostly lives on the same servers.
#[tokio::test(start_paused = true)]
async fn a_backplane_that_is_back_says_that_l2_may_be() {
    let (store, wire) = (TestStore::default(), Wire::new());
    let cache = builder(store.clone())
        .backplane(wire.clone())
        .build()
        .unwrap();
    let tokens = cache.tokens(session("s"));
    tokens.insert("graph", token("t")).await.unwrap();
    tokens.commit().await.unwrap();

    store.set_down(true);
    wire.cut();
    let mut errors = 0;
    for second in 0.. {
        let tokens = cache.tokens(session(&format!("unknown-{second}")));
        assert!(!tokens.get("graph").await.unwrap().is_hit());
        sleep(Duration::from_secs(1)).await;
        let earlier = std::mem::replace(&mut errors, cache.stats().l2_errors);
        // A probe has just failed, and the next is half a minute away.
        if second > 120 && errors > earlier {
            break;
        }
        assert!(second < 300, "nobody asks any more");
    }
    assert_eq!(cache.stats().l2_state, BreakerState::Open);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(
        cache.stats().l2_state,
        BreakerState::Open,
        "for half a minute"
    );

    store.set_down(false);
    wire.mend();
    // Nobody asks for anything: a second until the channel is tried, and its heartbeat.
    sleep(Duration::from_secs(4)).await;
    let stats = cache.stats();
    assert_eq!(stats.backplane_alive, Some(true));
    assert_eq!(stats.l2_state, BreakerState::Closed);
}

/// Found with a cluster, one node of which hangs: the question whether memory is out of date, and
/// then the load, each took nearly as long as anybody may wait.
#[tokio::test(start_paused = true)]
async fn several_slow_answers_take_no_longer_than_the_hard_timeout() {
    let (store, wire) = (TestStore::default(), Wire::new());
    let limit = Duration::from_secs(1);
    let own = builder(store.clone())
        .backplane(wire.clone())
        .soft_timeout(limit)
        .hard_timeout(limit)
        .build()
        .unwrap();
    let tokens = own.tokens(session("s"));
    tokens.insert("graph", token("old")).await.unwrap();
    tokens.commit().await.unwrap();
    // Memory has to be compared with L2, which has something else.
    wire.cut();
    sleep(Duration::from_secs(2)).await;
    let other = cache(store.clone()).tokens(session("s"));
    other.insert("graph", token("new")).await.unwrap();
    other.commit().await.unwrap();

    store.hang();
    store.hang_loads();
    let asked = Instant::now();
    let read = tokio::spawn(async move { access(&own.tokens(session("s")), "graph").await });
    sleep(limit * 9 / 10).await;
    store.wake();
    assert_eq!(read.await.unwrap().as_deref(), Some("old"));
    assert!(asked.elapsed() < limit * 11 / 10, "{:?}", asked.elapsed());
}

/// What L2 has refused for half a day is given up: a sign-out may be forgotten by then. What came
/// later is not.
#[tokio::test]
async fn old_changes_that_are_given_up_take_no_new_ones_with_them() {
    let store = TestStore::default();
    let clock = Clock::manual(Timestamp::now());
    let cache = builder(store.clone()).clock(clock.clone()).build().unwrap();
    let old = cache.tokens(session("s"));
    store.set_refusing_commits(true);
    old.insert("graph", token("old")).await.unwrap();
    old.insert("mail", token("old")).await.unwrap();
    assert_eq!(old.commit().await.unwrap(), Durability::Pending);
    clock.advance(Duration::from_secs(13 * 3600));
    let new = cache.tokens(session("s"));
    let lasting = || token("new").with_expires_in(Duration::from_secs(48 * 3600));
    new.insert("mail", lasting()).await.unwrap();
    new.insert("calendar", lasting()).await.unwrap();
    store.set_refusing_commits(false);
    assert_eq!(new.commit().await.unwrap(), Durability::Stored);
    assert_eq!(cache.stats().abandoned_changes, 2);
    for (name, found) in [
        ("graph", None),
        ("mail", Some("new")),
        ("calendar", Some("new")),
    ] {
        assert_eq!(
            stored(store.clone(), "s", name).await.as_deref(),
            found,
            "{name}"
        );
    }
}
