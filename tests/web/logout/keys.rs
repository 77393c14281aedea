//! The issuer's keys: when they are fetched, and what happens where they cannot be.

use std::time::Duration;

use axum::response::{IntoResponse, Redirect};
use futures_util::future::join_all;
use http::StatusCode;
use serde_json::json;
use tower_token_cache::logout::BackChannelLogout;

use super::issuer::{CLIENT, Key, Site, form, send, status};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn unknown_keys_cost_a_fetch_a_minute() {
    let site = Site::start().await;
    let stranger = Key::new("9");
    let mut claims = site.claims("a");
    claims["sid"] = "1".into();
    let junk = stranger.sign(&claims);
    let asked = join_all((0..20).map(|_| status(&site.logout, &junk))).await;
    assert_eq!(asked, [400; 20]);
    assert_eq!(site.issuer.fetches(), 1);
    site.clock.advance(59 * SECOND);
    assert_eq!(status(&site.logout, &junk).await, 400);
    assert_eq!(site.issuer.fetches(), 1);
    site.clock.advance(SECOND);
    let asked = join_all((0..20).map(|_| status(&site.logout, &junk))).await;
    assert_eq!(asked, [400; 20]);
    assert_eq!(site.issuer.fetches(), 2);
}

#[tokio::test]
async fn keys_rotate() {
    let site = Site::start().await;
    assert_eq!(status(&site.logout, &site.token("a", "1")).await, 200);
    assert_eq!(status(&site.logout, &site.token("b", "1")).await, 200);
    assert_eq!(site.issuer.fetches(), 1, "keys are kept");
    let next = Key::new("2");
    site.issuer.has(&[&next]);
    site.clock.advance(60 * SECOND);
    // The new one is known when it is first named. The old one counts no longer.
    let mut claims = site.claims("c");
    claims["sid"] = "1".into();
    assert_eq!(status(&site.logout, &next.sign(&claims)).await, 200);
    assert_eq!(status(&site.logout, &site.token("d", "1")).await, 400);
    assert_eq!(site.issuer.fetches(), 2);
}

/// A key that is withdrawn counts for an hour at most, though no other is named.
#[tokio::test]
async fn a_key_that_is_withdrawn_counts_no_longer() {
    let site = Site::start().await;
    assert_eq!(status(&site.logout, &site.token("a", "1")).await, 200);
    site.issuer.has(&[]);
    site.clock.advance(3599 * SECOND);
    assert_eq!(status(&site.logout, &site.token("b", "1")).await, 200);
    site.clock.advance(SECOND);
    assert_eq!(status(&site.logout, &site.token("c", "1")).await, 400);
}

#[tokio::test]
async fn without_a_name_the_only_key_that_fits_counts() {
    let site = Site::start().await;
    let nameless = |jti: &str| {
        let mut claims = site.claims(jti);
        claims["sid"] = "1".into();
        site.key.sign_as(&json!({ "alg": "ES256" }), &claims)
    };
    assert_eq!(status(&site.logout, &nameless("a")).await, 200);
    let other = Key::new("2");
    site.issuer.has(&[&site.key, &other]);
    let (_, there) = site.instance();
    assert_eq!(status(&there, &nameless("b")).await, 400);
    assert_eq!(status(&there, &site.token("b", "1")).await, 200);
}

#[tokio::test]
async fn while_keys_cannot_be_fetched_the_provider_is_asked_to_come_again() {
    let site = Site::start().await;
    site.sign_in("phone", "1", "ada").await;
    let long = "x".repeat(300 * 1024);
    let answers: [fn(&str) -> axum::response::Response; 5] = [
        |_| StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        |_| Redirect::temporary("http://127.0.0.1:1/").into_response(),
        |_| "<html>".into_response(),
        |_| "{}".into_response(),
        |long| format!(r#"{{"keys":[],"more":"{long}"}}"#).into_response(),
    ];
    for answer in answers {
        let long = long.clone();
        site.issuer.answers(move || answer(&long));
        let told = send(&site.logout, form(&site.token("a", "1"))).await;
        assert_eq!((told.status, &*told.body), (503, ""));
        assert_eq!(told.headers["retry-after"], "5");
        site.clock.advance(5 * SECOND);
    }
    let fetches = site.issuer.fetches();
    assert_eq!(fetches, 5);
    // What is not understood does no harm to what is.
    let jwk = site.key.jwk();
    let odd = json!([1, { "kty": "new" }, { "kty": "RSA", "n": 1 }, jwk]);
    let document = json!({ "keys": odd }).to_string();
    site.issuer
        .answers(move || document.clone().into_response());
    assert_eq!(status(&site.logout, &site.token("a", "1")).await, 200);
    assert!(site.alive(&["phone"]).await.is_empty());
    // Keys that are known count while the issuer is away.
    site.issuer
        .answers(|| StatusCode::BAD_GATEWAY.into_response());
    site.clock.advance(3600 * SECOND);
    assert_eq!(status(&site.logout, &site.token("b", "1")).await, 200);
    assert_eq!(site.issuer.fetches(), fetches + 2);
}

#[tokio::test]
async fn keys_come_over_tls_or_from_this_machine() {
    let (cache, _) = Site::start().await.instance();
    let make = |issuer: &str, client: &str, jwks_uri: &str| {
        let made = BackChannelLogout::new(cache.clone(), issuer, client, jwks_uri);
        made.map(drop).map_err(|error| error.option())
    };
    let iss = "https://login.example";
    assert_eq!(make(iss, CLIENT, "https://login.example/jwks"), Ok(()));
    assert_eq!(make(iss, CLIENT, "http://[::1]:80/jwks"), Ok(()));
    for uri in ["http://login.example/jwks", "/jwks", "", "file:///etc/jwks"] {
        assert_eq!(make(iss, CLIENT, uri), Err("jwks_uri"), "{uri}");
    }
    assert_eq!(
        make("", CLIENT, "https://login.example/jwks"),
        Err("issuer")
    );
    assert_eq!(
        make(iss, "", "https://login.example/jwks"),
        Err("client_id")
    );
}

/// Some issuers have one key, without a name or always of the same one.
#[tokio::test]
async fn a_key_that_has_no_new_name_is_found_all_the_same() {
    for header in [
        json!({ "alg": "ES256" }),
        json!({ "alg": "ES256", "kid": "1" }),
    ] {
        let site = Site::start().await;
        let sign = |key: &Key, jti: &str| {
            let mut claims = site.claims(jti);
            claims["sid"] = "1".into();
            key.sign_as(&header, &claims)
        };
        assert_eq!(status(&site.logout, &sign(&site.key, "a")).await, 200);
        let next = Key::new("1");
        site.issuer.has(&[&next]);
        // Once a minute at most.
        assert_eq!(status(&site.logout, &sign(&next, "b")).await, 400);
        site.clock.advance(60 * SECOND);
        assert_eq!(
            status(&site.logout, &sign(&next, "b")).await,
            200,
            "{header}"
        );
        assert_eq!(status(&site.logout, &sign(&site.key, "c")).await, 400);
        assert_eq!(site.issuer.fetches(), 2);
        // While they cannot be fetched, the provider is asked to come again.
        let answer = || StatusCode::BAD_GATEWAY.into_response();
        site.issuer.answers(answer);
        site.clock.advance(60 * SECOND);
        assert_eq!(status(&site.logout, &sign(&Key::new("1"), "d")).await, 503);
        assert_eq!(status(&site.logout, &sign(&next, "e")).await, 200);
    }
}
