//! The end of an outage is noticed by whoever notices first.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::support::{TestStore, builder, session, token};
use common::wire::Wire;
use tower_token_cache::BreakerState;

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
    for second in 0..300 {
        let tokens = cache.tokens(session(&format!("unknown-{second}")));
        tokens.get("graph").await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        // Just after a probe of the longest pauses.
        if second > 120 && cache.stats().l2_state == BreakerState::Open {
            let mut errors = cache.stats().l2_errors;
            for _ in 0..40 {
                cache.tokens(session("other")).get("graph").await.unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
                if cache.stats().l2_errors > errors {
                    break;
                }
                errors = cache.stats().l2_errors;
            }
            break;
        }
    }
    assert_eq!(cache.stats().l2_state, BreakerState::Open);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        cache.stats().l2_state,
        BreakerState::Open,
        "for half a minute"
    );

    store.set_down(false);
    wire.mend();
    // Nobody asks for anything: a second until the channel is tried, and its heartbeat.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let stats = cache.stats();
    assert_eq!(stats.backplane_alive, Some(true));
    assert_eq!(stats.l2_state, BreakerState::Closed);
}
