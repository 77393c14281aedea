//! What an id token says, and whether it is for this login.

use std::fmt;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::id_token::part;
use crate::key::PartitionKey;
use crate::secret::Secret;
use crate::time::Timestamp;

/// By how much the clock of the provider may differ from ours: what others allow, and little beside the lifetime of an
/// id token.
const SKEW: Duration = Duration::from_secs(60);

/// Google writes its issuer with and without `https://`, and says that both are meant.
const GOOGLE: (&str, &str) = ("https://accounts.google.com", "accounts.google.com");

/// The claims of an id token that was checked (OpenID Connect Core §2).
///
/// `Debug` shows none: they are about a person.
#[derive(Clone, PartialEq)]
pub struct Claims(Map<String, Value>);

impl Claims {
    /// Those of an id token that was checked.
    pub(super) fn of(id_token: &Secret) -> Option<Self> {
        Some(Self(object(id_token, 1)?))
    }

    /// Whom the token is about (`sub`): the provider's own name for the user, which it gives to no other.
    pub fn subject(&self) -> &str {
        self.text("sub")
    }

    /// The provider (`iss`), as the [`Provider`](super::Provider) is called: Google signs under two names.
    pub fn issuer(&self) -> &str {
        self.text("iss")
    }

    /// The session at the provider (`sid`; OpenID Connect Front-Channel Logout §3), which its logout tokens name.
    pub fn session_id(&self) -> Option<&str> {
        self.0.get("sid").and_then(Value::as_str)
    }

    /// Another claim: `None` when it is absent or of another type.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        T::deserialize(self.0.get(name)?).ok()
    }

    fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn time(&self, name: &str) -> Option<Timestamp> {
        let seconds = self.0.get(name)?.as_f64()?;
        Some(Timestamp::from_millis((seconds * 1000.0) as u64))
    }
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claims([redacted])")
    }
}

/// What the id token of a login has to say.
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) client_id: &'a str,
    /// `None` where no nonce was sent.
    pub(super) nonce: Option<&'a str>,
    /// How long ago the user may have signed in at the provider, if that was asked for.
    pub(super) max_age: Option<Duration>,
    /// The authentication context classes, of one of which the login has to be, if that was asked for.
    pub(super) acr_values: &'a [Box<str>],
    pub(super) now: Timestamp,
}

/// The claims of an id token that came from the token endpoint by TLS, which vouches for the provider in place of the
/// signature (OpenID Connect Core §3.1.3.7, 6).
pub(super) fn check(id_token: &Secret, expected: &Expected<'_>) -> Result<Claims, IdTokenError> {
    let header = object(id_token, 0).ok_or(IdTokenError::Unreadable)?;
    let mut claims = Claims::of(id_token).ok_or(IdTokenError::Unreadable)?;
    let signature = id_token.expose().split('.').nth(2);
    let algorithm = header.get("alg").and_then(Value::as_str);
    // Allowed only where a client has registered for it (§2).
    let algorithm = algorithm.filter(|name| !name.eq_ignore_ascii_case("none"));
    if algorithm.is_none() || signature.unwrap_or_default().is_empty() {
        return Err(IdTokenError::Unsigned);
    }
    let issuer = claims.text("iss");
    if issuer != expected.issuer {
        if (expected.issuer, issuer) != GOOGLE {
            return Err(IdTokenError::Issuer);
        }
        // One name in links and in what ends them.
        claims.0.insert("iss".to_owned(), GOOGLE.0.into());
    }
    if !is_for(&claims, expected.client_id) {
        return Err(IdTokenError::Audience);
    }
    if PartitionKey::epoch_of_provider_user(expected.issuer, claims.subject()).is_err() {
        return Err(IdTokenError::Subject);
    }
    if expected
        .nonce
        .is_some_and(|nonce| claims.text("nonce") != nonce)
    {
        return Err(IdTokenError::Nonce);
    }
    let latest = expected.now.saturating_add(SKEW);
    let end = claims.time("exp").ok_or(IdTokenError::Expired)?;
    if end.saturating_add(SKEW) <= expected.now {
        return Err(IdTokenError::Expired);
    }
    let issued = claims.time("iat").ok_or(IdTokenError::IssuedAt)?;
    let begins = claims.time("nbf").unwrap_or(issued);
    if issued > latest || begins > latest {
        return Err(IdTokenError::IssuedAt);
    }
    if let Some(max_age) = expected.max_age {
        let signed_in = claims.time("auth_time").ok_or(IdTokenError::AuthTime)?;
        if signed_in.saturating_add(max_age).saturating_add(SKEW) < expected.now {
            return Err(IdTokenError::AuthTime);
        }
    }
    let acr = claims.text("acr");
    let mut accepted = expected.acr_values.iter();
    if !expected.acr_values.is_empty() && !accepted.any(|value| **value == *acr) {
        return Err(IdTokenError::Acr);
    }
    Ok(claims)
}

/// A part of an id token.
fn object(id_token: &Secret, index: usize) -> Option<Map<String, Value>> {
    serde_json::from_slice(&part(id_token, index)?).ok()
}

