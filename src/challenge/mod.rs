//! `Challenge`: what an API wants of a token that it has refused.

mod parse;

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use http::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use serde::de::{Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use self::parse::Parsed;
use crate::time::setting;

/// What a 401 asks for where a session has to be signed in. No scheme of HTTP has to do with cookies, and a browser
/// opens a dialog for those that it knows.
pub(crate) const SESSION: &str = "Session";
/// What a 401 asks for where requests prove themselves by a bearer token and this one had none (RFC 6750 §3).
pub(crate) const BEARER: &str = "Bearer";
/// The same where the request's token will not do.
pub(crate) const INVALID_TOKEN: &str = r#"Bearer error="invalid_token""#;

/// The longest challenge, in bytes, as it is passed on: proxies refuse a response whose head is longer than 4 to 8 KiB.
const MAX_HEADER: usize = 3 * 1024;
/// The most fields of a response that are read.
const MAX_FIELDS: usize = 16;

/// What an API asks for beyond the token that it was sent: the challenge of its `WWW-Authenticate` (RFC 9110 §11.6.1).
///
/// | the API says | [`kind`](Self::kind) | what is asked for |
/// |---|---|---|
/// | `insufficient_user_authentication` (RFC 9470 §3) | [`Authentication`](ChallengeKind::Authentication) | [`acr_values`](Self::acr_values), [`max_age`](Self::max_age) |
/// | `insufficient_scope` (RFC 6750 §3.1) | [`Scope`](ChallengeKind::Scope) | [`scopes`](Self::scopes) |
/// | `insufficient_claims` (Microsoft's claims challenge) | [`Claims`](ChallengeKind::Claims) | [`claims`](Self::claims) |
///
/// The [`outgoing`](crate::outgoing) middleware gets what it can. What only the user can give is
/// [`Error::StepUp`](crate::Error::StepUp) with the challenge, and with feature `grants`
/// `AuthorizationCode::step_up` is the login for it.
///
/// ```
/// use http::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
/// use tower_token_cache::Challenge;
///
/// let mut headers = HeaderMap::new();
/// let field = r#"Bearer error="insufficient_user_authentication", acr_values="mfa", max_age="300""#;
/// headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(field));
/// let challenge = Challenge::from_headers(&headers).expect("a challenge");
/// assert_eq!(challenge.acr_values().collect::<Vec<_>>(), ["mfa"]);
/// assert_eq!(challenge.max_age().map(|age| age.as_secs()), Some(300));
/// assert_eq!(challenge.to_header(), field);
/// ```
///
/// `Debug` shows the kind alone. Serde writes it as the value of the header. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Challenge(Arc<Demand>);

#[derive(PartialEq, Eq)]
struct Demand {
    kind: ChallengeKind,
    acr_values: Vec<Box<str>>,
    max_age: Option<Duration>,
    scopes: Vec<Box<str>>,
    claims: Option<Arc<str>>,
}

/// Which kind of [`Challenge`] it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChallengeKind {
    /// The user has to sign in in another way, or again (`insufficient_user_authentication`, RFC 9470).
    Authentication,
    /// The token has to have other scopes (`insufficient_scope`, RFC 6750).
    Scope,
    /// The token has to have other claims (`insufficient_claims`).
    Claims,
}

impl ChallengeKind {
    /// The value of `error` in the challenge.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authentication => "insufficient_user_authentication",
            Self::Scope => "insufficient_scope",
            Self::Claims => "insufficient_claims",
        }
    }

    fn from_error(error: &str) -> Option<Self> {
        let all = [Self::Authentication, Self::Scope, Self::Claims];
        all.into_iter().find(|kind| kind.as_str() == error)
    }
}

