//! Sign-in, a page that needs the user's token, sign-out; every instance shares tokens in Redis.
//!
//! ```sh
//! export KEYS=$(openssl rand -base64 32) # the same for every instance, from a secret store
//! REDIS_URL=redis://127.0.0.1 cargo run -p axum_redis
//! ```
//!
//! `LISTEN` is the address of the server, and port 0 takes a free one.

use std::{env, io, time::Duration};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tower_token_cache::session::{Cookie, SignIn};
use tower_token_cache::{
    Durability, Error, Health, KeyRing, Lookup, RedisStore, TokenCache, TokenCacheLayer, TokenSet,
    Tokens,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let redis = env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1".into());
    let cache = TokenCache::builder(RedisStore::connect(redis.as_str()).await?)
        .key_ring(KeyRing::from_env("KEYS")?)
        .build()?;
    // Without TLS, so for the machine that it runs on.
    let cookie = Cookie::new("sid")?.insecure_for_localhost();
    let app = Router::new()
        .route("/sign-in", post(sign_in))
        .route("/me", get(me))
        .route("/sign-out", post(sign_out))
        .layer(TokenCacheLayer::new(cache.clone(), cookie))
        .route("/ready", get(ready))
        .with_state(cache.clone());

    let mut terminate = signal(SignalKind::terminate())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    let address = env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:3000".into());
    let listener = TcpListener::bind(address).await?;
    let url = format!("http://{}", listener.local_addr()?);
    println!("listening on {url}");
    println!("  curl -X POST -c cookies.txt {url}/sign-in");
    println!("  curl -b cookies.txt {url}/me");
    println!("  curl -X POST -b cookies.txt {url}/sign-out");
    axum::serve(listener, app)
        .with_graceful_shutdown(stop)
        .await?;

    let report = cache.shutdown(Duration::from_secs(5)).await;
    println!(
        "flushed {} changes, abandoned {} and {} sign-outs",
        report.flushed, report.abandoned, report.sign_outs_abandoned
    );
    Ok(())
}

/// Where your OAuth flow ends: the browser gets a new session, with the token endpoint's answer in it.
async fn sign_in(tokens: Tokens) -> Result<(StatusCode, &'static str), Error> {
    let sign_in = SignIn::new("graph", ask_token_endpoint());
    Ok(match tokens.sign_in(sign_in).await? {
        Durability::Stored => (StatusCode::OK, "signed in\n"),
        // Other instances do not know the session until then.
        Durability::Pending => (StatusCode::ACCEPTED, "signed in here, soon everywhere\n"),
    })
}

/// A page that calls an API with the user's token.
async fn me(tokens: Tokens) -> Result<impl IntoResponse, Error> {
    Ok(match tokens.get("graph").await? {
        Lookup::Hit(token) => {
            let kind = token.token_type().unwrap_or("Bearer");
            let level = tokens.last_read();
            (
                StatusCode::OK,
                format!("would call the API with a {kind} token from {level:?}\n"),
            )
        }
        Lookup::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "try again later\n".into()),
        _ => (StatusCode::UNAUTHORIZED, "sign in first\n".into()),
    })
}

async fn sign_out(tokens: Tokens) -> Result<(StatusCode, &'static str), Error> {
    Ok(match tokens.sign_out().await? {
        Durability::Stored => (StatusCode::OK, "signed out\n"),
        // Other instances go on with the session until then.
        Durability::Pending => (StatusCode::ACCEPTED, "signed out here, soon everywhere\n"),
    })
}

/// For the orchestrator: no requests come here before the store answers.
async fn ready(State(cache): State<TokenCache>) -> (StatusCode, Json<Health>) {
    let health = cache.check(Duration::from_millis(500)).await;
    let status = match health.is_ready() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(health))
}

/// Stands for the request to your provider; the `oauth2` crate's answers can be inserted as well.
fn ask_token_endpoint() -> TokenSet {
    let answer = r#"{"access_token": "a", "token_type": "Bearer", "expires_in": 3600}"#;
    serde_json::from_str(answer).expect("an answer as in RFC 6749")
}
