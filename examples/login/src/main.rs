//! A back end for a front end: signs users in at any OpenID provider, keeps their tokens on the
//! server, and calls an API with them. All that a browser gets is a session id.
//!
//! ```sh
//! export KEYS=$(openssl rand -base64 32) # which seal the tokens; the same for every instance
//! ISSUER=https://… CLIENT_ID=… CLIENT_SECRET=… cargo run -p login
//! ```
//!
//! Also `BASE_URL`, as browsers see it (the provider knows its `/callback`), `LISTEN`, `REDIS_URL`.

mod provider;

use std::{env, io, sync::Arc, time::Duration};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Result};
use axum::routing::{Router, get, post};
use serde::Deserialize;
use tower_token_cache::session::{Cookie, SignIn};
use tower_token_cache::{Durability, KeyRing, RedisStore, TokenCache, TokenCacheLayer, Tokens};

use crate::provider::Provider;

type App = State<Arc<Provider>>;

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let required = |name| env::var(name).map_err(|_| format!("{name} is not set"));
    let or = |name, default: &str| env::var(name).unwrap_or_else(|_| default.into());
    let client = (required("CLIENT_ID")?, required("CLIENT_SECRET")?);
    let (issuer, base) = (required("ISSUER")?, or("BASE_URL", "http://127.0.0.1:3000"));
    let redis = RedisStore::connect(or("REDIS_URL", "redis://127.0.0.1")).await?;
    let ring = KeyRing::from_env("KEYS")?;
    let cache = TokenCache::builder(redis).key_ring(ring).build()?;
    let provider = Provider::discover(issuer, client, format!("{base}/callback")).await?;
    let routes = Router::new()
        .route("/login", get(login))
        .route("/callback", get(callback))
        .route("/api", get(api))
        .route("/logout", post(logout))
        .layer(TokenCacheLayer::new(cache.clone(), Cookie::new("sid")?))
        .with_state(Arc::new(provider));
    let listener = tokio::net::TcpListener::bind(or("LISTEN", "127.0.0.1:3000")).await?;
    println!("sign in at {base}/login");
    let server = axum::serve(listener, routes);
    let stop = async { drop(tokio::signal::ctrl_c().await) };
    server.with_graceful_shutdown(stop).await?;
    cache.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

/// Sends the browser away. What its answer has to match waits in its session.
async fn login(State(provider): App, tokens: Tokens) -> Result<Redirect> {
    let state = oauth2::CsrfToken::new_random_len(32).into_secret();
    let (url, begun) = provider.authorize(&state);
    tokens.insert(format!("sign-in {state}"), begun).await?;
    // While the store is away only this instance knows: the worst is to begin again.
    let _ = tokens.commit().await?;
    Ok(Redirect::to(url.as_str()))
}

#[derive(Deserialize)]
struct Back {
    code: String,
    state: String,
}

/// The browser is back: in the session in which it left, once, and in time.
async fn callback(State(provider): App, tokens: Tokens, back: Query<Back>) -> Result<Redirect> {
    let begun = tokens.get(format!("sign-in {}", back.state)).await?.hit();
    let begun = begun.ok_or((StatusCode::BAD_REQUEST, "sign-in did not begin here"))?;
    let redeemed = provider.redeem(&back.code, &begun).await;
    let (set, user) = redeemed.map_err(|_| StatusCode::BAD_GATEWAY)?;
    // A session of a new id: an attacker may know that of the session until now.
    let _ = tokens.sign_in(SignIn::new("api", set).user(user)).await?;
    Ok(Redirect::to("/api"))
}

/// Calls an API with the user's token, which is refreshed when it has to be.
async fn api(State(provider): App, tokens: Tokens) -> Result<impl IntoResponse> {
    let acquisition = tokens.acquire("api")?;
    let acquired = acquisition.with_source(provider.refresh.clone()).await?;
    let answer = provider.userinfo(&acquired.token).await;
    let answer = answer.map_err(|_| StatusCode::BAD_GATEWAY)?;
    Ok((answer.status(), answer.bytes().await.unwrap_or_default()))
}

async fn logout(tokens: Tokens) -> Result<impl IntoResponse> {
    let (status, text) = match tokens.sign_out().await? {
        Durability::Stored => (StatusCode::OK, "signed out\n"),
        // Other instances go on with the session until then.
        Durability::Pending => (StatusCode::ACCEPTED, "signed out here, soon everywhere\n"),
    };
    Ok((status, text))
}
