//! The cookie: how it is set, how long it lives, and what becomes of one that is broken.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use bytes::Bytes;
use common::assert_stored;
use common::support::*;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use tower::{Layer, ServiceExt, service_fn};
use tower_token_cache::session::{Cookie, SameSite, SignIn};
use tower_token_cache::{
    Clock, Error, InvalidKey, KeyExtractor, MissingKey, Timestamp, TokenCache, TokenCacheLayer,
    Tokens, key,
};

use super::browser::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn site(cookie: Cookie) -> (TokenCacheLayer, TokenCache, Clock) {
    let clock = Clock::manual(Timestamp::now());
    let cache = builder(TestStore::default()).clock(clock.clone());
    let cache = cache.build().unwrap();
    (TokenCacheLayer::new(cache.clone(), cookie), cache, clock)
}

/// The value of the cookie, and what stands after it.
fn parts(line: &str) -> (&str, &str, &str) {
    let (name, rest) = line.split_once('=').unwrap();
    let (value, attributes) = rest.split_once("; ").unwrap();
    (name, value, attributes)
}

#[tokio::test]
async fn the_attributes_as_they_are_sent() {
    let (layer, _, clock) = site(sid());
    let visit = Browser::default().sign_in(&layer, "ada").await;
    let [line] = &visit.set_cookie[..] else {
        panic!("{visit:?}")
    };
    let (name, value, attributes) = parts(line);
    assert_eq!(name, "__Host-sid");
    let expected = "Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age=1209600";
    assert_eq!(attributes, expected);
    let (id, time) = value.split_once('.').unwrap();
    let now = format!("{:x}", clock.now().as_millis() / 1000);
    assert_eq!((id.len(), time), (43, &*now));
    // A cache that kept this response would hand the session to others.
    assert_eq!(visit.cache_control.as_deref(), Some("private, no-store"));

    let strict = Cookie::new("__Host-other").unwrap();
    let strict = strict.same_site(SameSite::Strict).fixed(DAY);
    let visit = Browser::default().sign_in(&site(strict).0, "ada").await;
    let (name, value, attributes) = parts(&visit.set_cookie[0]);
    assert_eq!((name, value.len()), ("__Host-other", 43));
    let expected = "Path=/; HttpOnly; Secure; SameSite=Strict; Max-Age=86400";
    assert_eq!(attributes, expected);

    let plain = sid().insecure_for_localhost().rolling(Duration::ZERO);
    let visit = Browser::default().sign_in(&site(plain).0, "ada").await;
    let (name, _, attributes) = parts(&visit.set_cookie[0]);
    let expected = "Path=/; HttpOnly; SameSite=Lax; Max-Age=1";
    assert_eq!((name, attributes), ("sid", expected));
    for name in ["", "__Host-", "a b", "a;b", "a=b", "ü", &"x".repeat(65)] {
        assert_eq!(
            Cookie::new(name).unwrap_err().option(),
            "session::Cookie::new"
        );
    }
}

#[tokio::test]
async fn who_keeps_nothing_gets_no_cookie() {
    let store = TestStore::default();
    let cache = cache(store.clone());
    let layer = issuing(&cache);
    let mut browser = Browser::default();
    let visit = browser
        .visit(&layer, async |tokens| {
            assert!(tokens.is_anonymous());
            tokens.keys().await.map(drop)
        })
        .await;
    assert_eq!(visit.status, StatusCode::UNAUTHORIZED);
    assert!(visit.set_cookie.is_empty() && visit.cache_control.is_none());
    assert_eq!((store.loads(), cache.stats().l1_entries), (0, 0));
}

#[tokio::test]
async fn a_first_change_that_fails_begins_no_session() {
    let (layer, cache, _) = site(sid());
    cache.shutdown(Duration::from_secs(1)).await;
    let visit = Browser::default()
        .visit(&layer, async |tokens| {
            let kept = tokens.insert("state", token("s")).await;
            assert!(tokens.is_anonymous());
            kept
        })
        .await;
    assert!(matches!(visit.result, Err(Error::ShutDown)), "{visit:?}");
    assert!(visit.set_cookie.is_empty(), "{visit:?}");
    assert!(visit.cache_control.is_none(), "{visit:?}");
}

#[tokio::test]
async fn the_first_value_begins_a_session_and_a_sign_in_ends_it() {
    let store = TestStore::default();
    let layer = issuing(&cache(store.clone()));
    let mut browser = Browser::default();
    let visit = browser
        .visit(&layer, async |tokens| {
            // Clones share the session that the first of them begins.
            let clone = tokens.clone();
            let both = [("state", tokens), ("nonce", clone)];
            let both =
                both.map(|(key, tokens)| async move { tokens.insert(key, token(key)).await });
            futures_util::future::try_join_all(both).await.map(drop)
        })
        .await;
    assert_eq!((visit.status, visit.set_cookie.len()), (StatusCode::OK, 1));
    let planted = browser.clone();
    let visit = browser
        .visit(&layer, async |tokens| tokens.keys().await)
        .await;
    assert_eq!(visit.result.unwrap().len(), 2);
    assert!(visit.set_cookie.is_empty());
    browser.sign_in(&layer, "ada").await;
    assert_ne!(browser.session(), planted.session());
    let visit = browser
        .visit(&layer, async |tokens| tokens.keys().await)
        .await;
    assert_eq!(visit.result.unwrap().len(), 1);
    assert_eq!(
        stored(store, planted.session().unwrap(), "state").await,
        None
    );
}

