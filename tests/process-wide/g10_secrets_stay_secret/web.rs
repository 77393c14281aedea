//! Requests that come in, and those that go out.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::get;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use tower::{Layer, ServiceExt};
use tower_token_cache::grant::{
    AuthStyle, Client, ClientCredentials, JwtBearer, RefreshToken, TokenExchange,
};
use tower_token_cache::outgoing::{BearerLayer, Origins};
use tower_token_cache::{
    Acquire, Error, KeyExtractor, MissingKey, Prior, RequestHead, Token, TokenCacheLayer, Tokens,
    key,
};

use super::evidence::Evidence;
use super::*;

async fn start(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, app).await });
    url
}

/// Responses to requests that fail, from the layer, the extractor and handlers that use `?`.
pub(crate) async fn serve(evidence: &Evidence) {
    let store = TestStore::default();
    for (missing, down) in [
        (MissingKey::Reject, false),
        (MissingKey::Anonymous, false),
        (MissingKey::Anonymous, true),
    ] {
        store.set_down(down);
        let cache = builder(store.clone()).failure_policy(FailurePolicy::Strict);
        let cache = cache.build().unwrap();
        let heads = Arc::new(Mutex::new(String::new()));
        let seen = heads.clone();
        let look = move |head: &RequestHead<'_>| {
            seen.lock()
                .unwrap()
                .push_str(&format!("{head:?} {head:#?}"));
            Ok(None)
        };
        let extractor = key::from_fn(look).or(key::cookie("sid"));
        let layer = TokenCacheLayer::new(cache, extractor).missing_key(missing);
        let url = start(routes().layer(layer)).await;
        let client = HttpClient::builder(TokioExecutor::new()).build_http();
        for path in ["/get", "/put", "/large", "/acquire", "/end", "/panic"] {
            for cookie in [
                Some(format!("sid={SESSION}")),
                Some(format!("sid={}", SESSION.repeat(99))),
                Some("sid=\u{e4}".into()),
                None,
            ] {
                let mut request = Request::get(format!("{url}{path}"));
                if let Some(cookie) = cookie {
                    request = request.header("cookie", cookie.as_bytes());
                }
                let request = request.body(Full::<bytes::Bytes>::default()).unwrap();
                let Ok(response) = client.request(request).await else {
                    assert_eq!(path, "/panic");
                    continue;
                };
                let headers = format!("{:?}", response.headers());
                evidence.text("headers", &headers);
                let body = response.into_body().collect().await.unwrap().to_bytes();
                evidence.bytes("a body", &body);
            }
        }
        evidence.text("a request's head", &heads.lock().unwrap());
    }
}

pub(crate) fn routes() -> Router {
    let read = async |tokens: Tokens| Ok::<_, Error>(format!("{:?}", tokens.get("a").await?));
    let write = async |tokens: Tokens| tokens.insert("a", super::tokens()).await;
    let large = async |tokens: Tokens| {
        let large = Token::new(ACCESS.repeat(1 << 16));
        tokens.insert("a", large).await
    };
    let acquire = async |tokens: Tokens| {
        let failing = async |_| Err::<TokenSet, _>(indiscretion());
        let token = tokens.get_or_acquire("fails", failing).await?;
        Ok::<_, Error>(format!("{token:?}"))
    };
    let end = async |tokens: Tokens| tokens.sign_out().await.map(|_| ());
    let panicking = async |tokens: Tokens| -> StatusCode {
        let _ = tokens.insert("a", super::tokens()).await;
        std::panic::resume_unwind(Box::new(indiscretion()))
    };
    Router::new()
        .route("/get", get(read))
        .route("/put", get(write))
        .route("/large", get(large))
        .route("/acquire", get(acquire))
        .route("/end", get(end))
        .route("/panic", get(panicking))
}

