//! What a provider can answer to logins, devices and revocations.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout};
use url::Url;

use super::scripted::Scripted;
use super::*;
use crate::acquire::AcquireErrorKind;
use crate::cache::TokenCache;
use crate::key::PartitionKey;
use crate::secret::Secret;
use crate::store::MemoryStore;
use crate::time::Timestamp;
use crate::tokens::Tokens;

const TOKENS: &str = r#"{"access_token":"a","refresh_token":"r","token_type":"Bearer"}"#;
const CALLBACK: &str = "https://app.example/callback";

pub(super) fn tokens() -> Tokens {
    let cache = TokenCache::builder(MemoryStore::new()).build().unwrap();
    cache.tokens(PartitionKey::session("s").unwrap())
}

pub(super) fn flow(client: Client) -> AuthorizationCode {
    AuthorizationCode::new(client, CALLBACK).unwrap()
}

pub(super) fn param(url: &str, name: &str) -> String {
    let url = Url::parse(url).unwrap();
    let mut pairs = url.query_pairs();
    let found = pairs.find(|(own, _)| own == name);
    found.expect(name).1.into_owned()
}

/// The provider has sent the browser of this login back.
pub(super) fn back(url: &str) -> Callback {
    Callback {
        code: Some("c".into()),
        state: Some(param(url, "state").into()),
        iss: None,
        error: None,
    }
}

/// An answer with an id token for the nonce.
pub(super) fn signed_in(nonce: &str) -> String {
    signed_in_with(nonce, json!({}))
}

/// The same with these claims beside it, or in its place.
pub(super) fn signed_in_with(nonce: &str, more: serde_json::Value) -> String {
    let now = Timestamp::now().as_millis() / 1000;
    let mut claims = json!({
        "iss": "https://login.example", "aud": "app", "sub": "ada", "nonce": nonce, "iat": now, "exp": now + 60,
    });
    for (name, value) in more.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    let [header, claims] =
        [json!({"alg": "RS256"}), claims].map(|json| URL_SAFE_NO_PAD.encode(json.to_string()));
    json!({"access_token": "a", "id_token": format!("{header}.{claims}.c2ln")}).to_string()
}

#[tokio::test]
async fn the_code_is_redeemed_with_the_verifier_of_the_challenge() {
    let provider = Scripted::new();
    let client = provider
        .client()
        .scopes(["openid"])
        .resource("https://api.example");
    let (flow, tokens) = (flow(client), tokens());
    let url = flow.begin(&tokens, "/after").await.unwrap();
    assert_eq!(param(&url, "resource"), "https://api.example");
    provider.answer([(200, signed_in(&param(&url, "nonce")))]);
    let login = flow.end(&tokens, back(&url)).await.unwrap();
    assert_eq!(login.claims().unwrap().subject(), "ada");
    let asked = provider.asked().pop().unwrap();
    assert_eq!(asked.path, "/token");
    assert!(asked.headers.contains_key("authorization"));
    for (name, value) in [
        ("grant_type", "authorization_code"),
        ("code", "c"),
        ("redirect_uri", CALLBACK),
        ("resource", "https://api.example"),
    ] {
        assert_eq!(asked.form[name], value);
    }
    let challenge = Sha256::digest(&asked.form["code_verifier"]);
    assert_eq!(
        param(&url, "code_challenge"),
        URL_SAFE_NO_PAD.encode(challenge)
    );
    assert_eq!(asked.form.len(), 5);
}