#[tokio::test]
async fn a_login_keeps_its_state_in_the_session_that_it_begins() {
    let store = TestStore::default();
    // The browser comes back to another instance.
    let layers = [(); 2].map(|()| issuing(&cache(store.clone())));
    let mut browser = Browser::default();
    let lifetime = Duration::from_secs(600);
    let begin = async |tokens: Tokens| tokens.put("state", "s", lifetime).await;
    let visit = browser.visit(&layers[0], begin).await;
    assert_eq!((visit.status, visit.set_cookie.len()), (StatusCode::OK, 1));
    let planted = browser.clone();
    let callback = async |tokens: Tokens| {
        let state = tokens.take::<String>("state").await?;
        assert_eq!(state.hit().as_deref(), Some("s"));
        tokens.sign_in(SignIn::new("api", token("ada"))).await
    };
    let visit = browser.visit(&layers[1], callback).await;
    assert_stored(visit.result.unwrap());
    assert_ne!(browser.session(), planted.session());
    let again = async |tokens: Tokens| tokens.take::<String>("state").await;
    let visit = planted.clone().visit(&layers[0], again).await;
    assert!(!visit.result.is_ok_and(|state| state.is_hit()));
}

#[tokio::test]
async fn a_cookie_is_renewed_after_a_quarter_of_its_age_and_a_fixed_one_never() {
    let (layer, cache, clock) = site(sid().rolling(4 * DAY));
    let mut browser = Browser::default();
    browser.sign_in(&layer, "ada").await;
    let session = browser.session().unwrap().to_owned();
    let tokens = cache.tokens(self::session(&session));
    let long = token("ada").with_expires_in(1000 * DAY);
    tokens.insert("api", long.clone()).await.unwrap();

    clock.advance(DAY - Duration::from_secs(1));
    let visit = browser
        .visit(&layer, async |tokens| api(&tokens).await)
        .await;
    assert!(visit.set_cookie.is_empty(), "{visit:?}");
    clock.advance(Duration::from_secs(1));
    // Only where the session is used, so that pages without tokens can be cached.
    let visit = browser.visit(&layer, async |_| ()).await;
    assert!(visit.set_cookie.is_empty(), "{visit:?}");
    let visit = browser
        .visit(&layer, async |tokens| api(&tokens).await)
        .await;
    let (_, value, attributes) = parts(&visit.set_cookie[0]);
    assert!(value.starts_with(&session), "the same session");
    assert!(attributes.ends_with("Max-Age=345600"), "{attributes}");
    let visit = browser
        .visit(&layer, async |tokens| api(&tokens).await)
        .await;
    assert!(visit.set_cookie.is_empty(), "{visit:?}");
    // A cookie without a time, or with one to come, is from other settings or a wrong clock.
    for cookie in [
        format!("{SID}{session}"),
        format!("{SID}{session}.ffffffffff"),
    ] {
        let mut browser = Browser::with(cookie);
        let visit = browser
            .visit(&layer, async |tokens| api(&tokens).await)
            .await;
        assert_eq!(visit.set_cookie.len(), 1);
    }

    let (layer, cache, clock) = site(sid().fixed(4 * DAY));
    let mut browser = Browser::default();
    browser.sign_in(&layer, "ada").await;
    let tokens = cache.tokens(self::session(browser.session().unwrap()));
    tokens.insert("api", long).await.unwrap();
    clock.advance(3 * DAY);
    let visit = browser
        .visit(&layer, async |tokens| api(&tokens).await)
        .await;
    assert_eq!((visit.result.is_some(), visit.set_cookie.len()), (true, 0));
}

#[tokio::test]
async fn a_late_response_does_not_bring_an_ended_session_back() {
    let (layer, _, clock) = site(sid());
    let mut browser = Browser::default();
    browser.sign_in(&layer, "ada").await;
    clock.advance(4 * DAY);
    let (mut slow, mut other) = (browser.clone(), browser.clone());
    let visit = slow
        .visit(&layer, async |tokens| {
            let found = tokens.refresh_token().await.unwrap();
            assert!(found.is_hit());
            // Meanwhile the same browser signs another user in.
            other.sign_in(&layer, "bob").await;
        })
        .await;
    assert!(visit.set_cookie.is_empty(), "{visit:?}");
}