/// Whether the token is for this client (§3.1.3.7, 3 to 5). Where there are others beside it, it must be the one that
/// has asked.
fn is_for(claims: &Claims, client_id: &str) -> bool {
    let is_alone = match claims.0.get("aud") {
        Some(Value::String(audience)) if audience == client_id => true,
        Some(Value::Array(all)) if all.iter().any(|audience| audience == client_id) => {
            all.len() == 1
        }
        _ => return false,
    };
    match claims.0.get("azp") {
        None => is_alone,
        Some(party) => party == client_id,
    }
}

/// What is wrong with an id token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IdTokenError {
    /// The provider has given none. It gives one for the scope `openid`.
    Missing,
    /// It is no JWT with readable claims. It may be encrypted, which is not supported.
    Unreadable,
    /// It has no signature (`alg` is `none`).
    Unsigned,
    /// It is of another issuer.
    Issuer,
    /// It is for another client (`aud`, `azp`).
    Audience,
    /// It names no user, or by a name that is longer than 1 KiB (255 characters are allowed, §2) or has control characters.
    Subject,
    /// It is of another login.
    Nonce,
    /// It has expired, or does not say when it does; with 60 s for clocks that differ.
    Expired,
    /// It is from the future (`iat`, `nbf`), or does not say when it is from; with 60 s for clocks that differ.
    IssuedAt,
    /// The user has signed in at the provider longer ago than was asked for, or it does not say when.
    AuthTime,
    /// The login is of another authentication context class than was asked for (`acr`), or it does not say of which.
    Acr,
}

impl fmt::Display for IdTokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "there is no id token: ask for the scope `openid`",
            Self::Unreadable => "the id token cannot be read",
            Self::Unsigned => "the id token has no signature",
            Self::Issuer => "the id token is of another issuer",
            Self::Audience => "the id token is for another client",
            Self::Subject => "the id token names no user",
            Self::Nonce => "the id token is of another login",
            Self::Expired => "the id token has expired",
            Self::IssuedAt => "the id token is from the future",
            Self::AuthTime => "the user signed in at the provider too long ago",
            Self::Acr => "the user signed in at the provider in another way than was asked for",
        })
    }
}

