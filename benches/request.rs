//! What one request costs in process; it needs no server. `benches/peers` has the comparison with
//! other crates, the bars, and what is deferred.

use std::hint::black_box;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use axum::http::header::COOKIE;
use axum::routing::{get, post};
use criterion::{Criterion, criterion_group, criterion_main};
use tower::Service;
use tower::layer::util::Identity;
use tower_token_cache::{
    Error, L1, MemoryStore, PartitionKey, Token, TokenCache, TokenCacheLayer, TokenSet, Tokens, key,
};

const USERS: usize = 10_000;

fn session(user: usize) -> String {
    format!("session-{user:014}")
}

fn issue() -> TokenSet {
    TokenSet::from(Token::new("x".repeat(4096)).with_expires_in(Duration::from_secs(3600)))
        .with_refresh_token("x".repeat(2048))
        .with_id_token("x".repeat(1024))
}

fn app() -> Router {
    async fn read(tokens: Tokens) -> Result<String, Error> {
        let token = tokens.get("graph").await?.hit();
        Ok(token
            .map_or(0, |token| token.access_token().len())
            .to_string())
    }
    async fn insert(tokens: Tokens) -> Result<&'static str, Error> {
        tokens.insert("graph", issue()).await.map(|()| "ok")
    }
    Router::new()
        .route("/untouched", get(async || "ok"))
        .route("/read", get(read))
        .route("/insert", post(insert))
}

fn requests(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let cache = runtime.block_on(async {
        let l1 = L1::new().revalidate_every(None);
        let cache = TokenCache::builder(MemoryStore::new())
            .l1(l1)
            .build()
            .expect("defaults");
        for user in 0..USERS {
            let key = PartitionKey::session(session(user)).expect("a session id");
            cache
                .tokens(key)
                .insert("graph", issue())
                .await
                .expect("room");
        }
        cache
    });
    let layer = TokenCacheLayer::new(cache, key::cookie("sid"));
    let cases = [
        ("no layer", "/untouched", app()),
        ("no-op layer", "/untouched", app().layer(Identity::new())),
        ("ours, untouched", "/untouched", app().layer(layer.clone())),
        ("ours, L1 hit", "/read", app().layer(layer.clone())),
        ("ours, insert", "/insert", app().layer(layer)),
    ];
    let mut group = criterion.benchmark_group("request");
    for (name, path, mut router) in cases {
        let method = if path == "/insert" { "POST" } else { "GET" };
        let mut user = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                user = (user + 1) % USERS;
                let request = Request::builder()
                    .method(method)
                    .uri(path)
                    .header(COOKIE, format!("sid={}", session(user)))
                    .body(Body::empty())
                    .expect("a request");
                runtime.block_on(async {
                    let response = router.call(request).await.expect("infallible");
                    assert!(response.status().is_success());
                    to_bytes(response.into_body(), 1024).await.expect("a body")
                })
            });
        });
    }
    group.finish();

    let moka = moka::sync::Cache::new(2 * USERS as u64);
    for user in 0..USERS {
        moka.insert(session(user), user);
    }
    let mut user = 0;
    criterion.bench_function("moka get", |bencher| {
        bencher.iter(|| {
            user = (user + 1) % USERS;
            black_box(moka.get(&session(user)))
        });
    });
}

criterion_group!(benches, requests);
criterion_main!(benches);
