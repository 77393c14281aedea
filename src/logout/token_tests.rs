use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::LogoutError;
use super::token::{Compact, Expected, Logout, Subject};
use crate::time::Timestamp;

const NOW: u64 = 1_790_000_000;

fn now() -> Timestamp {
    Timestamp::from_millis(NOW * 1000)
}

fn valid() -> Map<String, Value> {
    let claims = json!({
        "iss": "https://login.example",
        "aud": "app",
        "iat": NOW,
        "exp": NOW + 120,
        "jti": "bWJq",
        "sid": "08a5019c",
        "sub": "248289761001",
        "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
    });
    serde_json::from_value(claims).unwrap()
}

fn check(claims: &Map<String, Value>, now: Timestamp) -> Result<Logout, &'static str> {
    let expected = Expected {
        issuer: "https://login.example",
        client_id: "app",
    };
    Logout::of(claims, &expected, now).map_err(reason)
}

fn reason(error: LogoutError) -> &'static str {
    match error {
        LogoutError::Invalid(reason) => reason,
        error => panic!("{error}"),
    }
}

/// The valid claims with this one instead; `null` removes it.
fn with(name: &str, value: Value) -> Map<String, Value> {
    let mut claims = valid();
    match value.is_null() {
        true => claims.remove(name),
        false => claims.insert(name.to_owned(), value),
    };
    claims
}

#[test]
fn claims_with_one_fault_are_refused_for_it() {
    let events = |member: &str, value: Value| json!({ member: value });
    const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
    let cases = [
        (
            "iss",
            json!("https://login.example/"),
            "`iss` is another issuer",
        ),
        (
            "iss",
            json!(["https://login.example"]),
            "`iss` is another issuer",
        ),
        ("iss", Value::Null, "`iss` is another issuer"),
        ("aud", json!("other"), "`aud` does not name this client"),
        (
            "aud",
            json!(["other", "APP"]),
            "`aud` does not name this client",
        ),
        ("aud", json!([["app"]]), "`aud` does not name this client"),
        (
            "aud",
            json!({ "app": "app" }),
            "`aud` does not name this client",
        ),
        ("aud", Value::Null, "`aud` does not name this client"),
        ("iat", json!(NOW - 361), "`iat` is too long ago"),
        ("iat", json!(NOW + 61), "`iat` is in the future"),
        ("iat", json!(NOW.to_string()), "`iat` is missing"),
        ("iat", json!(-1), "`iat` is missing"),
        ("iat", Value::Null, "`iat` is missing"),
        ("exp", json!(NOW - 60), "it has expired"),
        ("exp", json!(true), "`exp` is missing"),
        ("exp", Value::Null, "`exp` is missing"),
        ("nbf", json!(NOW + 61), "`nbf` is in the future"),
        ("nbf", json!("soon"), "`nbf` is in the future"),
        (
            "events",
            events("other", json!({})),
            "`events` does not ask for a logout",
        ),
        (
            "events",
            events(EVENT, json!(true)),
            "`events` does not ask for a logout",
        ),
        (
            "events",
            json!([EVENT]),
            "`events` does not ask for a logout",
        ),
        ("events", Value::Null, "`events` does not ask for a logout"),
        (
            "nonce",
            json!("n-0S6"),
            "it has a `nonce`, as id tokens have",
        ),
        ("jti", json!(""), "`jti` is missing"),
        ("jti", json!(7), "`jti` is missing"),
        ("jti", Value::Null, "`jti` is missing"),
        ("sid", json!(""), "`sid` or `sub` is no text"),
        ("sid", json!(["08a5019c"]), "`sid` or `sub` is no text"),
        ("sub", json!(248), "`sid` or `sub` is no text"),
    ];
    assert!(check(&valid(), now()).is_ok());
    for (name, value, expected) in cases {
        let claims = with(name, value.clone());
        assert_eq!(check(&claims, now()), Err(expected), "{name}: {value}");
    }
    let mut neither = with("sid", Value::Null);
    neither.remove("sub");
    let expected = Err("it has neither `sid` nor `sub`");
    assert_eq!(check(&neither, now()), expected);
    // A `nonce` counts whatever it is.
    let mut claims = valid();
    claims.insert("nonce".into(), Value::Null);
    assert!(check(&claims, now()).is_err());
}

