//! Signs users in at any OpenID provider, keeps their tokens on the server, and calls an API with
//! them. All that a browser gets is a session id. `bff` has a page, and what protects it, too.
//!
//! ```sh
//! export KEYS=$(openssl rand -base64 32) # which seal the tokens; the same for every instance
//! ISSUER=https://… CLIENT_ID=… CLIENT_SECRET=… cargo run -p login
//! ```
//!
//! Also `BASE_URL`, as browsers see it (the provider knows its `/callback`), `LISTEN`, `REDIS_URL`.
//! Why a login has failed is in the log once `fmt()` has `.with_max_level(LevelFilter::DEBUG)`.

use std::{env, io, sync::Arc, time::Duration};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Result};
use axum::routing::{Router, get, post};
use tower_token_cache::grant::{AuthorizationCode, Callback, Provider, RefreshToken};
use tower_token_cache::session::Cookie;
use tower_token_cache::{Durability, KeyRing, RedisStore, TokenCache, TokenCacheLayer, Tokens};

const TIMEOUT: Duration = Duration::from_secs(10);

/// What the handlers need.
#[derive(Clone)]
struct App {
    login: AuthorizationCode,
    /// Asks with the user's refresh token.
    refresh: Arc<RefreshToken>,
    /// The API of this example: what the provider says of the user.
    userinfo: String,
    http: reqwest::Client,
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let required = |name| env::var(name).map_err(|_| format!("{name} is not set"));
    let or = |name, default: &str| env::var(name).unwrap_or_else(|_| default.into());
    let base = or("BASE_URL", "http://127.0.0.1:3000");
    let redis = RedisStore::connect(or("REDIS_URL", "redis://127.0.0.1")).await?;
    let ring = KeyRing::from_env("KEYS")?;
    let cache = TokenCache::builder(redis).key_ring(ring).build()?;
    let provider = Provider::discover(required("ISSUER")?).await?;
    let (id, secret) = (required("CLIENT_ID")?, required("CLIENT_SECRET")?);
    let client = provider
        .client(id)
        .secret(secret)
        .scopes(["openid", "offline_access"]);
    let login = AuthorizationCode::new(client.clone(), format!("{base}/callback"))?;
    let app = App {
        login: login.param("prompt", "consent")?, // which offline access needs
        refresh: Arc::new(RefreshToken::new(client)),
        userinfo: provider.userinfo_endpoint().ok_or("no userinfo")?.into(),
        http: reqwest::Client::builder().timeout(TIMEOUT).build()?,
    };
    let routes = Router::new()
        .route("/login", get(begin))
        .route("/callback", get(end))
        .route("/api", get(api))
        .route("/logout", post(logout))
        .layer(TokenCacheLayer::new(cache.clone(), Cookie::new("sid")?))
        .with_state(app);
    let listener = tokio::net::TcpListener::bind(or("LISTEN", "127.0.0.1:3000")).await?;
    println!("sign in at {base}/login");
    let server = axum::serve(listener, routes);
    let stop = async { drop(tokio::signal::ctrl_c().await) };
    server.with_graceful_shutdown(stop).await?;
    cache.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

/// Sends the browser to the provider, from where it comes back to `end`.
async fn begin(State(app): State<App>, tokens: Tokens) -> Result<Redirect> {
    Ok(Redirect::to(&app.login.begin(&tokens, "/api").await?))
}

/// The browser is back: in the session in which it left, once, and in time.
async fn end(State(app): State<App>, tokens: Tokens, query: Query<Callback>) -> Result<Redirect> {
    let login = app.login.end(&tokens, query.0).await?;
    // A session of a new id: an attacker may know that of the session until now.
    let _ = tokens.sign_in(login.sign_in("api")).await?;
    Ok(Redirect::to(&login.return_to))
}

/// Calls an API with the user's token, which is refreshed when it has to be.
async fn api(State(app): State<App>, tokens: Tokens) -> Result<impl IntoResponse> {
    let acquired = tokens.acquire("api")?.with_source(app.refresh).await?;
    let request = app
        .http
        .get(app.userinfo)
        .bearer_auth(acquired.token.access_token());
    let answer = request.send().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
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
