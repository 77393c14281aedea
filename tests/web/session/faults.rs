//! Sign-ins that fail, or whose request does.

use std::convert::Infallible;

use bytes::Bytes;
use common::support::*;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use tokio::sync::Notify;
use tower::{Layer, ServiceExt, service_fn};
use tower_token_cache::{Durability, Error, FailurePolicy, TokenCache};

use super::browser::*;

#[tokio::test]
async fn a_handler_that_fails_after_the_sign_in_leaves_the_user_signed_in() {
    let layer = issuing(&cache(TestStore::default()));
    let mut browser = Browser::default();
    let visit = browser
        .visit(&layer, async |tokens| {
            let _ = tokens.sign_in(sign_in("ada")).await?;
            Err::<(), _>(Error::Overloaded)
        })
        .await;
    assert_eq!(visit.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(browser.api(&layer).await.as_deref(), Some("ada"));
}

#[tokio::test]
async fn a_later_change_that_strict_refuses_leaves_the_user_signed_in() {
    let store = TestStore::default();
    let layer = issuing(&cache(store.clone())).failure_policy(FailurePolicy::Strict);
    let mut browser = Browser::default();
    let visit = browser
        .visit(&layer, async |tokens| {
            let _ = tokens.sign_in(sign_in("ada")).await?;
            tokens.insert("more", token("more")).await?;
            store.set_refusing_commits(true);
            Ok::<_, Error>(())
        })
        .await;
    visit.result.unwrap();
    assert_eq!(visit.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(visit.set_cookie.len(), 1);
    store.set_refusing_commits(false);
    assert_eq!(browser.api(&layer).await.as_deref(), Some("ada"));
}

#[tokio::test(start_paused = true)]
async fn while_l2_is_away_degrade_signs_in_here_and_tells_l2_later() {
    let store = TestStore::default();
    let here = cache(store.clone());
    let layer = issuing(&here);
    let mut browser = Browser::default();
    browser.sign_in(&layer, "ada").await;
    let ada = browser.clone();
    store.set_down(true);
    let visit = browser.sign_in(&layer, "bob").await;
    assert_eq!(visit.result.unwrap(), Durability::Pending);
    assert_eq!(visit.set_cookie.len(), 1);
    assert_eq!(browser.api(&layer).await.as_deref(), Some("bob"));
    assert_eq!(ada.clone().api(&layer).await, None);

    // With a user L2 has to be asked, and the session before is over all the same.
    let visit = browser
        .visit(&layer, async |tokens| {
            tokens.sign_in(sign_in("carl").user("carl")).await
        })
        .await;
    assert!(matches!(visit.result, Err(Error::Unavailable(_))));
    assert!(visit.set_cookie.is_empty());
    assert_eq!(browser.api(&layer).await, None);
    let visit = browser.sign_in(&layer, "bob").await;
    assert_eq!(visit.result.unwrap(), Durability::Pending);

    store.set_down(false);
    eventually("L2 is told", async || {
        let stats = here.stats();
        stats.pending_changes == 0 && stats.pending_sign_outs == 0
    })
    .await;
    let there = issuing(&cache(store));
    assert_eq!(browser.api(&there).await.as_deref(), Some("bob"));
    assert_eq!(ada.clone().api(&there).await, None);
}

#[tokio::test(start_paused = true)]
async fn while_l2_is_away_strict_signs_no_user_in() {
    let store = TestStore::default();
    let here = cache(store.clone());
    let layer = issuing(&here).failure_policy(FailurePolicy::Strict);
    let mut browser = Browser::default();
    browser.sign_in(&layer, "ada").await;
    let ada = browser.clone();
    store.set_down(true);
    let visit = browser
        .visit(&layer, async |tokens| tokens.sign_in(sign_in("bob")).await)
        .await;
    assert!(matches!(visit.result, Err(Error::Unavailable(_))));
    assert_eq!(visit.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(visit.set_cookie.is_empty());
    store.set_down(false);
    eventually("L2 is told", async || here.stats().pending_sign_outs == 0).await;
    drained(&here).await;
    // The old session is over, and of the new one nothing is left.
    assert_eq!(ada.clone().api(&issuing(&cache(store.clone()))).await, None);
    assert_eq!(here.stats().pending_changes, 0);
    browser.sign_in(&layer, "bob").await;
}

/// One request whose handler signs in, says so, and never answers.
async fn hangs(cache: &TokenCache, signed_in: &Notify) {
    let inner = service_fn(async |request: Request<()>| {
        let tokens = handle(&request);
        let _ = tokens.sign_in(sign_in("ada").user("ada")).await.unwrap();
        signed_in.notify_one();
        std::future::pending::<Result<Response<Empty<Bytes>>, Infallible>>().await
    });
    let request = Browser::default().request();
    issuing(cache).layer(inner).oneshot(request).await.unwrap();
}

#[tokio::test]
async fn a_session_whose_id_no_browser_gets_is_signed_out() {
    let store = TestStore::default();
    let here = cache(store.clone());
    let signed_in = Notify::new();
    tokio::select! {
        () = hangs(&here, &signed_in) => unreachable!("the handler never answers"),
        () = signed_in.notified() => {
            assert_eq!(here.sessions_of("ada").await.unwrap().len(), 1);
        }
    }
    eventually("nothing is left", async || {
        here.sessions_of("ada").await.unwrap().is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_sign_in_that_is_dropped_leaves_no_user_signed_in() {
    let store = TestStore::default();
    let here = cache(store.clone());
    let layer = issuing(&here);
    let mut browser = Browser::default();
    let visit = browser
        .visit(&layer, async |tokens| {
            store.hold_group(1);
            tokio::select! {
                _ = tokens.sign_in(sign_in("ada").user("ada")) => unreachable!("the commit is held"),
                () = eventually("the commit is under way", async || store.groups() == 1) => {}
            }
        })
        .await;
    assert!(visit.set_cookie.is_empty());
    assert_eq!(store.clears(), 0);
    store.release_group();
    eventually("it is signed out", async || {
        store.clears() > 0 && here.sessions_of("ada").await.unwrap().is_empty()
    })
    .await;
}

#[tokio::test]
async fn after_the_head_it_is_too_late() {
    let store = TestStore::default();
    let layer = issuing(&cache(store.clone()));
    let mut browser = Browser::default();
    let (sender, receiver) = std::sync::mpsc::channel();
    browser
        .visit(&layer, async |tokens| sender.send(tokens).unwrap())
        .await;
    let late = receiver.try_recv().unwrap();
    let signed_in = late.sign_in(sign_in("ada")).await;
    assert!(matches!(signed_in, Err(Error::ResponseSent)));
    let kept = late.insert("state", token("s")).await;
    assert!(matches!(kept, Err(Error::ResponseSent)));
    assert_eq!(store.commits(), 0);

    // A sign-out counts, also then.
    browser.sign_in(&layer, "ada").await;
    browser
        .visit(&layer, async |tokens| sender.send(tokens).unwrap())
        .await;
    let late = receiver.try_recv().unwrap();
    assert_eq!(late.sign_out().await.unwrap(), Durability::Stored);
    assert_eq!(browser.api(&layer).await, None);
}
