//! Logout tokens, by which a provider signs users out: good, forged, and no tokens at all.

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Request;
use http_body_util::BodyExt;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use tower_token_cache::Timestamp;
use tower_token_cache::logout::BackChannelLogout;

use super::evidence::Evidence;
use super::*;

const ISSUER: &str = "https://login.example";

/// A server that has this at its `/jwks`.
async fn keys(document: String) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    let app = Router::new().route("/jwks", get(async move || document));
    tokio::spawn(async { axum::serve(listener, app).await });
    url
}

pub(crate) async fn happen(evidence: &Evidence) {
    let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
    let pair = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, pair.as_ref(), &random).unwrap();
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    let [x, y] = [x, y].map(|point| URL_SAFE_NO_PAD.encode(point));
    let key = json!({"kty": "EC", "crv": "P-256", "kid": "1", "alg": "ES256", "x": x, "y": y});
    let sign = |header: Value, claims: &Value| {
        let message = [&header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let message = message.join(".");
        let signature = pair.sign(&random, message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let now = Timestamp::now().as_millis() / 1000;
    let claims = json!({
        "iss": ISSUER, "aud": "app", "iat": now, "exp": now + 120, "jti": EXTRA, "sid": PROVIDER_SESSION,
        "sub": USER, "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
    });
    let good = json!({"alg": "ES256", "kid": "1"});
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        sign(good.clone(), &claims)
    };
    let whole = sign(good.clone(), &claims);
    let tokens = [
        whole.clone(),
        whole.clone(),
        whole[..whole.len() - 20].to_owned(),
        with("iss", json!(CLIENT_SECRET)),
        with("aud", json!(USER)),
        with("iat", json!(USER)),
        with("events", json!({ USER: {} })),
        with("nonce", json!(ID)),
        with("jti", json!(format!("{EXTRA}\n"))),
        with("sid", json!(PROVIDER_SESSION.repeat(99))),
        sign(json!({"alg": "none", "kid": PROVIDER_SESSION}), &claims),
        sign(json!({"alg": "ES256", "kid": PROVIDER_SESSION}), &claims),
        sign(json!({"alg": PROVIDER_SESSION}), &claims),
        indiscretion(),
        format!("{USER}.{PROVIDER_SESSION}.{EXTRA}"),
    ];
    for document in [json!({"keys": [key]}).to_string(), indiscretion()] {
        let url = keys(document).await;
        for sealed in [false, true] {
            let store = TestStore::default();
            let cache = build(store.clone(), FailurePolicy::Degrade, sealed).await;
            let session = cache.tokens(session(SESSION));
            session.insert("graph", super::tokens()).await.unwrap();
            evidence.outcome(
                "a link",
                session
                    .link_provider_session(ISSUER, PROVIDER_SESSION)
                    .await,
            );
            evidence.outcome("a link", session.link_provider_user(ISSUER, USER).await);
            let logout = BackChannelLogout::new(cache.clone(), ISSUER, "app", &url).unwrap();
            evidence.debug("a logout", &logout);
            for token in &tokens {
                evidence.outcome("a logout", logout.sign_out(token).await);
                let form = Request::post("/")
                    .header("content-type", "application/x-www-form-urlencoded")
                    .body(Body::from(format!("logout_token={token}")));
                let response = logout.clone().oneshot(form.unwrap()).await.unwrap();
                evidence.text("headers", &format!("{:?}", response.headers()));
                let body = response.into_body().collect().await.unwrap().to_bytes();
                evidence.bytes("a body", &body);
            }
            store.set_down(true);
            evidence.outcome("a logout", logout.sign_out(&with("jti", json!("2"))).await);
        }
    }
    let cache = build(MemoryStore::new(), FailurePolicy::Degrade, false).await;
    let bad = format!("https://user:{PASSWORD}@login.example/jwks");
    evidence.outcome(
        "a logout",
        BackChannelLogout::new(cache, ISSUER, "app", bad),
    );
}
