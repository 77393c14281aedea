//! Logins that are asked for more, and what has to come of them.

use std::time::Duration;

use http::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use serde_json::{Value, json};
use url::Url;

use super::scripted::Scripted;
use super::user_tests::{back, device, flow, param, signed_in_with, tokens};
use super::*;
use crate::challenge::Challenge;
use crate::time::Timestamp;

fn challenge(field: &'static str) -> Challenge {
    let field = HeaderValue::from_static(field);
    let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, field)]);
    Challenge::from_headers(&headers).unwrap()
}

/// All values of these parameters in a URL, as `name=value`.
fn params(url: &str, names: &[&str]) -> Vec<String> {
    let url = Url::parse(url).unwrap();
    let pairs = url.query_pairs();
    let pairs = pairs.filter(|(name, _)| names.contains(&&**name));
    let mut shown = Vec::from_iter(pairs.map(|(name, value)| format!("{name}={value}")));
    shown.sort();
    shown
}

const DEMANDED: [&str; 5] = ["acr_values", "claims", "max_age", "prompt", "scope"];

#[tokio::test]
async fn a_login_asks_for_what_an_api_has_demanded() {
    let provider = Scripted::new();
    let client = provider.client().scopes(["openid", "read"]);
    let own = flow(client)
        .max_age(Duration::from_secs(300))
        .param("prompt", "consent")
        .and_then(|flow| flow.param("acr_values", "wish"))
        .and_then(|flow| flow.param("claims", "{}"))
        .unwrap();
    let tokens = tokens();
    for (field, expected) in [
        (
            r#"Bearer error="insufficient_user_authentication""#,
            [
                "acr_values=wish",
                "claims={}",
                "max_age=300",
                "prompt=consent",
                "scope=openid read",
            ],
        ),
        // Of two ages the shorter counts.
        (
            r#"Bearer error="insufficient_user_authentication", acr_values="a b", max_age=60"#,
            [
                "acr_values=a b",
                "claims={}",
                "max_age=60",
                "prompt=consent",
                "scope=openid read",
            ],
        ),
        (
            r#"Bearer error="insufficient_user_authentication", max_age=3600"#,
            [
                "acr_values=wish",
                "claims={}",
                "max_age=300",
                "prompt=consent",
                "scope=openid read",
            ],
        ),
        (
            r#"Bearer error="insufficient_scope", scope="write read""#,
            [
                "acr_values=wish",
                "claims={}",
                "max_age=300",
                "prompt=consent",
                "scope=openid read write",
            ],
        ),
        (
            r#"Bearer error="insufficient_claims", claims="eyJhIjp7fX0=""#,
            [
                "acr_values=wish",
                r#"claims={"a":{}}"#,
                "max_age=300",
                "prompt=consent",
                "scope=openid read",
            ],
        ),
    ] {
        let url = own.clone().step_up(&challenge(field));
        let url = url.begin(&tokens, "/").await.unwrap();
        assert_eq!(params(&url, &DEMANDED), expected, "{field}");
    }
    // The flow itself asks for no more than before.
    let url = own.begin(&tokens, "/").await.unwrap();
    assert_eq!(param(&url, "acr_values"), "wish");
}

