//! On a real server, with clients that behave badly.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower_http::timeout::TimeoutLayer;
use tower_token_cache::{TokenCache, TokenCacheLayer, Tokens, WriteMode, key};

use common::support::*;

async fn rotate(tokens: &Tokens) {
    let set = tower_token_cache::TokenSet::from(token("new")).with_refresh_token("rotated");
    tokens.insert("graph", set).await.unwrap();
}

async fn bad_gateway(tokens: Tokens) -> StatusCode {
    rotate(&tokens).await;
    StatusCode::BAD_GATEWAY
}

async fn panicking(tokens: Tokens) {
    rotate(&tokens).await;
    panic!("the handler's own");
}

async fn stuck(tokens: Tokens) {
    rotate(&tokens).await;
    std::future::pending().await
}

async fn streaming(tokens: Tokens) -> Response {
    let stream = futures_util::stream::once(async move {
        rotate(&tokens).await;
        Ok::<_, Infallible>(Bytes::from_static(b"done"))
    });
    Body::from_stream(stream).into_response()
}

async fn spawning(tokens: Tokens) {
    tokio::spawn(async move {
        tokio::task::yield_now().await;
        rotate(&tokens).await;
    });
}

/// Serves the routes over TCP; the address.
async fn serve(cache: &TokenCache) -> std::net::SocketAddr {
    let timed = Router::new()
        .route("/timeout", get(stuck))
        .layer(TokenCacheLayer::new(cache.clone(), key::cookie("sid")))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::REQUEST_TIMEOUT,
            // Enough for a first connection and a load, so that there is a change when it fires.
            Duration::from_millis(500) + 20 * common::far::latency(),
        ));
    let routes = Router::new()
        .route("/bad-gateway", get(bad_gateway))
        .route("/panicking", get(panicking))
        .route("/stuck", get(stuck))
        .route("/streaming", get(streaming))
        .route("/spawning", get(spawning))
        .layer(TokenCacheLayer::new(cache.clone(), key::cookie("sid")))
        .merge(timed);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}

async fn connect(address: std::net::SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: x\r\ncookie: sid=s\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Sends one request, behaves as `client` says, and returns what another instance finds then.
async fn found_after(
    path: &str,
    client: impl AsyncFnOnce(TcpStream, &TokenCache),
) -> [Option<String>; 2] {
    let server = RedisServer::start();
    let cache = redis_cache(&server).await;
    let address = serve(&cache).await;
    client(connect(address, path).await, &cache).await;
    eventually("flushed", async || cache.stats().flushed_changes == 2).await;
    let tokens = redis_cache(&server).await.tokens(session("s"));
    let refresh = tokens.refresh_token().await.unwrap().hit();
    [
        access(&tokens, "graph").await,
        refresh.map(|secret| secret.expose().to_owned()),
    ]
}

fn rotated() -> [Option<String>; 2] {
    [Some("new".into()), Some("rotated".into())]
}

async fn read_all(mut stream: TcpStream, _: &TokenCache) {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
}

#[tokio::test]
async fn rotated_then_502() {
    assert_eq!(found_after("/bad-gateway", read_all).await, rotated());
}

#[tokio::test]
async fn the_handler_panics() {
    assert_eq!(found_after("/panicking", read_all).await, rotated());
}

#[tokio::test]
async fn the_client_disconnects() {
    let disconnect = async |stream: TcpStream, cache: &TokenCache| {
        eventually("the handler has changed the token", async || {
            cache.stats().pending_changes == 2
        })
        .await;
        drop(stream);
    };
    assert_eq!(found_after("/stuck", disconnect).await, rotated());
}

#[tokio::test]
async fn a_timeout_layer_fires() {
    assert_eq!(found_after("/timeout", read_all).await, rotated());
}

#[tokio::test]
async fn changed_while_the_body_streams() {
    assert_eq!(found_after("/streaming", read_all).await, rotated());
}

#[tokio::test]
async fn changed_by_a_task_that_outlives_the_response() {
    assert_eq!(found_after("/spawning", read_all).await, rotated());
}

#[tokio::test]
async fn a_reader_that_goes_away_strands_no_other() {
    let store = seeded().await;
    let cache = cache(store.clone());
    let _ = access(&cache.tokens(session("other")), "graph").await;
    let reads = cache.stats().l2_reads + 1;
    store.hang();
    let reader = |tokens: Tokens| tokio::spawn(async move { access(&tokens, "graph").await });
    let first = reader(cache.tokens(session("s")));
    eventually("the first reads", async || cache.stats().l2_reads == reads).await;
    let second = reader(cache.tokens(session("s")));
    eventually("the second waits", async || cache.stats().l1_misses == 3).await;
    first.abort();
    store.wake();
    assert_eq!(second.await.unwrap().as_deref(), Some("t"));
    assert_eq!(cache.stats().l2_reads, reads);
}

#[tokio::test]
async fn removals_and_before_response_are_in_redis_when_the_head_arrives() {
    let server = RedisServer::start();
    let cache = redis_cache(&server).await;
    let before = async |tokens: Tokens| {
        tokens.set_write_mode(WriteMode::BeforeResponse);
        rotate(&tokens).await;
    };
    let remove = async |tokens: Tokens| tokens.remove("graph").await;
    let sign_out = async |tokens: Tokens| tokens.sign_out().await.map(drop);
    let routes = Router::new()
        .route("/before", get(before))
        .route("/remove", get(remove))
        .route("/sign-out", get(sign_out));
    let app = app(&cache, routes);
    let in_redis = async || stored(redis_store(&server).await, "s", "graph").await;

    // The bodies are not read and the responses not dropped: only the head counts.
    let _before = send(&app, "s", "/before").await;
    assert_eq!(in_redis().await.as_deref(), Some("new"));
    let _removed = send(&app, "s", "/remove").await;
    assert_eq!(in_redis().await, None);
    let _again = send(&app, "s", "/before").await;
    let _signed_out = send(&app, "s", "/sign-out").await;
    assert_eq!(in_redis().await, None);
}
