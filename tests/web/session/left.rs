//! An id that was signed out is not used again: a copy of the cookie sees nothing of what is kept later.

use std::time::Duration;

use common::support::*;
use tower_token_cache::{Error, TokenCacheLayer, Tokens};

use super::browser::*;

/// A browser that is signed in.
async fn signed_in() -> (TestStore, TokenCacheLayer, Browser) {
    let store = TestStore::default();
    let layer = issuing(&cache(store.clone()));
    let mut browser = Browser::default();
    browser.sign_in(&layer, "ada").await;
    (store, layer, browser)
}

#[tokio::test]
async fn by_a_handler_that_stops_waiting_for_the_sign_out() {
    let (store, layer, mut browser) = signed_in().await;
    let mut copied = browser.clone();
    store.hang();
    let visit = browser
        .visit(&layer, async |tokens: Tokens| {
            let ends = tokens.sign_out();
            let left = tokio::time::timeout(Duration::from_millis(20), ends).await;
            assert!(left.is_err());
            tokens.insert("api", token("kept after")).await
        })
        .await;
    store.wake();
    assert!(visit.result.is_ok(), "{visit:?}");
    assert_eq!(copied.api(&layer).await, None);
    assert_eq!(visit.set_cookie.len(), 1, "{visit:?}");
    assert_ne!(browser.session(), copied.session());
}

#[tokio::test]
async fn by_a_handler_that_only_stops_waiting() {
    let (store, layer, mut browser) = signed_in().await;
    store.hang();
    let visit = browser
        .visit(&layer, async |tokens: Tokens| {
            let ends = tokens.sign_out();
            let left = tokio::time::timeout(Duration::from_millis(20), ends).await;
            assert!(left.is_err() && tokens.is_anonymous());
        })
        .await;
    store.wake();
    assert!(browser.cookie.is_none(), "{visit:?}");
}

#[tokio::test]
async fn by_another_task_while_the_sign_out_waits() {
    let (store, layer, mut browser) = signed_in().await;
    let mut copied = browser.clone();
    let visit = browser
        .visit(&layer, async |tokens: Tokens| {
            store.hang();
            // Polled in this order.
            let (out, kept, ()) = tokio::join!(
                tokens.sign_out(),
                tokens.insert("api", token("kept after")),
                async { store.wake() },
            );
            assert_stored(out?);
            kept
        })
        .await;
    assert!(visit.result.is_ok(), "{visit:?}");
    assert_eq!(copied.api(&layer).await, None);
    assert_eq!(browser.api(&layer).await.as_deref(), Some("kept after"));
}

#[tokio::test]
async fn by_another_task_while_the_sign_in_waits() {
    let (store, layer, mut browser) = signed_in().await;
    let mut copied = browser.clone();
    let visit = browser
        .visit(&layer, async |tokens: Tokens| {
            store.hang();
            let (signed_in, kept, ()) = tokio::join!(
                tokens.sign_in(sign_in("bob")),
                tokens.insert("api", token("kept meanwhile")),
                async { store.wake() },
            );
            assert_stored(signed_in?);
            Ok::<_, Error>(kept)
        })
        .await;
    assert!(visit.result.is_ok(), "{visit:?}");
    assert_eq!(copied.api(&layer).await, None);
    assert_eq!(browser.api(&layer).await.as_deref(), Some("bob"));
}

/// Before the sign-out this handle has not used the session.
#[tokio::test]
async fn by_a_change_that_is_under_way() {
    let (store, _, mut browser) = signed_in().await;
    let mut copied = browser.clone();
    // An instance that has to ask for the session.
    let layer = issuing(&cache(store.clone()));
    let visit = browser
        .visit(&layer, async |tokens: Tokens| {
            store.hang();
            let (kept, out, ()) = tokio::join!(
                tokens.insert("api", token("late")),
                tokens.sign_out(),
                async { store.wake() },
            );
            assert_stored(out?);
            Ok::<_, Error>(kept)
        })
        .await;
    let kept = visit.result.unwrap();
    assert!(matches!(kept, Err(Error::SignedOut)), "{kept:?}");
    assert_eq!(copied.api(&layer).await, None);
}

/// As a streaming body does.
#[tokio::test]
async fn by_a_handle_that_outlives_the_head() {
    let (_, layer, mut browser) = signed_in().await;
    let (sender, receiver) = std::sync::mpsc::channel();
    browser
        .visit(&layer, async |tokens| sender.send(tokens).unwrap())
        .await;
    let late: Tokens = receiver.try_recv().unwrap();
    assert_stored(late.sign_out().await.unwrap());
    assert!(late.is_anonymous());
    let kept = late.insert("api", token("kept after")).await;
    assert!(matches!(kept, Err(Error::ResponseSent)), "{kept:?}");
    assert_eq!(browser.api(&layer).await, None);
}
