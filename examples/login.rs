//! A back end for a front end: signs users in at any OpenID provider, keeps their tokens on the
//! server, and calls an API with them. All that a browser gets is a session id.
//!
//! ```sh
//! export KEYS=$(openssl rand -base64 32) # which seal the tokens; the same for every instance
//! ISSUER=https://… CLIENT_ID=… CLIENT_SECRET=… cargo run --example login
//! ```
//!
//! Also `BASE_URL`, as browsers see it (the provider knows its `/callback`), `LISTEN`, `REDIS_URL`.

use std::{env, sync::Arc, time::Duration};

use axum::extract::{Query, State};
use axum::http::{HeaderName, StatusCode, header::SET_COOKIE};
use axum::response::{IntoResponse, Redirect, Result};
use axum::routing::{Router, get, post};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use oauth2::{CsrfToken, PkceCodeChallenge, url::Url, url::form_urlencoded::byte_serialize};
use serde::Deserialize;
use serde_json::{Value, json};
use tower_token_cache::{
    Durability, Error, KeyRing, PartitionKey, Prior, ProviderError, RedisStore, Timestamp, Token,
    TokenCache, TokenCacheLayer, TokenSet, Tokens, key,
};

/// Browsers take it over TLS only, and for this host only; or from the machine they run on.
const COOKIE: &str = "__Host-sid";

type App = State<Arc<Site>>;
type Page = ([(HeaderName, String); 1], Redirect);

struct Site {
    cache: TokenCache,
    http: reqwest::Client,
    issuer: String,
    provider: Provider,
    client: (String, String),
    callback: String,
}