#[tokio::test]
async fn a_broken_cookie_is_counted_and_removed_and_the_user_can_sign_in_again() {
    let (layer, cache, _) = site(sid());
    let mut browser = Browser::default();
    browser.sign_in(&layer, "ada").await;
    let good = browser.cookie.clone().unwrap();
    let other = format!("{SID}{}", "A".repeat(43));
    let broken = [
        format!("{good}; {other}"),
        format!("{SID}x"),
        format!("{SID}{}", "A".repeat(44)),
        format!("{SID}{}!", "A".repeat(42)),
        format!("{other}.xyz"),
        format!("{other}."),
        format!("{SID}{}", "A".repeat(2000)),
    ];
    for cookie in broken {
        let before = cache.stats().invalid_keys;
        let mut browser = Browser::with(&cookie);
        let anonymous = async |tokens: Tokens| Ok::<_, Error>(tokens.is_anonymous());
        let visit = browser.visit(&layer, anonymous).await;
        assert!(visit.result.unwrap(), "{cookie}");
        let (_, value, attributes) = parts(&visit.set_cookie[0]);
        let expected = "Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age=0";
        assert_eq!((value, attributes), ("", expected));
        Browser::with(&cookie).sign_in(&layer, "ada").await;
        // A refusal removes it as well.
        let rejecting = layer.clone().invalid_key(InvalidKey::Reject);
        let refused = refusal(&rejecting, &cookie).await;
        assert_eq!(refused, (StatusCode::BAD_REQUEST, 1));
        let demanding = layer.clone().missing_key(MissingKey::Reject);
        let refused = refusal(&demanding, &cookie).await;
        assert_eq!(refused, (StatusCode::UNAUTHORIZED, 1));
        assert_eq!(cache.stats().invalid_keys, before + 4);
    }
    // The same one twice is one.
    let mut browser = Browser::with(format!("{good}; {good}"));
    assert_eq!(browser.api(&layer).await.as_deref(), Some("ada"));
}

/// The status of a request that reaches no handler, and how many lines set cookies.
async fn refusal(layer: &TokenCacheLayer, cookie: &str) -> (StatusCode, usize) {
    let inner = service_fn(|_: Request<()>| async {
        unreachable!("the request was refused");
        #[expect(unreachable_code, reason = "says what the answer would be")]
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let request = Browser::with(cookie).request();
    let response = layer.layer(inner).oneshot(request).await.unwrap();
    let lines = response.headers().get_all(http::header::SET_COOKIE);
    (response.status(), lines.iter().count())
}

#[tokio::test]
async fn other_extractors_refuse_invalid_keys_unless_they_are_told() {
    let cache = cache(TestStore::default());
    let layer = TokenCacheLayer::new(cache.clone(), key::cookie("sid"));
    let twice = "sid=a; sid=b";
    // It sets no cookie, so it removes none.
    assert_eq!(refusal(&layer, twice).await, (StatusCode::BAD_REQUEST, 0));
    let lenient = layer.invalid_key(InvalidKey::Anonymous);
    let mut browser = Browser::with(twice);
    let visit = browser
        .visit(&lenient, async |tokens| tokens.keys().await)
        .await;
    assert_eq!(visit.status, StatusCode::UNAUTHORIZED);
    // It signs no user in either.
    assert!(visit.set_cookie.is_empty());
    let visit = browser
        .visit(&lenient, async |tokens| {
            tokens.sign_in(sign_in("ada")).await
        })
        .await;
    assert!(matches!(visit.result, Err(Error::NoSessionId)));
    assert_eq!(cache.stats().invalid_keys, 3);
}

#[tokio::test]
async fn behind_another_extractor_it_issues_as_well() {
    let cache = cache(TestStore::default());
    let either = key::header("x-session").or(sid());
    let layer = TokenCacheLayer::new(cache.clone(), either);
    let mut browser = Browser::default();
    browser.sign_in(&layer, "ada").await;
    assert_eq!(browser.api(&layer).await.as_deref(), Some("ada"));
    let shared: Arc<dyn KeyExtractor> = Arc::new(sid());
    let layer = TokenCacheLayer::new(cache, shared);
    assert_eq!(browser.api(&layer).await.as_deref(), Some("ada"));
}

#[tokio::test]
async fn handlers_get_a_handle_before_anybody_is_signed_in() {
    let cache = cache(TestStore::default());
    let login = async |tokens: Tokens| {
        let signed_in = tokens.sign_in(sign_in("ada")).await?;
        assert_stored(signed_in);
        Ok::<_, Error>(())
    };
    let page = async |tokens: Option<Tokens>| tokens.is_some().to_string();
    let me = async |tokens: Tokens| Ok::<_, Error>(tokens.keys().await?.len().to_string());
    let routes = Router::new()
        .route("/login", post(login))
        .route("/page", get(page))
        .route("/me", get(me));
    let app = routes.layer(issuing(&cache));
    let request = |method: &str, path: &str| {
        let request = Request::builder().method(method).uri(path);
        request.body(axum::body::Body::empty()).unwrap()
    };
    let send = |request| app.clone().oneshot(request);
    let response = send(request("GET", "/me")).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let response = send(request("GET", "/page")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let response = send(request("POST", "/login")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers().get_all("set-cookie").iter().count(), 1);
}
