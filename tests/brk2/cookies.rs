//! Cookies that the layer issues.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use common::support::*;
use http::header::{COOKIE, SET_COOKIE};
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_token_cache::session::Cookie;
use tower_token_cache::{
    Clock, Error, InvalidKey, KeyExtractor, MemoryStore, MissingKey, Timestamp, TokenCache,
    TokenCacheLayer, Tokens, key,
};

use crate::browser::*;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn site(cookie: Cookie) -> (TokenCacheLayer, TokenCache, Clock) {
    let clock = Clock::manual(Timestamp::now());
    let cache = builder(MemoryStore::new()).clock(clock.clone());
    let cache = cache.build().unwrap();
    (TokenCacheLayer::new(cache.clone(), cookie), cache, clock)
}

/// The status, and the lines that set cookies.
async fn answer_of<S>(service: S, cookie: &str) -> (StatusCode, Vec<String>)
where
    S: Service<Request<()>, Error = Infallible>,
    S::Response: Into<Head>,
{
    let request = Request::post("/").header(COOKIE, cookie).body(()).unwrap();
    let Head(status, lines) = service.oneshot(request).await.unwrap().into();
    (status, lines)
}

struct Head(StatusCode, Vec<String>);

impl<B> From<Response<B>> for Head {
    fn from(response: Response<B>) -> Self {
        let lines = response.headers().get_all(SET_COOKIE).iter();
        let lines = lines.map(|line| line.to_str().unwrap().to_owned());
        Self(response.status(), lines.collect())
    }
}

/// What the browser has after these lines, in order.
fn kept(lines: &[String]) -> Option<String> {
    let pair = lines.last()?.split(';').next().unwrap().to_owned();
    Some(pair).filter(|pair| !pair.ends_with('='))
}

async fn ok(_: Request<()>) -> Result<Response<Empty<Bytes>>, Infallible> {
    Ok(Response::new(Empty::new()))
}

/// session: "with a cookie that is broken, or two that differ | As `InvalidKey` says: as without one, by default.
/// The response removes the cookie." README: "A cookie that is broken, or two that differ, are removed".
#[tokio::test]
async fn a_broken_cookie_is_removed_by_a_refusal_too() {
    let (layer, ..) = site(sid());
    let broken = format!("{SID}x");
    let demanding = layer.clone().missing_key(MissingKey::Reject);
    let (status, lines) = answer_of(demanding.layer(service_fn(ok)), &broken).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let missing = lines.len();
    let rejecting = layer.invalid_key(InvalidKey::Reject);
    let (status, lines) = answer_of(rejecting.layer(service_fn(ok)), &broken).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(
        (missing, lines.len()),
        (1, 1),
        "lines that remove the cookie"
    );
}

/// Cookie::rolling: "it is set anew by responses to requests that find a token, once a quarter of this time has
/// gone". README: "an age of 14 days that begins anew while the session is used". The request finds a token, and then
/// asks for something else.
#[tokio::test]
async fn a_request_that_finds_a_token_renews_whatever_it_asks_after() {
    let (layer, _, clock) = site(sid().rolling(HOUR));
    let mut browser = Browser::default();
    browser.sign_in(&layer, "ada").await;
    clock.advance(HOUR / 2);
    let mut renewed = Vec::new();
    for last in [
        "nothing",
        "keys",
        "a token that is absent",
        "a value that is absent",
    ] {
        let mut browser = browser.clone();
        let visit = browser
            .visit(&layer, async |tokens: Tokens| {
                assert_eq!(api(&tokens).await.as_deref(), Some("ada"));
                match last {
                    "nothing" => {}
                    "keys" => drop(tokens.keys().await?),
                    "a token that is absent" => assert!(!tokens.get("other").await?.is_hit()),
                    _ => assert!(!tokens.value::<String>("v").await?.is_hit()),
                }
                Ok::<_, Error>(())
            })
            .await;
        renewed.push((last, visit.set_cookie.len()));
    }
    assert!(renewed.iter().all(|(_, lines)| *lines == 1), "{renewed:?}");
}

