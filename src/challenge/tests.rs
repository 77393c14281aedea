//! Fields as APIs send them, and as none should.

use super::*;

fn challenge(fields: &[&str]) -> Option<Challenge> {
    let mut headers = HeaderMap::new();
    for field in fields {
        let field = HeaderValue::from_bytes(field.as_bytes()).unwrap();
        headers.append(WWW_AUTHENTICATE, field);
    }
    Challenge::from_headers(&headers)
}

/// What it asks for: the kind, `acr_values`, `max_age`, scopes and claims.
fn asked(fields: &[&str]) -> Option<String> {
    let challenge = challenge(fields)?;
    let list = |words: Vec<&str>| words.join("+");
    Some(format!(
        "{:?} {} {:?} {} {}",
        challenge.kind(),
        list(challenge.acr_values().collect()),
        challenge.max_age().map(|age| age.as_secs()),
        list(challenge.scopes().collect()),
        challenge.claims().unwrap_or("-"),
    ))
}

#[test]
fn challenges_as_apis_send_them() {
    // The last one is Microsoft's own example.
    let microsoft = r#"Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", client_id="00000003-0000-0000-c000-000000000000", error="insufficient_claims", claims="eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwgInZhbHVlIjoiMTYwNDEwNjY1MSJ9fX0=""#;
    for (fields, expected) in [
        // RFC 9470 §3.
        (
            &[
                r#"Bearer error="insufficient_user_authentication", error_description="A different authentication level is required", acr_values="myACR""#,
            ][..],
            "Authentication myACR None  -",
        ),
        (
            &[
                r#"Bearer error="insufficient_user_authentication", error_description="More recent authentication is required", max_age="5""#,
            ],
            "Authentication  Some(5)  -",
        ),
        (
            &[
                r#"bearer ERROR=insufficient_user_authentication,acr_values="a b  c",max_age=0,scope="s""#,
            ],
            "Authentication a+b+c Some(0) s -",
        ),
        (
            &[r#"Bearer error="insufficient_user_authentication""#],
            "Authentication  None  -",
        ),
        // RFC 6750 §3.1, beside other schemes, and in several fields.
        (
            &[r#"Bearer realm="example", error="insufficient_scope", scope="read write""#],
            "Scope  None read+write -",
        ),
        (
            &[
                "Negotiate",
                "NTLM TlRM==",
                r#"Basic realm="a, b", Bearer error="insufficient_scope", scope="s""#,
            ],
            "Scope  None s -",
        ),
        (
            &[
                r#"Bearer error="invalid_token", Bearer error="insufficient_scope", scope="https://x/y.z""#,
            ],
            "Scope  None https://x/y.z -",
        ),
        (
            &[microsoft],
            r#"Claims  None  {"access_token":{"nbf":{"essential":true, "value":"1604106651"}}}"#,
        ),
        // Without padding, and in the alphabet of URLs.
        (
            &[r#"Bearer error="insufficient_claims", claims="eyJhIjoi8J-YgCJ9""#],
            "Claims  None  {\"a\":\"\u{1f600}\"}",
        ),
        (
            &[r#"Bearer error="insufficient_claims", claims="eyJhIjoi8J+YgCJ9""#],
            "Claims  None  {\"a\":\"\u{1f600}\"}",
        ),
    ] {
        assert_eq!(asked(fields).as_deref(), Some(expected), "{fields:?}");
    }
}

#[test]
fn what_asks_for_nothing_that_can_be_got_is_no_challenge() {
    for fields in [
        &[][..],
        &["Bearer"],
        &[r#"Bearer realm="a""#],
        &[r#"Bearer error="invalid_token", scope="s""#],
        &[r#"Bearer error="Insufficient_Scope", scope="s""#],
        &[r#"DPoP error="insufficient_scope", scope="s""#],
        &[r#"Basic error="insufficient_user_authentication""#],
        // What is asked for is missing.
        &[r#"Bearer error="insufficient_scope""#],
        &[r#"Bearer error="insufficient_scope", scope=" ""#],
        &[r#"Bearer error="insufficient_claims""#],
        // Or cannot be read.
        &[r#"Bearer error="insufficient_claims", claims="%%%""#],
        &[r#"Bearer error="insufficient_claims", claims="""#],
        &[r#"Bearer error="insufficient_claims", claims="====""#],
        // `7`, `[]`, and what is no text.
        &[r#"Bearer error="insufficient_claims", claims="Nw==""#],
        &[r#"Bearer error="insufficient_claims", claims="W10=""#],
        &[r#"Bearer error="insufficient_claims", claims="/////w==""#],
        &[r#"Bearer error="insufficient_user_authentication", max_age="-1""#],
        &[r#"Bearer error="insufficient_user_authentication", max_age="+1""#],
        &[r#"Bearer error="insufficient_user_authentication", max_age="""#],
        &[r#"Bearer error="insufficient_user_authentication", max_age="99999999999999999999""#],
        &[r#"Bearer error="insufficient_user_authentication", acr_values="a\"b""#],
        &[r#"Bearer error="insufficient_user_authentication", acr_values="a\\b""#],
        &["Bearer error=\"insufficient_user_authentication\", acr_values=\"\u{e4}\""],
        &[r#"Bearer error="insufficient_scope", scope="a	b""#],
        // Within a quoted string, repeated, or not closed.
        &[r#"Basic realm="Bearer error=insufficient_user_authentication""#],
        &[r#"Bearer error="invalid_token", error="insufficient_user_authentication""#],
        &[r#"Bearer error="insufficient_user_authentication"#],
    ] {
        assert_eq!(asked(fields), None, "{fields:?}");
    }
    // More than can be passed on, of each kind.
    let long = "x".repeat(3 * 1024);
    let claims = STANDARD.encode(format!(r#"{{"a":"{long}"}}"#));
    for field in [
        format!(r#"Bearer error="insufficient_user_authentication", acr_values="{long}""#),
        format!(
            r#"Bearer error="insufficient_scope", scope="{}""#,
            "s ".repeat(1600)
        ),
        format!(r#"Bearer error="insufficient_claims", claims="{claims}""#),
    ] {
        assert_eq!(asked(&[&field]), None, "{}", field.len());
    }
    let mut many = vec!["Negotiate"; 16];
    many.push(r#"Bearer error="insufficient_user_authentication""#);
    assert_eq!(asked(&many), None);
    assert!(asked(&many[1..]).is_some());
}

#[test]
fn a_challenge_can_be_passed_on() {
    for field in [
        r#"Bearer error="insufficient_user_authentication", acr_values="a b", max_age="300", scope="s""#,
        r#"Bearer error="insufficient_scope", scope="read write""#,
        r#"Bearer error="insufficient_claims", claims="eyJhIjp7fX0=""#,
    ] {
        let challenge = challenge(&[field]).unwrap();
        assert_eq!(challenge.to_header(), field);
        let kept = serde_json::to_string(&challenge).unwrap();
        assert!(serde_json::from_str::<Challenge>(&kept).unwrap() == challenge);
        let shown = format!("{challenge:?}");
        assert!(shown.starts_with("Challenge("), "{shown}");
        assert!(!shown.contains('"'), "{shown}");
    }
    assert!(serde_json::from_str::<Challenge>(r#""Bearer""#).is_err());
    // A time that no clock reaches is the longest that there is.
    let long = r#"Bearer error="insufficient_user_authentication", max_age="18446744073709551615""#;
    assert!(challenge(&[long]).unwrap().max_age().is_some());
}
