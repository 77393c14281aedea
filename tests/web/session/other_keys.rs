//! Behind another extractor: the key of the request, and the session that its cookie names.

use std::convert::Infallible;

use bytes::Bytes;
use common::support::*;
use http::header::{COOKIE, SET_COOKIE};
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use tower::{Layer, ServiceExt, service_fn};
use tower_token_cache::{
    FailurePolicy, KeyExtractor, PartitionKey, TokenCache, TokenCacheLayer, Tokens, key,
};

use super::browser::*;

fn either(cache: &TokenCache) -> TokenCacheLayer {
    TokenCacheLayer::new(cache.clone(), key::header("x-user").user().or(sid()))
}

/// A request of the user `service`, with this cookie.
async fn send(
    layer: &TokenCacheLayer,
    cookie: &str,
    handler: impl AsyncFnOnce(Tokens),
) -> Response<()> {
    let mut handler = Some(handler);
    let inner = service_fn(|request: Request<()>| {
        let handler = handler.take().expect("one request");
        async move {
            handler(handle(&request)).await;
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let request = Request::post("/").header(COOKIE, cookie);
    let request = request.header("x-user", "service").body(()).unwrap();
    layer.layer(inner).oneshot(request).await.unwrap().map(drop)
}

#[tokio::test]
async fn the_session_of_the_cookie_ends_with_the_cookie() {
    let cache = cache(TestStore::default());
    let layer = either(&cache);
    for signs_in in [true, false] {
        let mut browser = Browser::default();
        browser.sign_in(&layer, "ada").await;
        let mut copied = browser.clone();
        let response = send(&layer, &browser.cookie.unwrap(), async |tokens| {
            assert_stored(match signs_in {
                true => tokens.sign_in(sign_in("bob")).await.unwrap(),
                false => tokens.sign_out().await.unwrap(),
            });
        })
        .await;
        assert!(response.headers().contains_key(SET_COOKIE));
        assert_eq!(copied.api(&layer).await, None, "sign-in: {signs_in}");
    }
}

#[tokio::test]
async fn strict_holds_for_what_was_changed_before_a_sign_in() {
    let store = TestStore::default();
    let cache = cache(store.clone());
    let layer = either(&cache).failure_policy(FailurePolicy::Strict);
    let response = send(&layer, "other=1", async |tokens| {
        tokens.insert("api", token("t")).await.unwrap();
        assert_stored(tokens.sign_in(sign_in("ada")).await.unwrap());
    })
    .await;
    assert_eq!(response.status(), StatusCode::OK);
    let service = cache.tokens(PartitionKey::user("service").unwrap());
    assert!(service.reload().await.unwrap());
    assert_eq!(access(&service, "api").await.as_deref(), Some("t"));
    let response = send(&layer, "other=1", async |tokens| {
        tokens.insert("api", token("t")).await.unwrap();
        assert_stored(tokens.sign_in(sign_in("ada")).await.unwrap());
        store.set_refusing_commits(true);
    })
    .await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_broken_cookie_is_counted_and_removed() {
    let cache = cache(TestStore::default());
    let response = send(&either(&cache), &format!("{SID}x"), async |_| ()).await;
    let removed = response.headers().contains_key(SET_COOKIE);
    assert_eq!((removed, cache.stats().invalid_keys), (true, 1));
}

/// A cookie has ids of this layer; what else a session is moved to stays on the server.
#[tokio::test]
async fn a_session_that_is_moved_to_a_user_sets_no_cookie() {
    let layer = issuing(&cache(TestStore::default()));
    let visit = Browser::default()
        .visit(&layer, async |tokens: Tokens| {
            tokens.insert("api", token("t")).await?;
            let ada = PartitionKey::user("ada; Domain=example.com")?;
            tokens.move_to(ada).await.map(drop)
        })
        .await;
    assert!(visit.result.is_ok(), "{visit:?}");
    assert!(visit.set_cookie.is_empty(), "{visit:?}");
}