#[test]
fn valid_claims_name_the_session_or_else_the_user() {
    let session = Subject::Session("08a5019c".into());
    let user = Subject::User("248289761001".into());
    let cases = [
        (valid(), &session),
        (with("sub", Value::Null), &session),
        (with("sid", Value::Null), &user),
        (with("aud", json!(["other", "app"])), &session),
        (with("iat", json!(NOW as f64 + 0.5)), &session),
        (with("iat", json!(NOW - 359)), &session),
        (with("exp", json!(NOW - 59)), &session),
        (with("nbf", json!(NOW)), &session),
    ];
    for (claims, subject) in cases {
        let logout = check(&claims, now()).unwrap();
        assert_eq!((&logout.subject, &*logout.jti), (subject, "bWJq"));
    }
    let late = now().saturating_add(Duration::from_secs(3600));
    assert_eq!(check(&valid(), late), Err("`iat` is too long ago"));
}

fn compact(header: &str) -> String {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.{}", encode(header), encode("{}"), encode("signed"))
}

fn read(token: &str) -> Result<(), &'static str> {
    Compact::read(token).map(drop).map_err(reason)
}

#[test]
fn headers_with_one_fault_are_refused_for_it() {
    let cases = [
        (r#"{"alg":"none"}"#, "`alg` is not accepted"),
        (r#"{"alg":"None"}"#, "`alg` is not accepted"),
        (r#"{"alg":""}"#, "`alg` is not accepted"),
        (r#"{"alg":"HS256","kid":"1"}"#, "`alg` is not accepted"),
        (r#"{"alg":"HS512","kid":"1"}"#, "`alg` is not accepted"),
        (r#"{"alg":"rs256"}"#, "`alg` is not accepted"),
        (
            r#"{"alg":"RS256","crit":["b64"]}"#,
            "`crit` is not understood",
        ),
        (
            r#"{"alg":"RS256","typ":"at+jwt"}"#,
            "`typ` is another kind of token's",
        ),
        (
            r#"{"alg":"RS256","typ":"application/at+jwt"}"#,
            "`typ` is another kind of token's",
        ),
        (
            r#"{"alg":"RS256","typ":"secevent+jwt"}"#,
            "`typ` is another kind of token's",
        ),
        (
            r#"{"alg":"RS256","typ":""}"#,
            "`typ` is another kind of token's",
        ),
        (r#"{"kid":"1"}"#, "its header cannot be read"),
        (r#"{"alg":["RS256"]}"#, "its header cannot be read"),
        (
            r#"{"alg":"none","alg":"RS256"}"#,
            "its header cannot be read",
        ),
        ("RS256", "its header cannot be read"),
    ];
    for (header, expected) in cases {
        assert_eq!(read(&compact(header)), Err(expected), "{header}");
    }
    let typed = |typ: &str| compact(&format!(r#"{{"alg":"RS256","typ":"{typ}"}}"#));
    for typ in ["logout+jwt", "application/logout+jwt", "LOGOUT+JWT", "JWT"] {
        assert_eq!(read(&typed(typ)), Ok(()), "{typ}");
    }
    assert_eq!(
        read(&compact(r#"{"alg":"ES256","jku":"https://evil.example"}"#)),
        Ok(())
    );
}

#[test]
fn what_has_not_three_parts_is_no_token() {
    let whole = compact(r#"{"alg":"RS256"}"#);
    let (header_and_claims, _) = whole.rsplit_once('.').unwrap();
    let encrypted = format!("{whole}.x.y");
    for token in [
        "",
        "..",
        "a.b",
        header_and_claims,
        &encrypted,
        &format!("{whole}="),
    ] {
        assert!(read(token).is_err(), "{token}");
    }
}