impl Challenge {
    /// The first challenge of these kinds in the head of a response, of the scheme `Bearer`. It may stand among others,
    /// in any of several fields.
    ///
    /// `None` where there is none, and where what it asks for is missing, malformed, or more than the 3 KiB that can be
    /// [passed on](Self::to_header). Fields of up to 16 KiB are read, and 16 of them.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut fields = headers.get_all(WWW_AUTHENTICATE).iter().take(MAX_FIELDS);
        fields.find_map(|field| Self::from_field(field.as_bytes()))
    }

    fn from_field(field: &[u8]) -> Option<Self> {
        let mut all = parse::challenges(field).into_iter();
        all.find_map(|parsed| Self::read(&parsed))
    }

    fn read(parsed: &Parsed<'_>) -> Option<Self> {
        if !parsed.scheme.eq_ignore_ascii_case("Bearer") {
            return None;
        }
        let kind = ChallengeKind::from_error(text(parsed.param("error")?)?)?;
        let demand = Demand {
            kind,
            acr_values: parsed.param("acr_values").map_or(Some(Vec::new()), words)?,
            max_age: match parsed.param("max_age") {
                Some(age) => Some(seconds(age)?),
                None => None,
            },
            scopes: parsed.param("scope").map_or(Some(Vec::new()), words)?,
            claims: parsed.param("claims").and_then(claims),
        };
        let is_whole = match kind {
            ChallengeKind::Authentication => true,
            ChallengeKind::Scope => !demand.scopes.is_empty(),
            ChallengeKind::Claims => demand.claims.is_some(),
        };
        Self::passable(demand).filter(|_| is_whole)
    }

    /// A provider's demand for claims. `None` where it is no JSON object, or a longer one than a header can pass on.
    pub(crate) fn of_claims(claims: Arc<str>) -> Option<Self> {
        if claims.len() > MAX_HEADER || !is_object(&claims) {
            return None;
        }
        let demand = Demand {
            kind: ChallengeKind::Claims,
            acr_values: Vec::new(),
            max_age: None,
            scopes: Vec::new(),
            claims: Some(claims),
        };
        Self::passable(demand)
    }

    fn passable(demand: Demand) -> Option<Self> {
        let challenge = Self(Arc::new(demand));
        (challenge.to_header().len() <= MAX_HEADER).then_some(challenge)
    }

    /// Which kind it is.
    pub fn kind(&self) -> ChallengeKind {
        self.0.kind
    }

    /// The authentication context classes, one of which the login has to be of, the best first (RFC 9470 §3).
    pub fn acr_values(&self) -> impl Iterator<Item = &str> {
        self.0.acr_values.iter().map(|value| &**value)
    }

    /// How long ago the user may have signed in, in whole seconds (RFC 9470 §3).
    pub fn max_age(&self) -> Option<Duration> {
        self.0.max_age
    }

    /// The scopes that the token has to have (RFC 6750 §3).
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.0.scopes.iter().map(|scope| &**scope)
    }

    /// The claims that the token has to have: a JSON object, as the parameter `claims` of a request has it (OpenID
    /// Connect Core §5.5).
    pub fn claims(&self) -> Option<&str> {
        self.0.claims.as_deref()
    }

    /// The same for those who keep it.
    pub(crate) fn shared_claims(&self) -> Option<Arc<str>> {
        self.0.claims.clone()
    }

    /// The challenge as the value of `WWW-Authenticate`, to be passed on: with what is asked for, and nothing else of what
    /// the API has said.
    pub fn to_header(&self) -> HeaderValue {
        let demand = &*self.0;
        let mut field = format!("Bearer error=\"{}\"", demand.kind.as_str());
        let mut push = |name, value: &str| {
            let _ = write!(field, ", {name}=\"{value}\"");
        };
        if !demand.acr_values.is_empty() {
            push("acr_values", &demand.acr_values.join(" "));
        }
        if let Some(age) = demand.max_age {
            push("max_age", &age.as_secs().to_string());
        }
        if !demand.scopes.is_empty() {
            push("scope", &demand.scopes.join(" "));
        }
        if let Some(claims) = &demand.claims {
            push("claims", &STANDARD.encode(&**claims));
        }
        // All of it is ASCII without quotes.
        HeaderValue::try_from(field).unwrap_or(HeaderValue::from_static(BEARER))
    }
}

impl Serialize for Challenge {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&String::from_utf8_lossy(self.to_header().as_bytes()))
    }
}

impl<'de> Deserialize<'de> for Challenge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let field = String::deserialize(deserializer)?;
        let read = Self::from_field(field.as_bytes());
        read.ok_or_else(|| D::Error::custom("it is no challenge"))
    }
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Challenge").field(&self.0.kind).finish()
    }
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

/// Words with spaces between, of the characters that RFC 6749 §3.3 allows in a scope: none of them ends a quoted string.
fn words(value: &[u8]) -> Option<Vec<Box<str>>> {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !b"\"\\".contains(&byte);
    let words = text(value)?.split(' ').filter(|word| !word.is_empty());
    let checked = words.map(|word| word.bytes().all(allowed).then(|| word.into()));
    checked.collect()
}

fn seconds(value: &[u8]) -> Option<Duration> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let seconds = text(value).filter(|_| is_number)?.parse().ok()?;
    Some(setting(Duration::from_secs(seconds)))
}

/// A JSON object in base64, in either alphabet, with padding or without.
fn claims(value: &[u8]) -> Option<Arc<str>> {
    let standard = |byte: &u8| match byte {
        b'-' => b'+',
        b'_' => b'/',
        other => *other,
    };
    let end = value.iter().rposition(|byte| *byte != b'=')?;
    let encoded = Vec::from_iter(value[..=end].iter().map(standard));
    let json = String::from_utf8(STANDARD_NO_PAD.decode(encoded).ok()?).ok()?;
    is_object(&json).then(|| json.into())
}

fn is_object(json: &str) -> bool {
    serde_json::from_str::<BTreeMap<String, IgnoredAny>>(json).is_ok()
}

#[cfg(test)]
mod tests;