/// README: "an age of 14 days that begins anew while the session is used". A request that uses the session in one way.
#[tokio::test]
async fn a_session_that_is_used_otherwise_is_renewed() {
    let (layer, _, clock) = site(sid().rolling(HOUR));
    let mut browser = Browser::default();
    browser.sign_in(&layer, "ada").await;
    clock.advance(HOUR / 2);
    let mut renewed = Vec::new();
    for how in [
        "insert", "put", "value", "take", "keys", "acquire", "commit",
    ] {
        let mut browser = browser.clone();
        let visit = browser
            .visit(&layer, async |tokens: Tokens| {
                match how {
                    "insert" => tokens.insert("more", token("m")).await?,
                    "put" => tokens.put("v", "x", DAY).await?,
                    "value" => assert!(tokens.value::<String>("v").await?.is_hit()),
                    "take" => assert!(tokens.take::<String>("v").await?.is_hit()),
                    "keys" => assert_eq!(tokens.keys().await?.len(), 2),
                    "commit" => drop(tokens.commit().await?),
                    _ => {
                        let never = async |_| Err::<tower_token_cache::TokenSet, _>("never");
                        let _ = tokens.get_or_acquire("api", never).await?;
                    }
                }
                Ok::<_, Error>(())
            })
            .await;
        assert!(visit.result.is_ok(), "{visit:?}");
        renewed.push((how, visit.set_cookie.len()));
    }
    assert!(renewed.iter().all(|(_, lines)| *lines == 1), "{renewed:?}");
}

/// README: "A cookie that is broken, or two that differ, are removed, and counted; the user can sign in again." With
/// the layer around a router and around a route of it, as where two routers are merged or nested.
#[tokio::test]
async fn with_a_layer_within_a_layer_the_user_can_sign_in_again() {
    let (layer, ..) = site(sid());
    let inner = service_fn(async |request: Request<()>| {
        let signed_in = handle(&request).sign_in(sign_in("ada")).await;
        assert!(signed_in.is_ok());
        ok(request).await
    });
    let nested = layer.layer(layer.layer(inner));
    let (_, lines) = answer_of(nested, &format!("{SID}x")).await;
    assert!(kept(&lines).is_some(), "{lines:?}");
}

/// session: "that signs in | A new id, whatever the request brings. Nothing of the session before is left, and its id
/// is worth nothing." Where another extractor comes first, the cookie's session is the one before.
#[tokio::test]
async fn the_session_of_the_cookie_ends_whatever_the_key_of_the_request_was() {
    let (_, cache, _) = site(sid());
    let layer = TokenCacheLayer::new(cache.clone(), key::header("x-user").user().or(sid()));
    let mut browser = Browser::default();
    browser.sign_in(&layer, "ada").await;
    let before = browser.cookie.clone().unwrap();
    let inner = service_fn(async |request: Request<()>| {
        let signed_in = handle(&request).sign_in(sign_in("bob")).await;
        assert!(signed_in.is_ok());
        ok(request).await
    });
    let request = Request::post("/").header(COOKIE, &before);
    let request = request.header("x-user", "service").body(()).unwrap();
    let response = layer.layer(inner).oneshot(request).await.unwrap();
    assert!(response.headers().contains_key(SET_COOKIE));
    let left = Browser::with(before).api(&layer).await;
    assert_eq!(left, None, "the id before is worth something");
}

/// README: "`tokens.sign_out()` removes the cookie." session: "What is kept after that is kept under another id." In memory
/// the session has ended when L2 is asked; here the caller stops waiting for L2, and goes on.
#[tokio::test]
async fn a_sign_out_whose_caller_stops_waiting_leaves_no_cookie() {
    let store = common::store::TestStore::default();
    let cache = cache(store.clone());
    let layer = issuing(&cache);
    let mut browser = Browser::default();
    browser.sign_in(&layer, "ada").await;
    let mut copied = browser.clone();
    assert!(copied.session().is_some());
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
    let seen = copied.api(&layer).await;
    assert_eq!(seen, None, "under the id that was signed out; {visit:?}");
    assert_eq!(visit.set_cookie.len(), 1, "{visit:?}");
}

/// The same where nobody stops waiting: two tasks of one request.
#[tokio::test]
async fn what_is_kept_while_a_sign_out_waits_is_not_under_the_old_id() {
    let store = common::store::TestStore::default();
    let cache = cache(store.clone());
    let layer = issuing(&cache);
    let mut browser = Browser::default();
    browser.sign_in(&layer, "ada").await;
    let mut copied = browser.clone();
    let visit = browser
        .visit(&layer, async |tokens: Tokens| {
            store.hang();
            let keeps = async {
                let kept = tokens.insert("api", token("kept after")).await;
                store.wake();
                kept
            };
            let (out, kept) = tokio::join!(tokens.sign_out(), keeps);
            assert_stored(out?);
            kept
        })
        .await;
    assert!(visit.result.is_ok(), "{visit:?}");
    assert_eq!(copied.api(&layer).await, None, "{visit:?}");
}

