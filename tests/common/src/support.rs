//! An application as users write it, and a client for it.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tower::ServiceExt;
use tower_token_cache::{
    Builder, Lookup, PartitionKey, Token, TokenCache, TokenCacheLayer, TokenStore, Tokens, key,
};

pub use super::redis::RedisServer;
pub use super::store::TestStore;
pub use super::{assert_stored, eventually};

pub fn cache(store: impl TokenStore) -> TokenCache {
    builder(store).build().expect("valid settings")
}

/// On the test's own runtime, if there is one: time may be paused there, and one thread gives an order.
pub fn builder(store: impl TokenStore) -> Builder {
    let builder = TokenCache::builder(store);
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => builder.runtime(runtime),
        Err(_) => builder,
    }
}

/// Waits until the cache hears what its store tells.
pub async fn hears(cache: &TokenCache) {
    eventually("the feed is alive", async || {
        cache.stats().feed_alive == Some(true)
    })
    .await;
}

pub async fn redis_cache(server: &RedisServer) -> TokenCache {
    cache(redis_store(server).await)
}

pub async fn redis_store(server: &RedisServer) -> tower_token_cache::RedisStore {
    let store = tower_token_cache::RedisStore::connect(server.url()).await;
    store.expect("a valid URL")
}

pub fn session(id: &str) -> PartitionKey {
    PartitionKey::session(id).expect("a valid id")
}

pub fn token(text: &str) -> Token {
    Token::new(text).with_expires_in(Duration::from_secs(3600))
}

/// The router with the layer, by the cookie `sid`.
pub fn app(cache: &TokenCache, routes: Router) -> Router {
    routes.layer(TokenCacheLayer::new(cache.clone(), key::cookie("sid")))
}

pub fn request(sid: &str, path: &str) -> Request<Body> {
    let request = Request::get(path).header("cookie", format!("sid={sid}"));
    request.body(Body::empty()).expect("a request")
}

pub async fn send(app: &Router, sid: &str, path: &str) -> Response<Body> {
    app.clone()
        .oneshot(request(sid, path))
        .await
        .expect("infallible")
}

/// Sends a request and reads the response to its end.
pub async fn fetch(app: &Router, sid: &str, path: &str) -> (StatusCode, String) {
    let response = send(app, sid, path).await;
    let status = response.status();
    let body = response
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

/// What a handle finds under a key.
pub async fn access(tokens: &Tokens, key: &str) -> Option<String> {
    let lookup: Lookup = tokens.get(key).await.expect("readable");
    lookup.hit().map(|token| token.access_token().to_owned())
}

/// What an instance that has nothing in memory finds in the store.
pub async fn stored(store: impl TokenStore, sid: &str, key: &str) -> Option<String> {
    access(&cache(store).tokens(session(sid)), key).await
}

/// A store that holds the token `t` under `graph` of session `s`, and has no other work.
pub async fn seeded() -> TestStore {
    let store = TestStore::default();
    let tokens = cache(store.clone()).tokens(session("s"));
    tokens.insert("graph", token("t")).await.expect("kept");
    assert_stored(tokens.commit().await.expect("stored"));
    store
}

pub async fn drained(cache: &TokenCache) {
    eventually("the queue drains", async || {
        cache.stats().pending_changes == 0
    })
    .await;
}
