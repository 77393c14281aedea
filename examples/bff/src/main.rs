//! A back end for a front end: the page in the browser has a session's cookie, and no token. This server signs users
//! in, keeps their tokens, and calls an API with them. `bff_actix` is the same for actix-web.
//!
//! ```sh
//! export KEYS=$(openssl rand -base64 32) # which seal the tokens; the same for every instance
//! export ISSUER=https://… CLIENT_ID=… CLIENT_SECRET=… API=https://…
//! export REDIS_URL=redis://127.0.0.1 LISTEN=127.0.0.1:3000
//! BASE_URL=http://127.0.0.1:3000 cargo run -p bff
//! ```
//!
//! `BASE_URL` is this server, as browsers see it: the provider knows its `/callback` and `/backchannel-logout`.
//! `API` is its URL; which path of it the page asks for is in `page.js`.

use std::{env, io, time::Duration};

use axum::extract::{Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header, request::Parts};
use axum::middleware::{Next, from_fn, map_response};
use axum::response::{Html, IntoResponse, Json, Redirect, Response, Result};
use axum::routing::{Router, delete, get, post_service};
use serde_json::{Value, json};
use tower_token_cache::grant::{AuthorizationCode, Callback, Provider, RefreshToken};
use tower_token_cache::outgoing::{BearerLayer, Origins, Proxy};
use tower_token_cache::{Durability, Error, KeyRing, Lifetimes, RedisStore, TokenCache};
use tower_token_cache::{TokenCacheLayer, Tokens, logout::BackChannelLogout, session::Cookie};

const DAY: Duration = Duration::from_secs(24 * 3600);
const POLICY: &str = "default-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'";

#[derive(Clone)]
struct App {
    cache: TokenCache,
    login: AuthorizationCode,
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let var = |name| env::var(name).map_err(|_| format!("{name} is not set"));
    let (base, api, id) = (var("BASE_URL")?, var("API")?, var("CLIENT_ID")?);
    let provider = Provider::discover(var("ISSUER")?).await?;
    let client = provider.client(&*id).secret(var("CLIENT_SECRET")?);
    let client = client.scopes(["openid", "offline_access"]);
    let cache = TokenCache::builder(RedisStore::connect(var("REDIS_URL")?).await?)
        .key_ring(KeyRing::from_env("KEYS")?)
        .lifetimes(Lifetimes::new().sliding(DAY).absolute(14 * DAY))
        .build()?;
    let logout = BackChannelLogout::of(cache.clone(), &provider, id)?;
    let refresh = RefreshToken::new(client.clone());
    let bearer = BearerLayer::new("api", refresh, Origins::new([&api])?)?;
    let login = AuthorizationCode::new(client, format!("{base}/callback"))?;
    let app = App {
        cache: cache.clone(),
        login: login.param("prompt", "consent")?, // which offline access needs
    };
    let script = [(header::CONTENT_TYPE, "text/javascript")];
    let for_the_script = Router::new()
        .route(
            "/session",
            get(session).delete(async |tokens: Tokens| tokens.sign_out().await),
        )
        .route("/sessions", delete(sign_out_everywhere))
        // With the user's token in place of the cookie.
        .nest_service("/api", Proxy::new(&api, bearer)?)
        .layer(from_fn(demand_header));
    let routes = Router::new()
        .route("/", get(Html(include_str!("page.html"))))
        .route("/page.js", get((script, include_str!("page.js"))))
        .route("/login", get(begin))
        .route("/callback", get(end))
        .nest("/bff", for_the_script)
        .layer(TokenCacheLayer::new(cache.clone(), Cookie::new("sid")?))
        .route("/backchannel-logout", post_service(logout))
        .layer(map_response(secured))
        .with_state(app);
    let listener = tokio::net::TcpListener::bind(var("LISTEN")?).await?;
    println!("open {base}");
    let server = axum::serve(listener, routes);
    let stop = async { drop(tokio::signal::ctrl_c().await) };
    server.with_graceful_shutdown(stop).await?;
    cache.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

/// Against CSRF: browsers let no page of another site send this header, as nothing here allows it (CORS).
async fn demand_header(request: Request, next: Next) -> Result<Response, StatusCode> {
    match request.headers().contains_key("x-csrf") {
        true => Ok(next.run(request).await),
        false => Err(StatusCode::FORBIDDEN),
    }
}

/// The browser keeps no page: after a sign-out its back button shows nothing of the user. A page runs no script of others, and
/// is in no frame.
async fn secured(response: Response) -> impl IntoResponse {
    let policy = (header::CONTENT_SECURITY_POLICY, POLICY);
    ([(header::CACHE_CONTROL, "no-store"), policy], response)
}

async fn begin(app: State<App>, tokens: Tokens) -> Result<Redirect> {
    // For more, where the API has demanded it.
    let login = app.login.clone().demanded(&tokens).await?;
    Ok(Redirect::to(&login.begin(&tokens, "/").await?))
}

async fn end(app: State<App>, tokens: Tokens, head: Parts) -> Result<Redirect> {
    let callback = Query::<Callback>::try_from_uri(&head.uri)?.0;
    // Where a login fails, as in a tab that comes second, the page says who is signed in.
    let Ok(login) = app.login.end(&tokens, callback).await else {
        return Ok(Redirect::to("/?failed"));
    };
    let browser = head.headers.get(header::USER_AGENT);
    let browser = browser.map(HeaderValue::as_bytes).unwrap_or_default();
    let sign_in = login.sign_in("api").user(login.claims()?.subject());
    let sign_in = sign_in.label(String::from_utf8_lossy(browser));
    // A session of a new id, with nothing of the one before in this browser.
    let _ = tokens.sign_in(sign_in).await?;
    Ok(Redirect::to(&login.return_to))
}

/// Who is signed in, and where.
async fn session(app: State<App>, tokens: Tokens) -> Result<Json<Value>, Error> {
    let claims = tokens.claims().await?;
    let sessions = app.cache.sessions(claims.subject()).await?;
    let user = claims.subject();
    Ok(Json(json!({"user": user, "sessions": sessions})))
}

async fn sign_out_everywhere(app: State<App>, tokens: Tokens) -> Result<Durability, Error> {
    let claims = tokens.claims().await?;
    let everywhere = app.cache.sign_out_user(claims.subject()).await?;
    let _ = tokens.sign_out().await?; // removes the cookie
    Ok(everywhere)
}
