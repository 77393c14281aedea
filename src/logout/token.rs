//! The logout token: what it says, and whether it may be believed (OpenID Connect Back-Channel Logout 1.0, §2.6).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::LogoutError;
use super::signature::Algorithm;
use crate::time::Timestamp;

/// How old a token may be, by its `iat`: providers send it at once, and again after minutes at most.
const MAX_AGE: Duration = Duration::from_secs(300);
/// How far the provider's clock, and those of instances, may be from each other.
const SKEW: Duration = Duration::from_secs(60);
/// How long a token that was obeyed has to be known: for longer than it is accepted anywhere.
pub(super) const KNOWN_FOR: Duration = MAX_AGE.saturating_add(SKEW.saturating_mul(3));

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// The parameters of the header that are understood.
#[derive(Deserialize)]
struct RawHeader {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<Value>,
}

/// Which key has signed a token, as the token says.
pub(super) struct Header {
    pub(super) alg: Algorithm,
    pub(super) kid: Option<String>,
}

/// What a valid token asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Logout {
    pub(super) subject: Subject,
    pub(super) jti: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// One session at the provider.
    Session(String),
    /// All sessions of this user.
    User(String),
}

/// Whose tokens are accepted.
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) client_id: &'a str,
}

/// A token in compact form (RFC 7515 §7.1), of which nothing is proven.
pub(super) struct Compact<'a> {
    pub(super) header: Header,
    /// What is signed.
    pub(super) message: &'a [u8],
    pub(super) signature: Vec<u8>,
    claims: &'a str,
}

impl<'a> Compact<'a> {
    pub(super) fn read(token: &'a str) -> Result<Self, LogoutError> {
        let no_jwt = LogoutError::Invalid("it is no signed JWT");
        let mut parts = token.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(no_jwt);
        };
        let message = &token.as_bytes()[..header.len() + 1 + claims.len()];
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| no_jwt)?;
        Ok(Self {
            header: Header::read(header)?,
            message,
            signature,
            claims,
        })
    }

    /// To be believed once the signature is checked.
    pub(super) fn claims(&self) -> Result<Map<String, Value>, LogoutError> {
        json(self.claims).ok_or(LogoutError::Invalid("its claims cannot be read"))
    }
}

fn json<T: DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

impl Header {
    fn read(part: &str) -> Result<Self, LogoutError> {
        let header: Option<RawHeader> = json(part);
        let header = header.ok_or(LogoutError::Invalid("its header cannot be read"))?;
        let alg = Algorithm::of(&header.alg);
        let alg = alg.ok_or(LogoutError::Invalid("`alg` is not accepted"))?;
        if header.crit.is_some() {
            return Err(LogoutError::Invalid("`crit` is not understood"));
        }
        if !header.typ.as_deref().is_none_or(is_accepted_type) {
            return Err(LogoutError::Invalid("`typ` is another kind of token's"));
        }
        Ok(Self {
            alg,
            kid: header.kid,
        })
    }
}

/// `logout+jwt` is what §2.4 recommends, and `JWT` what providers send that do not follow it.
fn is_accepted_type(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    let name = typ.strip_prefix("application/").unwrap_or(&typ);
    matches!(name, "logout+jwt" | "jwt")
}

impl Logout {
    /// What the claims of a token ask for whose signature is the issuer's.
    pub(super) fn of(
        claims: &Map<String, Value>,
        expected: &Expected<'_>,
        now: Timestamp,
    ) -> Result<Self, LogoutError> {
        let invalid = |reason| Err(LogoutError::Invalid(reason));
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        if text("iss") != Some(expected.issuer) {
            return invalid("`iss` is another issuer");
        }
        if !is_for(claims.get("aud"), expected.client_id) {
            return invalid("`aud` does not name this client");
        }
        let now = now.as_millis() as f64 / 1000.0;
        let skew = SKEW.as_secs_f64();
        match seconds(claims.get("iat")) {
            None => return invalid("`iat` is missing"),
            Some(iat) if iat > now + skew => return invalid("`iat` is in the future"),
            Some(iat) if iat < now - skew - MAX_AGE.as_secs_f64() => {
                return invalid("`iat` is too long ago");
            }
            Some(_) => {}
        }
        match seconds(claims.get("exp")) {
            None => return invalid("`exp` is missing"),
            Some(exp) if exp <= now - skew => return invalid("it has expired"),
            Some(_) => {}
        }
        if let Some(nbf) = claims.get("nbf")
            && seconds(Some(nbf)).is_none_or(|nbf| nbf > now + skew)
        {
            return invalid("`nbf` is in the future");
        }
        let events = claims.get("events");
        if !events.is_some_and(|events| events.get(EVENT).is_some_and(Value::is_object)) {
            return invalid("`events` does not ask for a logout");
        }
        if claims.contains_key("nonce") {
            return invalid("it has a `nonce`, as id tokens have");
        }
        let jti = match text("jti") {
            None | Some("") => return invalid("`jti` is missing"),
            Some(jti) => jti.to_owned(),
        };
        let mut named = [None; 2];
        for (name, found) in ["sid", "sub"].into_iter().zip(&mut named) {
            *found = match (claims.get(name), text(name)) {
                (None, _) => None,
                (Some(_), None | Some("")) => return invalid("`sid` or `sub` is no text"),
                (Some(_), text) => text,
            };
        }
        let subject = match named {
            [Some(sid), _] => Subject::Session(sid.to_owned()),
            [None, Some(sub)] => Subject::User(sub.to_owned()),
            [None, None] => return invalid("it has neither `sid` nor `sub`"),
        };
        Ok(Self { subject, jti })
    }
}

/// Whether an `aud` is this client, or a list with it.
fn is_for(aud: Option<&Value>, client_id: &str) -> bool {
    match aud {
        Some(Value::String(aud)) => aud == client_id,
        Some(Value::Array(list)) => list.iter().any(|aud| aud.as_str() == Some(client_id)),
        _ => false,
    }
}

/// A `NumericDate` (RFC 7519 §2).
fn seconds(value: Option<&Value>) -> Option<f64> {
    let seconds = value.filter(|value| value.is_number())?.as_f64()?;
    (seconds.is_finite() && seconds >= 0.0).then_some(seconds)
}