/// The login was begun by a clone of the flow, and is ended by the flow.
#[tokio::test]
async fn the_id_token_says_that_it_was_done() {
    let provider = Scripted::new();
    let (own, tokens) = (flow(provider.client().scopes(["openid"])), tokens());
    let demanded = challenge(
        r#"Bearer error="insufficient_user_authentication", acr_values="phr mfa", max_age=60"#,
    );
    let now = Timestamp::now().as_millis() / 1000;
    for (claims, expected) in [
        (json!({"acr": "mfa", "auth_time": now}), None),
        (json!({"acr": "phr", "auth_time": now - 60}), None),
        (
            json!({"acr": "pwd", "auth_time": now}),
            Some(IdTokenError::Acr),
        ),
        (json!({"auth_time": now}), Some(IdTokenError::Acr)),
        (
            json!({"acr": "mfa", "auth_time": now - 300}),
            Some(IdTokenError::AuthTime),
        ),
        (json!({"acr": "mfa"}), Some(IdTokenError::AuthTime)),
    ] {
        let url = own.clone().step_up(&demanded);
        let url = url.begin(&tokens, "/").await.unwrap();
        let answer = signed_in_with(&param(&url, "nonce"), claims.clone());
        provider.answer([(200, answer)]);
        let refused = match own.end(&tokens, back(&url)).await {
            Ok(_) => None,
            Err(LoginError::IdToken(error)) => Some(error),
            Err(other) => panic!("{claims}: {other:?}"),
        };
        assert_eq!(refused, expected, "{claims}");
    }
}

#[test]
fn classes_are_words() {
    let provider = Scripted::new();
    for odd in ["", "a b", "a\n", "\t"] {
        let refused = flow(provider.client()).acr_values(["mfa", odd]);
        assert_eq!(refused.unwrap_err().option(), "acr_values", "{odd:?}");
    }
    assert!(flow(provider.client()).acr_values(["urn:a:b", "é"]).is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_id_token_of_a_device_is_checked() {
    let provider = Scripted::new();
    let poll = async |scopes: &[&str], answer: String| {
        provider.answer([(200, device("")), (200, answer)]);
        let client = provider.client().scopes(scopes.iter().copied());
        client.authorize_device().await.unwrap().poll().await
    };
    for (claims, expected) in [
        (json!({"aud": "other"}), IdTokenError::Audience),
        (json!({"iss": "https://evil.example"}), IdTokenError::Issuer),
        (json!({"sub": ""}), IdTokenError::Subject),
        (json!({"exp": 1}), IdTokenError::Expired),
        (json!({"iat": Value::Null}), IdTokenError::IssuedAt),
    ] {
        match poll(&["openid"], signed_in_with("n", claims.clone())).await {
            Err(DeviceError::IdToken(error)) => assert_eq!(error, expected, "{claims}"),
            other => panic!("{claims}: {other:?}"),
        }
    }
    let bare = r#"{"access_token":"a"}"#;
    let missing = poll(&["openid"], bare.into()).await;
    assert!(
        matches!(missing, Err(DeviceError::IdToken(IdTokenError::Missing))),
        "{missing:?}"
    );
    // Without `openid` nothing is believed of what it says.
    let login = poll(&["mail"], signed_in_with("n", json!({"aud": "other"})));
    assert!(login.await.unwrap().claims().is_err());
    let login = poll(&["openid"], signed_in_with("n", json!({"sid": "s"})));
    let login = login.await.unwrap();
    assert_eq!(login.claims().unwrap().session_id(), Some("s"));
}

/// Else an API, or who can speak for it, would have the user sign in with less than this application asks of everyone.
#[tokio::test]
async fn no_api_makes_a_login_a_weaker_one() {
    let provider = Scripted::new();
    for (demanded, expected) in [
        ("pwd", "phr mfa"),
        ("pwd mfa", "mfa"),
        ("mfa phr", "mfa phr"),
        ("", "phr mfa"),
    ] {
        let field = format!(
            r#"Bearer error="insufficient_user_authentication", acr_values="{demanded}", max_age=999"#
        );
        let flow = flow(provider.client()).acr_values(["phr", "mfa"]).unwrap();
        let flow = flow.max_age(Duration::from_secs(60));
        let flow = flow.step_up(&challenge(field.leak()));
        let url = flow.begin(&tokens(), "/").await.unwrap();
        let found = params(&url, &["acr_values", "max_age"]);
        let expected = [format!("acr_values={expected}"), "max_age=60".to_owned()];
        assert_eq!(found, expected, "{demanded}");
    }
}
