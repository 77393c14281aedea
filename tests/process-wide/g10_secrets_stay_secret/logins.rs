//! Logins, by a browser and at a device: well, and failing in each way; and what an API demands.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Query;
use axum::response::IntoResponse;
use axum::routing::{any, get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::leaks::Canary;
use http::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use oauth2::url::{Url, form_urlencoded};
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _};
use tower_token_cache::grant::{
    AssertionFile, AuthorizationCode, Callback, Client, LoginError, Provider,
};
use tower_token_cache::outgoing::{BearerLayer, Origins};
use tower_token_cache::{BoxError, Challenge, Error, Prior, Timestamp};

use super::evidence::Evidence;
use super::*;

/// A provider whose token endpoint answers as it is told, and keeps what it was sent.
struct Told {
    url: String,
    answer: Arc<Mutex<(u16, String)>>,
    forms: Arc<Mutex<Vec<String>>>,
}

/// Status and body for a login of this nonce.
type Reply = fn(&Told, &str) -> (u16, String);

impl Told {
    async fn start() -> Self {
        let answer = Arc::new(Mutex::new((200, String::new())));
        let forms = Arc::<Mutex<Vec<String>>>::default();
        let (said, kept) = (answer.clone(), forms.clone());
        let token = async move |form: String| {
            kept.lock().unwrap().push(form);
            let (status, body) = said.lock().unwrap().clone();
            (StatusCode::from_u16(status).unwrap(), body)
        };
        let device = json!({
            "device_code": CODE, "user_code": CODE, "verification_uri": "https://login.example/go",
            "verification_uri_complete": format!("https://login.example/go?code={CODE}"),
            "expires_in": 1, "interval": 1,
        });
        let document = async || indiscretion();
        let app = Router::new()
            .route("/token", post(token))
            .route("/device", post(async move || device.to_string()))
            .route("/.well-known/{name}", get(document))
            .route(
                "/revoke",
                any(async || (StatusCode::BAD_REQUEST, indiscretion())),
            );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, app).await });
        Self { url, answer, forms }
    }

    fn provider(&self) -> Provider {
        let at = |path: &str| format!("{}{path}", self.url);
        Provider::new(&*self.url, at("/token"))
            .and_then(|it| it.with_authorization_endpoint(at("/auth")))
            .and_then(|it| it.with_device_authorization_endpoint(at("/device")))
            .and_then(|it| it.with_revocation_endpoint(at("/revoke")))
            .and_then(|it| it.with_end_session_endpoint(at("/end")))
            .unwrap()
    }

    /// Tokens, with an id token that is about the user.
    fn signed_in(&self, nonce: &str, more: Value) -> String {
        let now = Timestamp::now().as_millis() / 1000;
        let mut claims = json!({
            "iss": self.url, "aud": "app", "sub": USER, "sid": PROVIDER_SESSION, "nonce": nonce,
            "iat": now, "exp": now + 60, "auth_time": now,
        });
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let [header, claims] =
            [json!({"alg": "RS256"}), claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let id_token = format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode(ID));
        let answer = json!({
            "access_token": ACCESS, "refresh_token": REFRESH, "id_token": id_token, "extra": EXTRA,
        });
        answer.to_string()
    }
}

pub(crate) async fn happen(evidence: &mut Evidence) {
    let told = Told::start().await;
    let client = told.provider().client("app").secret(CLIENT_SECRET);
    let client = client.scopes(["openid"]);
    by_browser(evidence, &told, client.clone()).await;
    at_a_device(evidence, &told, &client).await;
    beside(evidence, &told, &client).await;
    demanded(evidence).await;
    for form in told.forms.lock().unwrap().drain(..) {
        let mut pairs = form_urlencoded::parse(form.as_bytes());
        if let Some((_, verifier)) = pairs.find(|(name, _)| name == "code_verifier") {
            evidence.look_for_in_log(Canary::new("a verifier", verifier.as_bytes()));
        }
    }
}

async fn by_browser(evidence: &Evidence, told: &Told, client: Client) {
    let flow = AuthorizationCode::new(client, "https://app.example/callback").unwrap();
    let flow = flow.param("login_hint", USER).unwrap();
    let flow = flow.max_age(std::time::Duration::from_secs(300));
    evidence.debug("a flow", &(&flow, told.provider()));
    let answers: [Reply; 9] = [
        |told, nonce| (200, told.signed_in(nonce, json!({}))),
        |told, _| (200, told.signed_in(ID, json!({}))),
        |told, nonce| (200, told.signed_in(nonce, json!({"aud": ACCESS}))),
        |told, nonce| (200, told.signed_in(nonce, json!({"iss": CLIENT_SECRET}))),
        |told, nonce| (200, told.signed_in(nonce, json!({"auth_time": EXTRA}))),
        |_, _| {
            (
                200,
                json!({"access_token": ACCESS, "id_token": ID}).to_string(),
            )
        },
        |_, _| (200, indiscretion()),
        |_, _| (400, json!({"error": indiscretion()}).to_string()),
        |_, _| {
            let error = json!({"error": "invalid_grant", "error_description": indiscretion()});
            (400, error.to_string())
        },
    ];
    for policy in POLICIES {
        for answer in answers {
            let cache = build(MemoryStore::new(), policy, false).await;
            let tokens = cache.tokens(session(SESSION));
            let url = flow.begin(&tokens, "/").await;
            let Ok(url) = url else {
                evidence.outcome("a login", url);
                continue;
            };
            let url = Url::parse(&url).unwrap();
            let param = |name: &str| {
                let mut pairs = url.query_pairs();
                pairs.find(|(own, _)| own == name).unwrap().1.into_owned()
            };
            *told.answer.lock().unwrap() = answer(told, &param("nonce"));
            let back = format!(
                "/callback?code={CODE}&state={}&error_description={CODE}",
                param("state")
            );
            let back: Query<Callback> = Query::try_from_uri(&back.parse().unwrap()).unwrap();
            evidence.debug("a callback", &back.0);
            match flow.end(&tokens, back.0).await {
                Ok(login) => {
                    evidence.debug("a login", &login);
                    evidence.debug("a sign-in", &login.sign_in("api"));
                }
                Err(error) => failed(evidence, error).await,
            }
        }
    }
    // Callbacks that are none, with what an attacker puts in their place.
    let cache = build(MemoryStore::new(), FailurePolicy::Degrade, false).await;
    let tokens = cache.tokens(session(SESSION));
    let odd = [
        format!("code={CODE}"),
        format!("code={CODE}&state={SESSION}"),
        format!("code={CODE}&state={SESSION}&iss={CLIENT_SECRET}"),
        format!("error={CODE}&state={SESSION}"),
        format!("code={CODE}&state={}", "x".repeat(43)),
    ];
    for query in odd {
        let uri = format!("/callback?{query}").parse().unwrap();
        let back: Query<Callback> = Query::try_from_uri(&uri).unwrap();
        let ended = flow.end(&tokens, back.0).await;
        failed(evidence, ended.unwrap_err()).await;
    }
    let begun = flow.begin(&tokens, &format!("//{ACCESS}")).await;
    failed(evidence, begun.unwrap_err()).await;
}

