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
use axum::http::{HeaderName, StatusCode, header::SET_COOKIE};
use axum::response::{IntoResponse, Redirect, Result};
use axum::routing::{Router, get, post};
use serde::Deserialize;
use tower_token_cache::{
    Durability, Error, KeyRing, PartitionKey, RedisStore, TokenCache, TokenCacheLayer, Tokens, key,
};

use crate::provider::Provider;

/// Browsers take it over TLS only, and for this host only; or from the machine they run on.
const COOKIE: &str = "__Host-sid";

type App = State<(TokenCache, Arc<Provider>)>;
type Page = ([(HeaderName, String); 1], Redirect);

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
        .layer(TokenCacheLayer::new(cache.clone(), key::cookie(COOKIE)))
        .with_state((cache.clone(), Arc::new(provider)));
    let listener = tokio::net::TcpListener::bind(or("LISTEN", "127.0.0.1:3000")).await?;
    println!("sign in at {base}/login");
    let server = axum::serve(listener, routes);
    let stop = async { drop(tokio::signal::ctrl_c().await) };
    server.with_graceful_shutdown(stop).await?;
    cache.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

/// Sends the browser away. What its answer has to match waits in a session of its own.
async fn login(State((cache, provider)): App) -> Result<Page> {
    let (session, state) = (random(), random());
    let (url, begun) = provider.authorize(&state);
    let tokens = cache.tokens(PartitionKey::session(&session).map_err(Error::from)?);
    tokens.insert(format!("sign-in {state}"), begun).await?;
    // While the store is away only this instance knows: the worst is to begin again.
    let _ = tokens.commit().await?;
    Ok((cookie(&session, 600), Redirect::to(url.as_str())))
}

#[derive(Deserialize)]
struct Back {
    code: String,
    state: String,
}

/// The browser is back: in the session in which it left, once, and in time.
async fn callback(app: App, tokens: Tokens, Query(back): Query<Back>) -> Result<Page> {
    let State((_, provider)) = app;
    let key = format!("sign-in {}", back.state);
    let begun = tokens.get(&key).await?.hit();
    let begun = begun.ok_or((StatusCode::BAD_REQUEST, "sign-in did not begin here"))?;
    let set = provider.redeem(&back.code, &begun).await;
    let set = set.map_err(|_| StatusCode::BAD_GATEWAY)?;
    // An attacker may know the id of the session until now. It must not become the user's.
    let session = random();
    let user = PartitionKey::session(&session).map_err(Error::from)?;
    let tokens = tokens.move_to(user).await?;
    tokens.remove(key).await?;
    tokens.insert("api", set).await?;
    // Now, because the browser asks for the next page at once, perhaps another instance.
    let _ = tokens.commit().await?;
    Ok((cookie(&session, 14 * 24 * 3600), Redirect::to("/api")))
}

/// Calls an API with the user's token, which is refreshed when it has to be.
async fn api(State((_, provider)): App, tokens: Tokens) -> Result<impl IntoResponse> {
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
    Ok((status, cookie("", 0), text))
}

fn cookie(session: &str, age: u32) -> [(HeaderName, String); 1] {
    let rules = format!("Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={age}");
    [(SET_COOKIE, format!("{COOKIE}={session}; {rules}"))]
}

fn random() -> String {
    oauth2::CsrfToken::new_random_len(32).into_secret()
}
