//! Tokens that the issuer has not made, or not for this.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::json;

use super::issuer::{Key, Site, form, send, status, unsigned};

/// Signs by an HMAC whose secret is a text that everyone has.
fn hs256(secret: &[u8], message: &str) -> String {
    let tag = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, secret),
        message.as_bytes(),
    );
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
}

#[tokio::test]
async fn forged_tokens_end_nothing() {
    let site = Site::start().await;
    site.sign_in("phone", "1", "ada").await;
    let mut claims = site.claims("a");
    claims["sid"] = "1".into();
    let none = unsigned(&json!({ "alg": "none" }), &claims);
    let with_key = unsigned(&json!({ "alg": "HS256", "kid": "1" }), &claims);
    let stranger = Key::new("1");
    let good = site.key.sign(&claims);
    let (head, signature) = good.rsplit_once('.').unwrap();
    let mut others = claims.clone();
    others["sid"] = "2".into();
    let (other, _) = site.key.sign(&others).rsplit_once('.').map(owned).unwrap();
    let own_key = json!({ "alg": "ES256", "jwk": stranger.jwk() });
    let rsa = json!({ "alg": "RS256", "kid": "1" });
    let jwk = site.key.jwk().to_string();
    let cases = [
        ("no signature", format!("{none}.")),
        ("no signature, as another algorithm's", format!("{head}.")),
        ("an HMAC by the key", hs256(site.key.point(), &with_key)),
        (
            "an HMAC by the text of the key",
            hs256(jwk.as_bytes(), &with_key),
        ),
        ("an HMAC by nothing", hs256(b"", &with_key)),
        (
            "a stranger's, under a name that is known",
            stranger.sign(&claims),
        ),
        (
            "a stranger's, without a name",
            stranger.sign_as(&json!({ "alg": "ES256" }), &claims),
        ),
        (
            "with the key to check it with",
            stranger.sign_as(&own_key, &claims),
        ),
        (
            "of another algorithm than the key",
            site.key.sign_as(&rsa, &claims),
        ),
        (
            "the signature of another token",
            format!("{other}.{signature}"),
        ),
    ];
    for (what, token) in cases {
        let answer = send(&site.logout, form(&token)).await;
        assert_eq!(answer.status, 400, "{what}");
        assert_eq!(answer.headers["content-type"], "application/json");
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(body["error"], "invalid_request");
        assert!(body["error_description"].is_string());
    }
    assert_eq!(site.alive(&["phone"]).await, ["phone"]);
    assert_eq!(status(&site.logout, &good).await, 200);
    assert!(site.alive(&["phone"]).await.is_empty());
}

fn owned((head, signature): (&str, &str)) -> (String, String) {
    (head.to_owned(), signature.to_owned())
}

/// The checks of the claims are a table beside the code; that they are made is shown here.
#[tokio::test]
async fn tokens_that_the_issuer_has_signed_for_something_else_end_nothing() {
    let site = Site::start().await;
    site.sign_in("phone", "1", "ada").await;
    let mut claims = site.claims("a");
    claims["sid"] = "1".into();
    let changes = [
        ("iss", json!("https://login.example")),
        ("aud", json!("another")),
        ("iat", json!(1)),
        ("exp", json!(1)),
        ("events", json!({})),
        ("nonce", json!("n")),
        ("jti", json!("")),
        ("sid", json!("\u{1}")),
        ("sid", json!("x".repeat(2000))),
    ];
    for (name, value) in changes {
        let mut claims = claims.clone();
        claims[name] = value;
        assert_eq!(
            status(&site.logout, &site.key.sign(&claims)).await,
            400,
            "{name}"
        );
    }
    let header = json!({ "alg": "ES256", "kid": "1", "typ": "at+jwt" });
    let token = site.key.sign_as(&header, &claims);
    assert_eq!(status(&site.logout, &token).await, 400);
    assert_eq!(site.alive(&["phone"]).await, ["phone"]);
}