/// A provider that answers with what it was sent, in every way there is to fail; and a service
/// that rejects every token.
pub(crate) async fn ask_a_provider(evidence: &Evidence) {
    let answers = [
        (
            200,
            format!(
                r#"{{"access_token":"{NEXT_ACCESS}","expires_in":60,"refresh_token":"{REFRESH}","extra":"{EXTRA}"}}"#
            ),
        ),
        (
            400,
            format!(
                r#"{{"error":"invalid_scope","error_description":"{}"}}"#,
                indiscretion()
            ),
        ),
        (200, format!(r#"{{"access_token":["{NEXT_ACCESS}"]}}"#)),
        (200, indiscretion()),
        (500, indiscretion()),
        (302, indiscretion()),
        (429, indiscretion()),
        (400, format!(r#"{{"error":"{}"}}"#, indiscretion())),
        (400, r#"{"error":"invalid_grant"}"#.to_owned()),
    ];
    for (status, answer) in answers {
        for known_by in KNOWN_BY {
            let status = StatusCode::from_u16(status).unwrap();
            let answer = answer.clone();
            let handler = async move || (status, answer);
            let app = Router::new().fallback(axum::routing::any(handler));
            let url = format!("{}/token?client_secret={CLIENT_SECRET}", start(app).await);
            grants(evidence, url, known_by).await;
        }
    }
    let nobody = format!(
        "http://127.0.0.1:{}/token?x={CLIENT_SECRET}",
        common::free_port()
    );
    for known_by in KNOWN_BY {
        grants(evidence, nobody.clone(), known_by).await;
    }
}

/// How a client proves who it is, and by which HTTP client.
const KNOWN_BY: [fn(Client) -> Client; 4] = [
    |client| client.secret(CLIENT_SECRET),
    |client| client.secret(CLIENT_SECRET).auth_style(AuthStyle::Body),
    |client| {
        let client = client.http_client(reqwest::Client::new());
        client.assertion(async || Ok::<_, tower_token_cache::BoxError>(ASSERTION))
    },
    |client| {
        let client = client.http_client(reqwest_0_13::Client::new());
        client.secret(CLIENT_SECRET)
    },
];

async fn grants(evidence: &Evidence, url: String, known_by: fn(Client) -> Client) {
    let client = known_by(Client::new(url, "app").unwrap());
    let exchange = TokenExchange::new(client.clone(), ASSERTION, "urn:x");
    let sources: [Arc<dyn Acquire>; 4] = [
        Arc::new(RefreshToken::new(client.clone())),
        Arc::new(ClientCredentials::new(client.clone())),
        Arc::new(JwtBearer::on_behalf_of(client.clone(), ASSERTION)),
        Arc::new(exchange),
    ];
    for source in sources {
        let cache = build(MemoryStore::new(), FailurePolicy::Degrade, false).await;
        let handle = cache.tokens(session(SESSION));
        handle.insert("graph", tokens()).await.unwrap();
        let acquisition = handle.acquire("api").unwrap().claims(r#"{"a":1}"#);
        let acquired = acquisition.with_source(source.clone()).await;
        evidence.outcome("a grant", acquired);
        call(evidence, handle, source).await;
    }
}

/// A call whose token is rejected, over the client of hyper.
async fn call(evidence: &Evidence, tokens: Tokens, source: Arc<dyn Acquire>) {
    let reject = async |headers: HeaderMap| {
        let sent = headers.get("authorization").is_some();
        (StatusCode::UNAUTHORIZED, sent.to_string())
    };
    let app = Router::new().fallback(axum::routing::any(reject));
    let url = start(app).await;
    let acquire = move |prior: Prior| source.acquire(prior);
    let layer = BearerLayer::new("graph", acquire, Origins::new([&url]).unwrap())
        .unwrap()
        .for_tokens(tokens);
    let http = HttpClient::builder(TokioExecutor::new()).build_http();
    let request = Request::get(url).body(Full::<bytes::Bytes>::default());
    match layer.layer(http).oneshot(request.unwrap()).await {
        Ok(response) => evidence.debug("a response", &response.headers()),
        Err(error) => evidence.error("a call", &error),
    }
}
