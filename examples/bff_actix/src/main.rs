//! A back end for a front end: the page in the browser has a session's cookie, and no token. This server signs users
//! in, keeps their tokens, and calls an API with them. `bff` is the same for axum.
//!
//! ```sh
//! export KEYS=$(openssl rand -base64 32) # which seal the tokens; the same for every instance
//! export ISSUER=https://… CLIENT_ID=… CLIENT_SECRET=… API=https://…
//! export REDIS_URL=redis://127.0.0.1 LISTEN=127.0.0.1:3000
//! BASE_URL=http://127.0.0.1:3000 cargo run -p bff_actix
//! ```
//!
//! `BASE_URL` is this server, as browsers see it: the provider knows its `/callback` and `/backchannel-logout`.
//! `API` is its URL; which path of it the page asks for is in `page.js`.

use std::{env, io, time::Duration};

use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, USER_AGENT,
};
use actix_web::middleware::{DefaultHeaders, Next, from_fn};
use actix_web::web::{self, Data, Html, Json, Query, Redirect, delete, get, post};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, Responder, Result, body::BoxBody};
use serde_json::{Value, json};
use tower_token_cache::grant::{AuthorizationCode, Callback, Provider, RefreshToken};
use tower_token_cache::outgoing::{BearerLayer, Origins, Proxy};
use tower_token_cache::{Durability, KeyRing, Lifetimes, RedisStore, TokenCache};
use tower_token_cache::{TokenCacheLayer, Tokens, logout::BackChannelLogout, session::Cookie};

const DAY: Duration = Duration::from_secs(24 * 3600);
const POLICY: &str = "default-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'";

struct Bff {
    cache: TokenCache,
    login: AuthorizationCode,
}

#[actix_web::main]
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
    let proxy = Proxy::new(api, bearer)?;
    let login = AuthorizationCode::new(client, format!("{base}/callback"))?;
    let bff = Data::new(Bff {
        cache: cache.clone(),
        login: login.param("prompt", "consent")?, // which offline access needs
    });
    let layer = TokenCacheLayer::new(cache.clone(), Cookie::new("sid")?);
    let server = HttpServer::new(move || {
        let for_the_script = web::scope("/bff")
            .route("/session", get().to(session))
            .route("/session", delete().to(sign_out))
            .route("/sessions", delete().to(sign_out_everywhere))
            // With the user's token in place of the cookie.
            .route("/api/{path:.*}", web::to(proxy.clone()))
            .wrap(from_fn(demand_header));
        // The browser keeps no page: after a sign-out its back button shows nothing of the user. A page runs no script of
        // others, and is in no frame.
        let secured = DefaultHeaders::new()
            .add((CACHE_CONTROL, "no-store"))
            .add((CONTENT_SECURITY_POLICY, POLICY));
        App::new()
            .app_data(bff.clone())
            .wrap(layer.clone())
            .wrap(secured)
            .route("/", get().to(async || Html::new(include_str!("page.html"))))
            .route("/page.js", get().to(script))
            .route("/login", get().to(begin))
            .route("/callback", get().to(end))
            .route("/backchannel-logout", post().to(logout.clone()))
            .service(for_the_script)
    });
    let server = server.bind(var("LISTEN")?)?;
    println!("open {base}");
    server.run().await?;
    cache.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

async fn script() -> impl Responder {
    include_str!("page.js")
        .customize()
        .insert_header((CONTENT_TYPE, "text/javascript"))
}

/// Against CSRF: browsers let no page of another site send this header, as nothing here allows it (CORS).
async fn demand_header(request: ServiceRequest, next: Next<BoxBody>) -> Result<ServiceResponse> {
    match request.headers().contains_key("x-csrf") {
        true => next.call(request).await,
        false => Ok(request.into_response(HttpResponse::Forbidden().finish())),
    }
}

async fn begin(bff: Data<Bff>, tokens: Tokens) -> Result<Redirect> {
    // For more, where the API has demanded it.
    let login = bff.login.clone().demanded(&tokens).await?;
    Ok(Redirect::to(login.begin(&tokens, "/").await?).see_other())
}

async fn end(bff: Data<Bff>, tokens: Tokens, head: HttpRequest) -> Result<Redirect> {
    let callback = Query::<Callback>::from_query(head.query_string())?.into_inner();
    // Where a login fails, as in a tab that comes second, the page says who is signed in.
    let Ok(login) = bff.login.end(&tokens, callback).await else {
        return Ok(Redirect::to("/?failed").see_other());
    };
    let browser = head.headers().get(USER_AGENT);
    let browser = browser.map(HeaderValue::as_bytes).unwrap_or_default();
    let sign_in = login.sign_in("api").user(login.claims()?.subject());
    let sign_in = sign_in.label(String::from_utf8_lossy(browser));
    // A session of a new id, with nothing of the one before in this browser.
    let _ = tokens.sign_in(sign_in).await?;
    Ok(Redirect::to(login.return_to).see_other())
}

/// Who is signed in, and where.
async fn session(bff: Data<Bff>, tokens: Tokens) -> Result<Json<Value>> {
    let claims = tokens.claims().await?;
    let sessions = bff.cache.sessions(claims.subject()).await?;
    let user = claims.subject();
    Ok(Json(json!({"user": user, "sessions": sessions})))
}

async fn sign_out(tokens: Tokens) -> Result<Durability> {
    Ok(tokens.sign_out().await?)
}

async fn sign_out_everywhere(bff: Data<Bff>, tokens: Tokens) -> Result<Durability> {
    let claims = tokens.claims().await?;
    let everywhere = bff.cache.sign_out_user(claims.subject()).await?;
    let _ = tokens.sign_out().await?; // removes the cookie
    Ok(everywhere)
}
