//! An issuer with keys, and the application that it sends logout tokens to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::support::{TestStore, builder, session, token};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower::ServiceExt;
use tower_token_cache::logout::BackChannelLogout;
use tower_token_cache::{Clock, MemoryStore, Timestamp, TokenCache};

pub const CLIENT: &str = "app";

/// What the issuer answers at its `jwks_uri`.
type Document = Arc<Mutex<Box<dyn Fn() -> Response + Send>>>;

/// A server with one document. Stops with its runtime.
pub struct Issuer {
    pub url: String,
    document: Document,
    fetches: Arc<AtomicU64>,
}

impl Issuer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let document: Document = Arc::new(Mutex::new(Box::new(|| StatusCode::OK.into_response())));
        let fetches = Arc::new(AtomicU64::new(0));
        let state = (document.clone(), fetches.clone());
        let jwks = async |State((document, fetches)): State<(Document, Arc<AtomicU64>)>| {
            fetches.fetch_add(1, Ordering::SeqCst);
            document.lock().unwrap()()
        };
        let router = Router::new().route("/jwks", get(jwks)).with_state(state);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            url,
            document,
            fetches,
        }
    }

    pub fn answers(&self, answer: impl Fn() -> Response + Send + 'static) {
        *self.document.lock().unwrap() = Box::new(answer);
    }

    /// Publishes these keys.
    pub fn has(&self, keys: &[&Key]) {
        let keys = Vec::from_iter(keys.iter().map(|key| key.jwk()));
        let document = json!({ "keys": keys }).to_string();
        self.answers(move || document.clone().into_response());
    }

    pub fn fetches(&self) -> u64 {
        self.fetches.load(Ordering::SeqCst)
    }

    pub fn jwks_uri(&self) -> String {
        format!("{}/jwks", self.url)
    }
}

/// A key that signs by ES256.
pub struct Key {
    pub kid: &'static str,
    pair: EcdsaKeyPair,
}

impl Key {
    pub fn new(kid: &'static str) -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap();
        Self { kid, pair }
    }

    pub fn point(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    pub fn jwk(&self) -> Value {
        let (x, y) = self.point()[1..].split_at(32);
        json!({
            "kty": "EC", "crv": "P-256", "kid": self.kid, "alg": "ES256", "use": "sig",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        })
    }

    /// A token with this header.
    pub fn sign_as(&self, header: &Value, claims: &Value) -> String {
        let message = unsigned(header, claims);
        let signature = self.pair.sign(&SystemRandom::new(), message.as_bytes());
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.unwrap()))
    }

    pub fn sign(&self, claims: &Value) -> String {
        let header = json!({ "alg": "ES256", "kid": self.kid, "typ": "logout+jwt" });
        self.sign_as(&header, claims)
    }
}

/// What a signature is of.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    let encode = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    format!("{}.{}", encode(header), encode(claims))
}

/// An issuer with one key, and instances of an application over one store, all on one clock.
pub struct Site {
    pub issuer: Issuer,
    pub key: Key,
    pub clock: Clock,
    pub store: TestStore,
    pub cache: TokenCache,
    pub logout: BackChannelLogout,
}

impl Site {
    pub async fn start() -> Self {
        let (issuer, key) = (Issuer::start().await, Key::new("1"));
        issuer.has(&[&key]);
        let clock = Clock::manual(Timestamp::now());
        let store = TestStore::new(MemoryStore::new().with_clock(clock.clone()));
        let (cache, logout) = instance(&issuer, &store, &clock);
        Self {
            issuer,
            key,
            clock,
            store,
            cache,
            logout,
        }
    }

    pub fn instance(&self) -> (TokenCache, BackChannelLogout) {
        instance(&self.issuer, &self.store, &self.clock)
    }

    /// Begins a session that is linked to this one of the provider, and this user.
    pub async fn sign_in(&self, id: &str, sid: &str, sub: &str) {
        let tokens = self.cache.tokens(session(id));
        tokens.insert("api", token(id)).await.unwrap();
        let iss = &self.issuer.url;
        tokens.link_provider_session(iss, sid).await.unwrap();
        tokens.link_provider_user(iss, sub).await.unwrap();
    }

    /// Which of these sessions an instance that knows none finds in the store.
    pub async fn alive<'a>(&self, ids: &[&'a str]) -> Vec<&'a str> {
        let (cache, _) = self.instance();
        let mut alive = Vec::new();
        for id in ids {
            let found = cache.tokens(session(id)).get("api").await.unwrap();
            alive.extend(found.is_hit().then_some(*id));
        }
        alive
    }

    /// The claims of a logout token of now, without a subject.
    pub fn claims(&self, jti: &str) -> Value {
        let now = self.clock.now().as_millis() / 1000;
        json!({
            "iss": self.issuer.url, "aud": [CLIENT], "iat": now, "exp": now + 120, "jti": jti,
            "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
        })
    }

    /// A token for this session at the provider.
    pub fn token(&self, jti: &str, sid: &str) -> String {
        let mut claims = self.claims(jti);
        claims["sid"] = sid.into();
        self.key.sign(&claims)
    }
}

fn instance(issuer: &Issuer, store: &TestStore, clock: &Clock) -> (TokenCache, BackChannelLogout) {
    let cache = builder(store.clone()).clock(clock.clone());
    let cache = cache.build().unwrap();
    let logout = BackChannelLogout::new(cache.clone(), &issuer.url, CLIENT, issuer.jwks_uri());
    (cache, logout.unwrap())
}

pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: String,
}

pub fn form(token: &str) -> Request<Body> {
    Request::post("/")
        .header(
            header::CONTENT_TYPE,
            "application/x-www-form-urlencoded; charset=utf-8",
        )
        .body(format!("logout_token={token}&more=1").into())
        .unwrap()
}

/// Sends the handler a request.
pub async fn send(logout: &BackChannelLogout, request: Request<Body>) -> Answer {
    let response = logout.clone().oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    assert_eq!(head.headers[header::CACHE_CONTROL], "no-store");
    Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

/// The status for a token.
pub async fn status(logout: &BackChannelLogout, token: &str) -> u16 {
    send(logout, form(token)).await.status
}