impl std::error::Error for IdTokenError {}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    const NOW: u64 = 1_796_000_000;

    fn checked(header: &str, claims: &str) -> Result<Claims, IdTokenError> {
        let [header, claims] = [header, claims].map(|json| URL_SAFE_NO_PAD.encode(json));
        check(&format!("{header}.{claims}.c2ln").into(), &expected())
    }

    fn expected() -> Expected<'static> {
        Expected {
            issuer: "https://login.example",
            client_id: "app",
            nonce: Some("n"),
            max_age: Some(Duration::from_secs(300)),
            acr_values: &[],
            now: Timestamp::from_millis(NOW * 1000),
        }
    }

    fn sound() -> Value {
        json!({
            "iss": "https://login.example", "aud": "app", "sub": "ada", "nonce": "n", "sid": "s",
            "exp": NOW + 3600, "iat": NOW, "auth_time": NOW - 10, "email": "ada@example.test",
        })
    }

    /// The sound claims with one that is other, or is not there.
    fn with(name: &str, value: Value) -> Result<Claims, IdTokenError> {
        let mut claims = sound();
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value,
        }
        checked(r#"{"alg":"RS256"}"#, &claims.to_string())
    }

    #[test]
    fn a_sound_id_token_is_read() {
        let claims = checked(r#"{"alg":"ES256"}"#, &sound().to_string()).unwrap();
        assert_eq!(claims.subject(), "ada");
        assert_eq!(claims.issuer(), "https://login.example");
        assert_eq!(claims.session_id(), Some("s"));
        assert_eq!(
            claims.get::<String>("email").as_deref(),
            Some("ada@example.test")
        );
        assert_eq!(claims.get::<u32>("email"), None);
        assert!(!format!("{claims:?}{claims:#?}").contains("ada"));
        for (name, value) in [
            ("aud", json!(["app"])),
            ("azp", json!("app")),
            ("exp", json!(NOW - 59)),
            ("exp", json!(NOW as f64 + 0.5)),
            ("iat", json!(NOW + 60)),
            ("nbf", json!(NOW + 60)),
            ("auth_time", json!(NOW - 360)),
            ("sid", Value::Null),
        ] {
            assert!(with(name, value.clone()).is_ok(), "{name} {value}");
        }
        let mut several = sound();
        (several["aud"], several["azp"]) = (json!(["api", "app"]), json!("app"));
        assert!(checked(r#"{"alg":"RS256"}"#, &several.to_string()).is_ok());
    }

    #[test]
    fn each_claim_counts() {
        use IdTokenError::*;
        let mut wrong = Vec::new();
        for (error, name, value) in [
            (Issuer, "iss", json!("https://evil.example")),
            (Issuer, "iss", json!("https://login.example/")),
            (Issuer, "iss", json!("login.example")),
            (Issuer, "iss", json!(["https://login.example"])),
            (Issuer, "iss", Value::Null),
            (Audience, "aud", json!("other")),
            (Audience, "aud", json!("App")),
            (Audience, "aud", json!([])),
            (Audience, "aud", json!(["other"])),
            (Audience, "aud", json!(["app", "other"])),
            (Audience, "aud", json!({"app": true})),
            (Audience, "aud", Value::Null),
            (Audience, "azp", json!("other")),
            (Audience, "azp", json!(7)),
            (Subject, "sub", json!("")),
            (Subject, "sub", json!(7)),
            (Subject, "sub", json!("a\u{1}")),
            (Subject, "sub", json!("a".repeat(1025))),
            (Subject, "sub", Value::Null),
            (Nonce, "nonce", json!("m")),
            (Nonce, "nonce", json!("")),
            (Nonce, "nonce", Value::Null),
            (Expired, "exp", json!(NOW - 60)),
            (Expired, "exp", json!("later")),
            (Expired, "exp", json!(-1)),
            (Expired, "exp", Value::Null),
            (IssuedAt, "iat", json!(NOW + 61)),
            (IssuedAt, "iat", json!(1e300)),
            (IssuedAt, "iat", json!("now")),
            (IssuedAt, "iat", Value::Null),
            (IssuedAt, "nbf", json!(NOW + 61)),
            (AuthTime, "auth_time", json!(NOW - 361)),
            (AuthTime, "auth_time", json!("now")),
            (AuthTime, "auth_time", Value::Null),
        ] {
            let checked = with(name, value.clone());
            if checked != Err(error) {
                wrong.push(format!("{name} {value}: {checked:?}"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn the_class_of_the_login_is_one_that_was_asked_for() {
        let token = |claims: &Value| {
            let [header, claims] = [r#"{"alg":"RS256"}"#, &claims.to_string()]
                .map(|json| URL_SAFE_NO_PAD.encode(json));
            Secret::from(format!("{header}.{claims}.c2ln"))
        };
        let acr_values = ["phr".into(), "mfa".into()];
        let of = |acr: Value| {
            let mut claims = sound();
            match acr {
                Value::Null => {}
                acr => claims["acr"] = acr,
            }
            let acr_values = &acr_values;
            check(
                &token(&claims),
                &Expected {
                    acr_values,
                    ..expected()
                },
            )
            .map(|_| ())
        };
        for good in ["phr", "mfa"] {
            assert_eq!(of(json!(good)), Ok(()));
        }
        for bad in [
            json!("0"),
            json!(""),
            json!("MFA"),
            json!("phr mfa"),
            json!(["mfa"]),
            Value::Null,
        ] {
            assert_eq!(of(bad.clone()), Err(IdTokenError::Acr), "{bad}");
        }
    }

    #[test]
    fn a_nonce_that_was_not_sent_is_not_expected() {
        for nonce in [Value::Null, json!("n"), json!("m")] {
            let mut claims = sound();
            claims["nonce"] = nonce;
            let [header, claims] = [r#"{"alg":"RS256"}"#, &claims.to_string()]
                .map(|json| URL_SAFE_NO_PAD.encode(json));
            let expected = Expected {
                nonce: None,
                ..expected()
            };
            assert!(check(&format!("{header}.{claims}.c2ln").into(), &expected).is_ok());
        }
    }

    #[test]
    fn what_is_unsigned_or_unreadable_is_refused() {
        let claims = sound().to_string();
        for header in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"None"}"#,
            "{}",
            r#"{"alg":7}"#,
        ] {
            assert_eq!(
                checked(header, &claims),
                Err(IdTokenError::Unsigned),
                "{header}"
            );
        }
        let [header, payload] =
            [r#"{"alg":"RS256"}"#, &claims].map(|json| URL_SAFE_NO_PAD.encode(json));
        for unsigned in [
            format!("{header}.{payload}."),
            format!("{header}.{payload}"),
        ] {
            assert_eq!(
                check(&unsigned.into(), &expected()),
                Err(IdTokenError::Unsigned)
            );
        }
        assert_eq!(checked("RS256", &claims), Err(IdTokenError::Unreadable));
        for claims in ["", "[]", "7", "null", "{", "\"ada\""] {
            let refused = checked(r#"{"alg":"RS256"}"#, claims);
            assert_eq!(refused, Err(IdTokenError::Unreadable), "{claims}");
        }
    }

    #[test]
    fn google_has_two_names() {
        let claims = json!({
            "iss": "accounts.google.com", "aud": "app", "sub": "ada", "nonce": "n", "exp": NOW + 1, "iat": NOW,
        });
        let [header, claims] =
            [r#"{"alg":"RS256"}"#, &claims.to_string()].map(|json| URL_SAFE_NO_PAD.encode(json));
        let check = |issuer| {
            let expected = Expected {
                issuer,
                max_age: None,
                ..expected()
            };
            check(&format!("{header}.{claims}.c2ln").into(), &expected)
        };
        let name = "https://accounts.google.com";
        assert_eq!(check(name).unwrap().issuer(), name);
        assert_eq!(check("https://login.example"), Err(IdTokenError::Issuer));
    }
}