/// session: "that signs out | The cookie is removed. What is kept after that is kept under another id." sign_out: "the
/// handle is anonymous from now on". Here by a clone that outlives the response head, as in a streaming body.
#[tokio::test]
async fn what_is_kept_after_a_late_sign_out_is_not_under_the_old_id() {
    let (layer, ..) = site(sid());
    let mut browser = Browser::default();
    browser.sign_in(&layer, "ada").await;
    let (sender, receiver) = std::sync::mpsc::channel();
    browser
        .visit(&layer, async |tokens| sender.send(tokens).unwrap())
        .await;
    let late: Tokens = receiver.try_recv().unwrap();
    let out = late.sign_out().await;
    let kept = late.insert("api", token("kept after")).await;
    let anonymous = late.is_anonymous();
    let seen = browser.api(&layer).await;
    assert_eq!(seen, None, "{out:?}, anonymous: {anonymous}, then {kept:?}");
}

/// README: "Requests without a session get no cookie"; insert: "On an error nothing is changed".
#[tokio::test]
async fn a_first_change_that_fails_begins_no_session() {
    let (layer, cache, _) = site(sid());
    cache.shutdown(Duration::from_secs(1)).await;
    let visit = Browser::default()
        .visit(&layer, async |tokens: Tokens| {
            tokens.insert("state", token("s")).await
        })
        .await;
    assert!(matches!(visit.result, Err(Error::ShutDown)), "{visit:?}");
    assert!(visit.set_cookie.is_empty(), "{visit:?}");
    assert!(visit.cache_control.is_none(), "{visit:?}");
}

/// README: "A cookie that is broken, or two that differ, are removed, and counted (`Stats::invalid_keys`)". The key comes
/// from another extractor.
#[tokio::test]
async fn a_broken_cookie_is_counted_whatever_the_key_was() {
    let (_, cache, _) = site(sid());
    let layer = TokenCacheLayer::new(cache.clone(), key::header("x-session").or(sid()));
    let request = Request::post("/").header(COOKIE, format!("{SID}x"));
    let request = request.header("x-session", "s").body(()).unwrap();
    let response = layer.layer(service_fn(ok)).oneshot(request).await.unwrap();
    let removed = response.headers().contains_key(SET_COOKIE);
    assert_eq!((removed, cache.stats().invalid_keys), (true, 1));
}

/// insert: "Where the layer issues session ids, an anonymous request gets a session." README: "Loses nothing". A
/// middleware and a handler each keep something, within a layer within a layer.
#[tokio::test]
async fn a_request_within_a_layer_within_a_layer_has_one_session() {
    let (layer, ..) = site(sid());
    let inner = layer.layer(service_fn(async |request: Request<()>| {
        handle(&request).insert("inner", token("i")).await.unwrap();
        ok(request).await
    }));
    let middle = service_fn(|request: Request<()>| {
        let inner = inner.clone();
        async move {
            handle(&request).insert("outer", token("o")).await.unwrap();
            inner.oneshot(request).await
        }
    });
    let (_, lines) = answer_of(layer.layer(middle), "other=1").await;
    let mut browser = Browser::with(kept(&lines).unwrap());
    let keys = browser
        .visit(&layer, async |tokens: Tokens| tokens.keys().await)
        .await;
    assert_eq!(keys.result.unwrap().len(), 2, "{lines:?}");
}

/// FailurePolicy::Strict: "Changes are committed before the response head, and a commit that fails turns the response into
/// 503". The change is to a user's partition, and then the request signs in.
#[tokio::test]
async fn strict_holds_for_what_was_changed_before_a_sign_in() {
    let store = common::store::TestStore::default();
    let cache = cache(store.clone());
    let either = key::header("x-user").user().or(sid());
    let layer = TokenCacheLayer::new(cache, either);
    let layer = layer.failure_policy(tower_token_cache::FailurePolicy::Strict);
    let inner = service_fn(async |request: Request<()>| {
        let tokens = handle(&request);
        tokens.insert("api", token("t")).await.unwrap();
        let signed_in = tokens.sign_in(sign_in("ada")).await;
        assert!(signed_in.is_ok());
        store.set_refusing_commits(true);
        ok(request).await
    });
    let before = store.commits();
    let request = Request::post("/")
        .header("x-user", "service")
        .body(())
        .unwrap();
    let response = layer.layer(inner).oneshot(request).await.unwrap();
    let commits = store.commits() - before;
    assert!(
        response.status() == StatusCode::SERVICE_UNAVAILABLE || commits == 2,
        "{} after {commits} commits",
        response.status()
    );
}
