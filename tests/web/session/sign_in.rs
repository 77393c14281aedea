//! Sign-ins and sign-outs: what they leave, and who can use it.

use common::assert_stored;
use common::support::*;
use futures_util::future::join;
use http::StatusCode;
use tower_token_cache::session::SignIn;
use tower_token_cache::{
    Error, FailurePolicy, KeyExtractor, KeyRing, Lookup, PartitionKey, TokenCacheLayer, TokenSet,
    WriteMode, key,
};

use super::browser::*;

#[tokio::test]
async fn another_user_on_the_same_browser_finds_nothing_of_the_first() {
    let store = TestStore::default();
    let here = cache(store.clone());
    let layer = issuing(&here);
    let mut browser = Browser::default();
    browser.sign_in(&layer, "ada").await;
    browser
        .visit(&layer, async |tokens| {
            tokens.insert("files", answer("files")).await?;
            tokens
                .client("google")?
                .insert("mail", answer("mail"))
                .await
        })
        .await;
    let ada = browser.session().unwrap().to_owned();

    // The provider gives no refresh token.
    let visit = browser
        .visit(&layer, async |tokens| {
            let set = TokenSet::from(token("bob"));
            let signed_in = tokens.sign_in(SignIn::new("api", set).user("bob")).await;
            assert_stored(signed_in?);
            // The same handle is of the new session from here on.
            assert_eq!(api(&tokens).await.as_deref(), Some("bob"));
            assert_eq!(tokens.get("files").await?, Lookup::Absent);
            assert_eq!(tokens.refresh_token().await?, Lookup::Absent);
            tokens.insert("more", token("more")).await
        })
        .await;
    visit.result.unwrap();
    let bob = browser.session().unwrap();
    assert_ne!(bob, ada);
    drained(&here).await;
    for cache in [here, cache(store.clone())] {
        let tokens = cache.tokens(session(bob));
        assert_eq!(tokens.keys().await.unwrap().len(), 2);
        assert_eq!(tokens.refresh_token().await.unwrap(), Lookup::Absent);
        // The old id is worth nothing, on any instance.
        let tokens = cache.tokens(session(&ada));
        assert!(tokens.keys().await.unwrap().is_empty());
        let google = tokens.client("google").unwrap();
        assert!(!google.refresh_token().await.unwrap().is_hit());
        assert_eq!(cache.sessions_of("bob").await.unwrap(), [session(bob)]);
        assert!(cache.sessions_of("ada").await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn an_id_that_was_planted_is_never_the_users() {
    let store = TestStore::default();
    let here = cache(store.clone());
    let layer = issuing(&here);
    // The attacker knows the id, and has a token in the session.
    let id = "A".repeat(43);
    let planted = here.tokens(session(&id));
    planted
        .insert("files", token("the attacker's"))
        .await
        .unwrap();
    assert_stored(planted.commit().await.unwrap());
    let mut browser = Browser::with(format!("{SID}{id}"));
    browser.sign_in(&layer, "ada").await;
    assert_ne!(browser.session(), Some(&*id));
    let visit = browser
        .visit(&layer, async |tokens| tokens.keys().await)
        .await;
    assert_eq!(visit.result.unwrap().len(), 1);
    let mut attacker = Browser::with(format!("{SID}{id}"));
    assert_eq!(attacker.api(&layer).await, None);
    assert_eq!(attacker.api(&issuing(&cache(store))).await, None);
}

#[tokio::test]
async fn all_is_acknowledged_before_the_head_and_in_one_commit() {
    let store = TestStore::default();
    let layer = issuing(&cache(store.clone())).write_mode(WriteMode::AfterResponse);
    let mut browser = Browser::default();
    let visit = browser
        .visit(&layer, async |tokens| tokens.sign_in(sign_in("ada")).await)
        .await;
    assert_stored(visit.result.unwrap());
    assert_eq!(store.commits(), 1);
    let found = stored(store, browser.session().unwrap(), "api").await;
    assert_eq!(found.as_deref(), Some("ada"));
}

const ISS: &str = "https://issuer.example";

#[tokio::test]
async fn a_user_that_is_signed_out_everywhere_is_signed_out_here() {
    let store = TestStore::default();
    let here = cache(store.clone());
    let layer = issuing(&here);
    let mut browser = Browser::default();
    browser
        .visit(&layer, async |tokens| {
            let both = sign_in("ada").user("ada");
            tokens.sign_in(both.provider_session(ISS, "08a5019c")).await
        })
        .await;
    assert!(browser.api(&layer).await.is_some());
    // By the session at the provider, as a back-channel logout does.
    let there = cache(store);
    let ended = there.sign_out_provider_session(ISS, "08a5019c").await;
    assert_stored(ended.unwrap());
    assert_eq!(browser.api(&issuing(&there)).await, None);
}

#[tokio::test]
async fn tokens_are_those_of_the_client_that_signs_in() {
    let layer = issuing(&cache(TestStore::default()));
    let mut browser = Browser::default();
    browser
        .visit(&layer, async |tokens| {
            let google = tokens.client("google")?;
            assert_stored(google.sign_in(sign_in("ada")).await?);
            assert!(google.refresh_token().await?.is_hit());
            Ok::<_, Error>(())
        })
        .await;
    let visit = browser
        .visit(&layer, async |tokens| {
            assert!(tokens.client("google")?.get("api").await?.is_hit());
            assert!(!tokens.refresh_token().await?.is_hit());
            Ok::<_, Error>(())
        })
        .await;
    visit.result.unwrap();
}

#[tokio::test]
async fn a_sign_out_removes_the_cookie_and_leaves_an_anonymous_handle() {
    let store = TestStore::default();
    let layer = issuing(&cache(store.clone()));
    let mut browser = Browser::default();
    browser.sign_in(&layer, "ada").await;
    let id = browser.session().unwrap().to_owned();
    let visit = browser
        .visit(&layer, async |tokens| {
            assert_stored(tokens.sign_out().await?);
            assert!(tokens.is_anonymous());
            assert!(matches!(tokens.sign_out().await, Err(Error::NoPartition)));
            Ok::<_, Error>(())
        })
        .await;
    visit.result.unwrap();
    let expected = "__Host-sid=; Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age=0";
    assert_eq!(visit.set_cookie, [expected]);
    assert_eq!(visit.cache_control.as_deref(), Some("private, no-store"));
    let mut thief = Browser::with(format!("{SID}{id}"));
    assert_eq!(thief.api(&issuing(&cache(store))).await, None);

    // What is kept after a sign-out is kept under another id.
    browser.sign_in(&layer, "ada").await;
    let before = browser.session().unwrap().to_owned();
    let visit = browser
        .visit(&layer, async |tokens| {
            assert_stored(tokens.sign_out().await?);
            tokens.insert("notice", token("signed out")).await
        })
        .await;
    assert_eq!(visit.set_cookie.len(), 1);
    assert_ne!(browser.session().unwrap(), before);
}

#[tokio::test]
async fn two_sign_ins_at_once_from_one_browser_have_a_session_each() {
    let store = TestStore::default();
    let layer = issuing(&cache(store.clone()));
    let mut browser = Browser::default();
    browser.sign_in(&layer, "carl").await;
    let before = browser.session().unwrap().to_owned();
    let (mut one, mut two) = (browser.clone(), browser);
    join(one.sign_in(&layer, "ada"), two.sign_in(&layer, "bob")).await;
    for (browser, user) in [(&mut one, "ada"), (&mut two, "bob")] {
        assert_eq!(browser.api(&layer).await.as_deref(), Some(user));
        let there = issuing(&cache(store.clone()));
        let visit = browser
            .visit(&there, async |tokens| tokens.keys().await)
            .await;
        assert_eq!(visit.result.unwrap().len(), 1);
    }
    assert_eq!(stored(store, &before, "api").await, None);
}

#[tokio::test]
async fn of_two_sign_ins_of_one_request_the_later_one_is_the_session() {
    let store = TestStore::default();
    let here = cache(store.clone());
    let layer = issuing(&here);
    let mut browser = Browser::default();
    let visit = browser
        .visit(&layer, async |tokens| {
            let clone = tokens.clone();
            let (one, two) = (sign_in("ada").user("ada"), sign_in("bob").user("bob"));
            let (one, two) = join(tokens.sign_in(one), clone.sign_in(two)).await;
            assert_stored(one?);
            assert_stored(two?);
            Ok::<_, Error>(())
        })
        .await;
    visit.result.unwrap();
    assert_eq!(visit.set_cookie.len(), 1);
    let user = browser.api(&layer).await.unwrap();
    let other = ["ada", "bob"].into_iter().find(|other| *other != user);
    eventually("nothing is left of the other one", async || {
        here.sessions_of(other.unwrap()).await.unwrap().is_empty()
    })
    .await;
    assert_eq!(here.sessions_of(&user).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_partition_that_is_no_session_is_not_signed_out() {
    let cache = cache(TestStore::default());
    let ada = cache.tokens(PartitionKey::user("ada").unwrap());
    ada.insert("api", token("of the user")).await.unwrap();
    let by_user = key::constant(PartitionKey::user("ada").unwrap());
    let layer = TokenCacheLayer::new(cache.clone(), sid().or(by_user));
    let mut browser = Browser::default();
    browser.sign_in(&layer, "bob").await;
    assert_eq!(browser.api(&layer).await.as_deref(), Some("bob"));
    assert_eq!(access(&ada, "api").await.as_deref(), Some("of the user"));
}

#[tokio::test]
async fn without_an_issuer_it_is_an_error_that_changes_nothing() {
    let cache = cache(TestStore::default());
    let layer = TokenCacheLayer::new(cache.clone(), key::cookie("sid"));
    cache
        .tokens(session("s"))
        .insert("api", token("before"))
        .await
        .unwrap();
    let mut browser = Browser::with("sid=s");
    let visit = browser
        .visit(&layer, async |tokens| tokens.sign_in(sign_in("ada")).await)
        .await;
    let error = visit.result.unwrap_err();
    assert!(matches!(error, Error::NoSessionId));
    assert!(error.to_string().contains("session::Cookie"));
    assert!(visit.set_cookie.is_empty());
    assert_eq!(browser.api(&layer).await.as_deref(), Some("before"));

    let layer = issuing(&cache);
    let mut browser = Browser::default();
    browser.sign_in(&layer, "ada").await;
    for wrong in [
        SignIn::new("", token("t")),
        SignIn::new("api", token(&"x".repeat(2 << 20))),
        sign_in("ada").user(""),
    ] {
        let visit = browser
            .visit(&layer, async |tokens| tokens.sign_in(wrong).await)
            .await;
        let error = visit.result.unwrap_err();
        assert!(matches!(
            error,
            Error::InvalidKey(_) | Error::TooLarge { .. }
        ));
        assert_eq!(browser.api(&layer).await.as_deref(), Some("ada"));
    }
}

#[tokio::test]
async fn sessions_in_cookies_are_signed_in_by_the_same_call() {
    let ring = KeyRing::generate().unwrap();
    let store = tower_token_cache::CookieStore::builder(ring)
        .build()
        .unwrap();
    let layer = store.layer().unwrap();
    let cookies = |lines: Vec<String>| {
        let pairs = lines.iter().map(|line| line.split(';').next().unwrap());
        Browser::with(Vec::from_iter(pairs).join("; "))
    };
    let visit = Browser::default()
        .visit(&layer, async |tokens| {
            tokens.insert("files", answer("files")).await
        })
        .await;
    let mut browser = cookies(visit.set_cookie);
    let visit = browser
        .visit(&layer, async |tokens| {
            let set = TokenSet::from(token("bob"));
            tokens.sign_in(SignIn::new("api", set)).await
        })
        .await;
    assert_stored(visit.result.unwrap());
    let mut browser = cookies(visit.set_cookie);
    let visit = browser
        .visit(&layer, async |tokens| {
            assert_eq!(api(&tokens).await.as_deref(), Some("bob"));
            assert!(!tokens.refresh_token().await?.is_hit());
            tokens.keys().await
        })
        .await;
    assert_eq!(visit.status, StatusCode::OK);
    assert_eq!(visit.result.unwrap().len(), 1);
}

#[tokio::test]
async fn under_bypass_the_session_is_in_memory() {
    let store = TestStore::default();
    let layer = issuing(&cache(store.clone())).failure_policy(FailurePolicy::Bypass);
    let mut browser = Browser::default();
    browser.sign_in(&layer, "ada").await;
    assert_eq!(browser.api(&layer).await.as_deref(), Some("ada"));
    assert_eq!((store.loads(), store.commits()), (0, 0));
}
