//! A real OpenID provider: a user signs out there, and is signed out here.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::routing::{get, post_service};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::browser::Browser;
use common::oidc::OidcProvider;
use common::support::{TestStore, cache};
use oauth2::url::Url;
use reqwest::Method;
use serde_json::Value;
use tokio::net::TcpListener;
use tower_token_cache::grant::Provider;
use tower_token_cache::logout::BackChannelLogout;
use tower_token_cache::session::{Cookie, SignIn};
use tower_token_cache::{Error, TokenCacheLayer, TokenSet, Tokens};

/// As the server of the tests has it.
const CLIENT: &str = "app";
const CREDENTIALS: &str = "Basic YXBwOnRoZSthcHAlMjdzK3NlY3JldA==";
/// RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

struct App {
    issuer: String,
    callback: String,
}

#[derive(serde::Deserialize)]
struct Callback {
    code: String,
}

/// Ends the login; answers with the id token.
async fn callback(
    State(app): State<Arc<App>>,
    tokens: Tokens,
    Query(query): Query<Callback>,
) -> Result<String, Error> {
    let form = [
        ("grant_type", "authorization_code"),
        ("code", &query.code),
        ("redirect_uri", &app.callback),
        ("code_verifier", VERIFIER),
    ];
    let request = reqwest::Client::new().post(format!("{}/token", app.issuer));
    let request = request.header("authorization", CREDENTIALS).form(&form);
    let answer = request.send().await.unwrap().text().await.unwrap();
    let set: TokenSet = serde_json::from_str(&answer).unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let id_token = answer["id_token"].as_str().unwrap();
    let claims = URL_SAFE_NO_PAD.decode(id_token.split('.').nth(1).unwrap());
    let claims: Value = serde_json::from_slice(&claims.unwrap()).unwrap();
    let claim = |name: &str| claims[name].as_str().unwrap().to_owned();
    let sign_in = SignIn::new("api", set)
        .provider_user(claim("iss"), claim("sub"))
        .provider_session(claim("iss"), claim("sid"));
    let _ = tokens.sign_in(sign_in).await?;
    Ok(format!("{id_token:?}"))
}

async fn me(tokens: Tokens) -> Result<String, Error> {
    Ok(tokens.get("api").await?.is_hit().to_string())
}

/// A browser signs in; the id token.
async fn sign_in(browser: &mut Browser, app: &App) -> String {
    let query = [
        ("client_id", CLIENT),
        ("response_type", "code"),
        ("scope", "openid"),
        ("redirect_uri", &app.callback),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ];
    let url = Url::parse_with_params(&format!("{}/auth", app.issuer), query).unwrap();
    let answer = browser.go(Method::GET, url).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body.as_str().expect("an id token").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_signs_out_at_the_provider_is_signed_out_here() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let callback_url = format!("{base}/callback");
    let provider = OidcProvider::start(&callback_url, 3600);
    let app = Arc::new(App {
        issuer: provider.issuer().to_owned(),
        callback: callback_url,
    });
    let cache = cache(TestStore::default());
    let discovered = Provider::discover(&app.issuer).await.unwrap();
    let logout = BackChannelLogout::of(cache.clone(), &discovered, CLIENT).unwrap();
    let router = Router::new()
        .route("/callback", get(callback))
        .route("/me", get(me))
        .layer(TokenCacheLayer::new(cache, Cookie::new("sid").unwrap()))
        .route("/backchannel-logout", post_service(logout))
        .with_state(app.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });

    let mut browsers = [Browser::new(), Browser::new()];
    let me = Url::parse(&format!("{base}/me")).unwrap();
    let mut id_tokens = Vec::new();
    for browser in &mut browsers {
        id_tokens.push(sign_in(browser, &app).await);
        let found = browser.go(Method::GET, me.clone()).await;
        assert_eq!((found.status.as_u16(), found.body), (200, true.into()));
    }

    // Ends the session at the provider: of the first browser.
    let query = [("id_token_hint", &*id_tokens[0]), ("client_id", CLIENT)];
    let end = Url::parse_with_params(&format!("{}/session/end", app.issuer), query).unwrap();
    let [first, second] = &mut browsers;
    let asked = first.go(Method::GET, end.clone()).await;
    let xsrf = asked.body["xsrf"].as_str().expect("of the form");
    let confirm = end.join("/session/end/confirm").unwrap();
    first
        .post(confirm, &[("xsrf", xsrf), ("logout", "yes")])
        .await;

    common::eventually("the provider has told the application", async || {
        let found = first.clone().go(Method::GET, me.clone()).await;
        found.body != true
    })
    .await;
    let found = second.go(Method::GET, me).await;
    assert_eq!(found.body, true, "the other browser's session goes on");
}