/// What an error shows, and what a browser gets of it.
async fn failed(evidence: &Evidence, error: LoginError) {
    evidence.error("a login", &error);
    let response = error.into_response();
    evidence.text("headers", &format!("{:?}", response.headers()));
    let body = response.into_body().collect().await.unwrap().to_bytes();
    evidence.bytes("a body", &body);
}

async fn at_a_device(evidence: &Evidence, told: &Told, client: &Client) {
    for answer in [
        (200, told.signed_in("n", json!({}))),
        (200, told.signed_in("n", json!({"aud": ACCESS}))),
        (200, indiscretion()),
        (400, json!({"error": indiscretion()}).to_string()),
    ] {
        *told.answer.lock().unwrap() = answer;
        let mut device = client.authorize_device().await.unwrap();
        evidence.debug("a device", &device);
        evidence.outcome("a device", device.poll().await);
    }
}

/// Discovery, revocation, the end of a session at the provider, assertions in files.
async fn beside(evidence: &Evidence, told: &Told, client: &Client) {
    evidence.outcome("a discovery", Provider::discover(&told.url).await);
    let with_password = format!("https://user:{PASSWORD}@login.example");
    evidence.outcome("a discovery", Provider::discover(&with_password).await);
    evidence.outcome(
        "a provider",
        Provider::new(with_password, "https://login.example/token"),
    );
    evidence.outcome("a revocation", client.revoke(&REFRESH.into()).await);
    let end = client.end_session().unwrap();
    evidence.debug("an end", &end.id_token_hint(&ID.into()).state(SESSION));
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in [
        ("good", ASSERTION.to_owned()),
        ("odd", indiscretion()),
        ("none", String::new()),
    ] {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let file = AssertionFile::new(path);
        evidence.debug("an assertion", &file);
        let client = client.clone().assertion(file);
        evidence.debug("a client", &client);
        evidence.outcome("a revocation", client.revoke(&REFRESH.into()).await);
    }
    let failing = async || Err::<&str, BoxError>(evidence::Indiscreet(indiscretion()).into());
    let client = client.clone().assertion(failing);
    evidence.outcome("a revocation", client.revoke(&REFRESH.into()).await);
}

/// An API that demands more, and says too much.
async fn demanded(evidence: &Evidence) {
    let claims = json!({"access_token": {"value": indiscretion()}}).to_string();
    let fields = [
        format!(
            r#"Bearer error="insufficient_claims", claims="{}""#,
            URL_SAFE_NO_PAD.encode(claims)
        ),
        format!(
            r#"Bearer error="insufficient_user_authentication", acr_values="{EXTRA}", error_description="{EXTRA}""#
        ),
        format!(r#"Bearer error="insufficient_scope", scope="{EXTRA}""#),
        format!(r#"Bearer error="{EXTRA}""#),
    ];
    for field in fields {
        let mut headers = HeaderMap::new();
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_str(&field).unwrap());
        if let Some(challenge) = Challenge::from_headers(&headers) {
            evidence.debug("a challenge", &challenge);
            evidence.error("a challenge", &Error::StepUp(challenge));
        }
        let answer = async move || (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, field)]);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(any(answer));
        tokio::spawn(async { axum::serve(listener, app).await });
        let cache = build(MemoryStore::new(), FailurePolicy::Degrade, false).await;
        let handle = cache.tokens(session(SESSION));
        handle.insert("graph", tokens()).await.unwrap();
        let refused = async |_: Prior| Err::<TokenSet, _>(evidence::Indiscreet(indiscretion()));
        let layer = BearerLayer::new("graph", refused, Origins::new([&url]).unwrap());
        let layer = layer.unwrap().for_tokens(handle);
        let http = legacy::Client::builder(TokioExecutor::new()).build_http();
        let request = Request::get(url)
            .body(Full::<bytes::Bytes>::default())
            .unwrap();
        if let Err(error) = layer.layer(http).oneshot(request).await {
            evidence.error("a call", &error);
        }
    }
}