#[derive(Deserialize)]
struct Provider {
    authorization_endpoint: Url,
    token_endpoint: Url,
    userinfo_endpoint: Url,
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let required = |name| env::var(name).map_err(|_| format!("{name} is not set"));
    let or = |name, default: &str| env::var(name).unwrap_or_else(|_| default.into());
    let client = (required("CLIENT_ID")?, required("CLIENT_SECRET")?);
    let (issuer, base) = (required("ISSUER")?, or("BASE_URL", "http://127.0.0.1:3000"));
    let redis = RedisStore::connect(or("REDIS_URL", "redis://127.0.0.1")).await?;
    let ring = KeyRing::from_env("KEYS")?;
    let cache = TokenCache::builder(redis).key_ring(ring).build()?;
    // No redirects: an answer of the provider must not send secrets elsewhere.
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let http = http.timeout(Duration::from_secs(10)).build()?;
    let place = issuer.trim_end_matches('/');
    let document = http.get(format!("{place}/.well-known/openid-configuration"));
    let document = document.send().await?.error_for_status()?.bytes().await?;
    let provider: Provider = serde_json::from_slice(&document)?;
    let site = Arc::new(Site {
        cache: cache.clone(),
        http,
        issuer,
        provider,
        client,
        callback: format!("{base}/callback"),
    });
    let routes = Router::new()
        .route("/login", get(login))
        .route("/callback", get(callback))
        .route("/api", get(api))
        .route("/logout", post(logout))
        .layer(TokenCacheLayer::new(cache.clone(), key::cookie(COOKIE)))
        .with_state(site);
    let listener = tokio::net::TcpListener::bind(or("LISTEN", "127.0.0.1:3000")).await?;
    println!("sign in at {base}/login");
    let server = axum::serve(listener, routes);
    let stop = async { drop(tokio::signal::ctrl_c().await) };
    server.with_graceful_shutdown(stop).await?;
    cache.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

/// Sends the browser away. What its answer has to match waits in a session of its own.
async fn login(app: App) -> Result<Page> {
    let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
    let (session, state, nonce) = (random(), random(), random());
    let mut url = app.provider.authorization_endpoint.clone();
    url.query_pairs_mut().extend_pairs([
        ("response_type", "code"),
        ("client_id", &app.client.0),
        ("redirect_uri", &app.callback),
        ("scope", "openid offline_access"),
        ("prompt", "consent"), // which offline access needs
        ("state", &state),
        ("nonce", &nonce),
        ("code_challenge", challenge.as_str()),
        ("code_challenge_method", "S256"),
    ]);
    let attempt = Token::new(verifier.into_secret()).with_token_type(nonce);
    let attempt = attempt.with_expires_in(Duration::from_secs(600));
    let key = PartitionKey::session(&session).map_err(Error::from)?;
    let tokens = app.cache.tokens(key);
    tokens.insert(format!("sign-in {state}"), attempt).await?;
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
    let attempt_key = format!("sign-in {}", back.state);
    let attempt = tokens.get(&attempt_key).await?.hit();
    let attempt = attempt.ok_or((StatusCode::BAD_REQUEST, "sign-in did not begin here"))?;
    let form = [
        ("grant_type", "authorization_code"),
        ("code", &back.code),
        ("redirect_uri", &app.callback),
        ("code_verifier", attempt.access_token()),
    ];
    let set = app.ask(&form).await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    let checked = app.check_id_token(&set, attempt.token_type());
    checked.ok_or(StatusCode::BAD_GATEWAY)?;
    // Whoever knew the session's id until now must not be signed in with this user.
    let session = random();
    let key = PartitionKey::session(&session).map_err(Error::from)?;
    let tokens = tokens.move_to(key).await?;
    tokens.remove(attempt_key).await?;
    tokens.insert("api", set).await?;
    // Now, because the browser asks for the next page at once, perhaps another instance.
    let _ = tokens.commit().await?;
    Ok((cookie(&session, 14 * 24 * 3600), Redirect::to("/api")))
}

/// Calls an API with the user's token, which is refreshed when it has to be.
async fn api(app: App, tokens: Tokens) -> Result<impl IntoResponse> {
    let (site, grant) = (app.clone(), ("grant_type", "refresh_token"));
    let refresh = async move |prior: Prior| match prior.refresh_token() {
        Some(spent) => site.ask(&[grant, ("refresh_token", spent.expose())]).await,
        None if prior.is_known() => Err(ProviderError::refused("login_required")),
        None => Err(ProviderError::unreachable("Redis is away")),
    };
    let token = tokens.get_or_acquire("api", refresh).await?;
    let request = app.http.get(app.provider.userinfo_endpoint.clone());
    let answer = request.bearer_auth(token.access_token()).send().await;
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

impl Site {
    /// Asks the token endpoint.
    async fn ask(&self, form: &[(&str, &str)]) -> std::result::Result<TokenSet, ProviderError> {
        let encode = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        let (id, secret) = (encode(&self.client.0), encode(&self.client.1));
        let request = self.http.post(self.provider.token_endpoint.clone());
        let answer = request.basic_auth(id, Some(secret)).form(form).send().await;
        let answer = answer.map_err(ProviderError::unreachable)?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(ProviderError::unreachable)?;
        serde_json::from_slice(&body).map_err(|_| {
            let refusal: Value = serde_json::from_slice(&body).unwrap_or_default();
            let code = refusal["error"].as_str().map(ProviderError::refused);
            code.unwrap_or(ProviderError::status(status))
        })
    }

    /// OpenID Connect Core §3.1.3.7. TLS vouches for the provider, so the signature need not.
    fn check_id_token(&self, set: &TokenSet, nonce: Option<&str>) -> Option<()> {
        let payload = set.id_token()?.expose().split('.').nth(1)?;
        let json = BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?;
        let claims: Value = serde_json::from_slice(&json).ok()?;
        let (client, now) = (self.client.0.as_str(), Timestamp::now().as_millis() / 1000);
        let ours = claims["iss"] == *self.issuer
            && (claims["aud"] == client || claims["aud"] == json!([client]))
            && claims["exp"].as_u64()? > now
            && claims["nonce"] == nonce?;
        ours.then_some(())
    }
}

fn cookie(session: &str, age: u32) -> [(HeaderName, String); 1] {
    let rules = format!("Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={age}");
    [(SET_COOKIE, format!("{COOKIE}={session}; {rules}"))]
}

fn random() -> String {
    CsrfToken::new_random_len(32).into_secret()
}