#[tokio::test]
async fn an_id_token_of_another_login_signs_no_one_in() {
    let provider = Scripted::new();
    let (flow, tokens) = (flow(provider.client().scopes(["openid"])), tokens());
    let url = flow.begin(&tokens, "/").await.unwrap();
    provider.answer([(200, signed_in("another"))]);
    let refused = flow.end(&tokens, back(&url)).await.unwrap_err();
    assert!(
        matches!(refused, LoginError::IdToken(IdTokenError::Nonce)),
        "{refused:?}"
    );
    let url = flow.begin(&tokens, "/").await.unwrap();
    provider.answer([(200, TOKENS)]);
    let refused = flow.end(&tokens, back(&url)).await.unwrap_err();
    assert!(
        matches!(refused, LoginError::IdToken(IdTokenError::Missing)),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_session_at_the_provider_that_no_logout_token_can_name_costs_no_login() {
    let provider = Scripted::new();
    let (flow, tokens) = (flow(provider.client().scopes(["openid"])), tokens());
    for (sid, links) in [
        (json!("1"), 2),
        (json!(null), 1),
        (json!(7), 1),
        (json!(""), 1),
        (json!("a\u{1}"), 1),
        (json!("a".repeat(1025)), 1),
    ] {
        let url = flow.begin(&tokens, "/").await.unwrap();
        provider.answer([(
            200,
            signed_in_with(&param(&url, "nonce"), json!({"sid": sid})),
        )]);
        let sign_in = flow.end(&tokens, back(&url)).await.unwrap().sign_in("api");
        assert!(sign_in.links.iter().all(Result::is_ok), "{sid}");
        assert_eq!(sign_in.links.len(), links, "{sid}");
    }
}

#[tokio::test]
async fn without_openid_there_are_tokens_and_no_claims() {
    let provider = Scripted::new();
    let (flow, tokens) = (flow(provider.client().scopes(["repo"])), tokens());
    let url = flow.begin(&tokens, "/").await.unwrap();
    // Of what nobody has asked for nothing is believed.
    provider.answer([(200, signed_in("another"))]);
    let login = flow.end(&tokens, back(&url)).await.unwrap();
    assert_eq!(login.tokens.access().access_token(), "a");
    let missing = login.claims().unwrap_err();
    assert!(
        matches!(missing, LoginError::IdToken(IdTokenError::Missing)),
        "{missing:?}"
    );
}

#[tokio::test]
async fn a_provider_that_does_not_name_itself_need_not_and_must_not_name_another() {
    let provider = Scripted::new();
    let (flow, tokens) = (flow(provider.client()), tokens());
    provider.answer([(200, TOKENS)]);
    for (iss, is_accepted) in [
        (None, true),
        (Some("https://login.example"), true),
        (Some("https://login.example/"), false),
        (Some(""), false),
    ] {
        let url = flow.begin(&tokens, "/").await.unwrap();
        let callback = Callback {
            iss: iss.map(Into::into),
            ..back(&url)
        };
        assert_eq!(
            flow.end(&tokens, callback).await.is_ok(),
            is_accepted,
            "{iss:?}"
        );
    }
    // Two clients at one provider: the code is for the one that has begun.
    let other = self::flow(provider.provider.client("other"));
    let url = flow.begin(&tokens, "/").await.unwrap();
    let refused = other.end(&tokens, back(&url)).await.unwrap_err();
    assert!(matches!(refused, LoginError::WrongIssuer), "{refused:?}");
}

#[tokio::test]
async fn a_provider_that_fails_is_told_apart_from_one_that_refuses() {
    let provider = Scripted::new();
    let (flow, tokens) = (flow(provider.client()), tokens());
    for (status, body, expected) in [
        (400, r#"{"error":"invalid_grant"}"#, 401),
        (401, r#"{"error":"invalid_client"}"#, 502),
        (503, "", 503),
        (500, "<html>", 502),
        (200, "<html>", 502),
        (0, "", 502),
    ] {
        provider.answer([(status, body)]);
        let url = flow.begin(&tokens, "/").await.unwrap();
        let refused = flow.end(&tokens, back(&url)).await.unwrap_err();
        assert_eq!(refused.status(), expected, "{status} {body}: {refused:?}");
    }
    let url = flow.begin(&tokens, "/").await.unwrap();
    let error = Some("<script>".into());
    let callback = Callback {
        error,
        code: None,
        ..back(&url)
    };
    let refused = flow.end(&tokens, callback).await.unwrap_err();
    assert!(!format!("{refused:?}{refused}").contains("script"));
}

pub(super) fn device(interval: &str) -> String {
    format!(
        r#"{{"device_code":"d","user_code":"U","verification_uri":"https://login.example/go","expires_in":600{interval}}}"#
    )
}

fn error(code: &str) -> (u16, String) {
    (400, format!(r#"{{"error":"{code}"}}"#))
}

#[tokio::test(start_paused = true)]
async fn a_device_asks_no_sooner_than_it_is_told() {
    let provider = Scripted::new();
    let start = Instant::now();
    provider.answer([
        (200, device(r#","interval":5"#)),
        error("authorization_pending"),
        error("slow_down"),
        (429, String::new()),
        (0, String::new()),
        (200, r#"{"error":"authorization_pending"}"#.into()),
        (200, signed_in("of another")),
    ]);
    let client = provider.client().scopes(["openid", "mail"]);
    let mut device = client.authorize_device().await.unwrap();
    // Another call goes on where the first one was.
    timeout(Duration::from_secs(3), device.poll())
        .await
        .unwrap_err();
    let login = device.poll().await.unwrap();
    assert_eq!(login.claims().unwrap().subject(), "ada");
    assert_eq!(login.return_to, "/");
    let asked = provider.asked();
    let times = asked
        .iter()
        .map(|asked| asked.at.duration_since(start).as_secs());
    // The fourth question is answered with 20 s in `Retry-After`, and the fifth not at all.
    assert_eq!(times.collect::<Vec<_>>(), [0, 5, 10, 20, 40, 70, 100]);
    assert_eq!(
        (&*asked[0].path, &*asked[0].form["scope"]),
        ("/device", "openid mail")
    );
    assert_eq!(
        (&*asked[1].path, &*asked[1].form["device_code"]),
        ("/token", "d")
    );
    assert_eq!(
        asked[1].form["grant_type"],
        "urn:ietf:params:oauth:grant-type:device_code"
    );
}

#[tokio::test(start_paused = true)]
async fn a_device_gives_up_when_the_code_has_expired() {
    let provider = Scripted::new();
    let start = Instant::now();
    let short = device(r#","interval":5"#).replace("600", "12");
    provider.answer([(200, short), error("authorization_pending")]);
    let mut device = provider.client().authorize_device().await.unwrap();
    // Whoever asks once more is told so without a question.
    for _ in 0..3 {
        assert!(matches!(device.poll().await, Err(DeviceError::Expired)));
    }
    let times = provider.asked();
    let times = times
        .iter()
        .map(|asked| asked.at.duration_since(start).as_secs());
    assert_eq!(times.collect::<Vec<_>>(), [0, 5, 10, 12]);
}

#[tokio::test(start_paused = true)]
async fn a_device_is_told_what_became_of_it() {
    let provider = Scripted::new();
    for (code, is_expected) in [
        (
            "access_denied",
            (|error| matches!(error, DeviceError::Denied)) as fn(DeviceError) -> bool,
        ),
        ("expired_token", |error| {
            matches!(error, DeviceError::Expired)
        }),
        ("invalid_grant", |error| {
            matches!(error, DeviceError::Provider(_))
        }),
    ] {
        provider.answer([(200, device("")), self::error(code)]);
        let mut device = provider.client().authorize_device().await.unwrap();
        assert!(is_expected(device.poll().await.unwrap_err()), "{code}");
    }
    for odd in [
        "{}",
        "<html>",
        r#"{"device_code":"d","user_code":"U","expires_in":600}"#,
    ] {
        provider.answer([(200, odd)]);
        let refused = provider.client().authorize_device().await.unwrap_err();
        assert!(
            matches!(refused, DeviceError::Provider(_)),
            "{odd}: {refused:?}"
        );
    }
    let old = device("").replace("verification_uri", "verification_url");
    provider.answer([(200, old)]);
    let device = provider.client().authorize_device().await.unwrap();
    assert_eq!(device.verification_uri(), "https://login.example/go");
}

#[tokio::test]
async fn the_pause_of_a_device_has_bounds() {
    let provider = Scripted::new();
    for (interval, seconds) in [
        ("", 5),
        (r#","interval":7"#, 7),
        (r#","interval":"7""#, 7),
        (r#","interval":0"#, 1),
        (r#","interval":-3"#, 1),
        (r#","interval":1e9"#, 300),
        (r#","interval":"soon""#, 5),
    ] {
        provider.answer([(200, device(interval))]);
        let device = provider.client().authorize_device().await.unwrap();
        assert_eq!(device.interval().as_secs(), seconds, "{interval}");
    }
}

#[tokio::test]
async fn a_revocation_says_what_the_provider_has_done() {
    let provider = Scripted::new();
    let revoke = async |status, body: &str| {
        provider.answer([(status, body)]);
        provider.client().revoke(&Secret::from("r")).await
    };
    for (status, body) in [
        (200, ""),
        (200, "{}"),
        (204, ""),
        (200, r#"{"ok":true}"#),
        // In words, which are an error's elsewhere (§2.2).
        (200, r#"{"message":"Token revoked"}"#),
        (200, r#"{"status":"token expired"}"#),
        // Of a token that is none, or none any more.
        (400, r#"{"error":"invalid_grant"}"#),
        (400, r#"{"error":"bad_refresh_token"}"#),
        (200, r#"{"ok":false,"error":"token_revoked"}"#),
        (200, r#"{"ok":false,"error":"invalid_refresh_token"}"#),
        // Google's, of a token that is revoked already.
        (
            400,
            r#"{"error":"invalid_token","error_description":"Token expired or revoked"}"#,
        ),
    ] {
        revoke(status, body).await.unwrap();
    }
    let asked = provider.asked().pop().unwrap();
    assert_eq!(asked.path, "/revoke");
    assert_eq!(
        (&*asked.form["token"], &*asked.form["token_type_hint"]),
        ("r", "refresh_token")
    );
    assert_eq!(asked.form.len(), 2);
    assert!(asked.headers.contains_key("authorization"));

    for (status, body) in [(503, ""), (429, ""), (500, "<html>"), (502, ""), (0, "")] {
        match revoke(status, body).await.unwrap_err() {
            RevocationError::Unavailable(error) if status == 503 => {
                assert_eq!(error.kind(), AcquireErrorKind::RetryLater);
                assert_eq!(error.retry_after(), Some(Duration::from_secs(20)));
            }
            RevocationError::Unavailable(_) => {}
            other => panic!("{status}: {other:?}"),
        }
    }
    for (status, body) in [
        (401, r#"{"error":"invalid_client"}"#),
        (400, r#"{"error":"invalid_request"}"#),
        (200, r#"{"ok":false,"error":"invalid_request"}"#),
        (404, "<html>"),
        (302, ""),
    ] {
        let refused = revoke(status, body).await.unwrap_err();
        assert!(
            matches!(refused, RevocationError::Refused(_)),
            "{status}: {refused:?}"
        );
    }
    let refused = revoke(400, r#"{"error":"unsupported_token_type"}"#)
        .await
        .unwrap_err();
    assert!(
        matches!(refused, RevocationError::UnsupportedTokenType),
        "{refused:?}"
    );
}
