//! A layer within a layer, as where two routers are nested: the request has one session.

use std::convert::Infallible;

use bytes::Bytes;
use common::support::*;
use http::header::{COOKIE, SET_COOKIE};
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_token_cache::{
    CookieStore, Error, FailurePolicy, InvalidKey, KeyExtractor, KeyRing, MissingKey, PartitionKey,
    TokenCacheLayer, Tokens, key,
};

use super::browser::*;

type Answer = Result<Response<Empty<Bytes>>, Infallible>;

async fn ok(_: Request<()>) -> Answer {
    Ok(Response::new(Empty::new()))
}

async fn signs_in(request: Request<()>) -> Answer {
    assert_stored(handle(&request).sign_in(sign_in("ada")).await.unwrap());
    ok(request).await
}

/// The status, and the lines that set cookies.
async fn answer_of<S, B>(service: S, cookie: &str) -> (StatusCode, Vec<String>)
where
    S: Service<Request<()>, Response = Response<B>, Error = Infallible>,
{
    let request = Request::post("/").header(COOKIE, cookie).body(()).unwrap();
    let response = service.oneshot(request).await.unwrap();
    let lines = response.headers().get_all(SET_COOKIE).iter();
    let lines = lines.map(|line| line.to_str().unwrap().to_owned());
    (response.status(), lines.collect())
}

#[tokio::test]
async fn a_user_whose_cookie_is_broken_can_sign_in() {
    let cache = cache(TestStore::default());
    let layer = issuing(&cache);
    let nested = layer.layer(layer.layer(service_fn(signs_in)));
    let (_, lines) = answer_of(nested, &format!("{SID}x")).await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    let pair = lines[0].split(';').next().unwrap();
    let seen = Browser::with(pair).api(&layer).await;
    assert_eq!(seen.as_deref(), Some("ada"));
    assert_eq!(cache.stats().invalid_keys, 1);
}

#[tokio::test]
async fn a_middleware_and_a_handler_begin_one_session() {
    let layer = issuing(&cache(TestStore::default()));
    let inner = layer.clone().missing_key(MissingKey::Reject);
    let inner = inner.layer(service_fn(async |request: Request<()>| {
        let google = handle(&request);
        google.insert("inner", token("i")).await.unwrap();
        ok(request).await
    }));
    let middle = service_fn(|mut request: Request<()>| {
        let inner = inner.clone();
        async move {
            let tokens = handle(&request);
            tokens.insert("outer", token("o")).await.unwrap();
            // The inner layer's handle is that of the default client, as ever.
            let google = tokens.client("google").unwrap();
            request.extensions_mut().insert(google);
            inner.oneshot(request).await
        }
    });
    let (status, lines) = answer_of(layer.layer(middle), "other=1").await;
    assert_eq!((status, lines.len()), (StatusCode::OK, 1), "{lines:?}");
    let mut browser = Browser::with(lines[0].split(';').next().unwrap());
    let keys = browser
        .visit(&layer, async |tokens: Tokens| tokens.keys().await)
        .await;
    assert_eq!(keys.result.unwrap().len(), 2);
}

#[tokio::test]
async fn the_inner_layer_refuses_what_it_is_told_to() {
    let layer = issuing(&cache(TestStore::default()));
    let demanding = layer.clone().missing_key(MissingKey::Reject);
    let nested = layer.layer(demanding.layer(service_fn(ok)));
    let (status, lines) = answer_of(nested, "other=1").await;
    assert_eq!((status, lines.len()), (StatusCode::UNAUTHORIZED, 0));
    let rejecting = layer.clone().invalid_key(InvalidKey::Reject);
    let nested = layer.layer(rejecting.layer(service_fn(ok)));
    let (status, lines) = answer_of(nested, &format!("{SID}x")).await;
    assert_eq!((status, lines.len()), (StatusCode::BAD_REQUEST, 1));
}

#[tokio::test]
async fn the_inner_layers_policy_holds() {
    let store = TestStore::default();
    let layer = issuing(&cache(store.clone()));
    let strict = layer.clone().failure_policy(FailurePolicy::Strict);
    let inner = service_fn(async |request: Request<()>| {
        handle(&request).insert("api", token("t")).await.unwrap();
        store.set_refusing_commits(true);
        ok(request).await
    });
    let (status, _) = answer_of(layer.layer(strict.layer(inner)), "other=1").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}

/// Another key is another handle: whose tokens are meant is up to the layer that is nearest.
#[tokio::test]
async fn of_two_keys_the_inner_layers_is_the_handlers() {
    let cache = cache(TestStore::default());
    let ada = cache.tokens(PartitionKey::user("ada").unwrap());
    ada.insert("api", token("of the user")).await.unwrap();
    let by_user = TokenCacheLayer::new(cache.clone(), key::header("x-user").user().or(sid()));
    let inner = service_fn(async |request: Request<()>| {
        let seen = api(&handle(&request)).await;
        assert_eq!(seen.as_deref(), Some("of the user"));
        ok(request).await
    });
    let nested = issuing(&cache).layer(by_user.layer(inner));
    let request = Request::post("/").header("x-user", "ada").body(()).unwrap();
    nested.oneshot(request).await.unwrap();
}

#[tokio::test]
async fn sessions_in_cookies() {
    let store = CookieStore::builder(KeyRing::generate().unwrap());
    let layer = store.build().unwrap().layer().unwrap();
    let nested = layer.layer(layer.layer(service_fn(signs_in)));
    // Cookies that are of no more use.
    let (_, lines) = answer_of(nested, "__Host-tokens.0=1.broken").await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    let mut browser = Browser::with(lines[0].split(';').next().unwrap());
    let seen = browser
        .visit(&layer, async |tokens: Tokens| {
            Ok::<_, Error>(api(&tokens).await)
        })
        .await;
    assert_eq!(seen.result.unwrap().as_deref(), Some("ada"));
}
