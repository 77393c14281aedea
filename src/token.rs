//! Access tokens and the answers of a token endpoint.

mod entries;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::memory::ALLOCATION;
use crate::secret::Secret;
use crate::time::Timestamp;
use crate::wipe::Wiped;

/// The longest lifetime that `expires_in` can give a token: ten years. Providers that answer more
/// (or a negative number) are clamped, never refused.
pub(crate) const MAX_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// An access token with its expiry, scopes and extra fields. Clones share one allocation.
///
/// ```
/// use std::time::Duration;
/// use tower_token_cache::Token;
///
/// let token = Token::new("ya29.a0Af").with_expires_in(Duration::from_secs(3600));
/// assert_eq!(token.access_token(), "ya29.a0Af");
/// assert!(!format!("{token:?}").contains("ya29"));
/// ```
#[derive(Clone, PartialEq)]
pub struct Token(Arc<Fields>);

#[derive(Clone, PartialEq)]
#[repr(C)]
struct Fields {
    // Comes first, beside the reference count: this is what most readers want.
    access_token: Wiped<Box<str>>,
    token_type: Option<Box<str>>,
    scope: Option<Box<str>>,
    expires_at: Option<Timestamp>,
    refresh_at: Option<Timestamp>,
    issued_at: Option<Timestamp>,
    // Most tokens have none.
    extra: Option<Box<Extras>>,
}

type Extras = BTreeMap<Box<str>, Secret>;

impl Token {
    /// A token that never expires by itself, of no declared type or scope.
    pub fn new(access_token: impl Into<Box<str>>) -> Self {
        Self(Arc::new(Fields {
            access_token: Wiped::new(access_token.into()),
            token_type: None,
            scope: None,
            expires_at: None,
            refresh_at: None,
            issued_at: None,
            extra: None,
        }))
    }

    /// Expires after `lifetime` from now, by the system's clock; at most ten years.
    pub fn with_expires_in(self, lifetime: Duration) -> Self {
        let now = Timestamp::now();
        self.with_expires_at(now.saturating_add(lifetime.min(MAX_LIFETIME)))
            .with_issued_at(now)
    }

    /// Its lifetime counts from here.
    pub(crate) fn with_issued_at(self, time: Timestamp) -> Self {
        self.set(|fields| fields.issued_at = Some(time))
    }

    /// Expires at this time, to the millisecond.
    pub fn with_expires_at(self, time: impl Into<Timestamp>) -> Self {
        self.set(|fields| fields.expires_at = Some(time.into()))
    }

    /// The time from which a new token should be asked for (`refresh_on` of some providers).
    pub fn with_refresh_at(self, time: impl Into<Timestamp>) -> Self {
        self.set(|fields| fields.refresh_at = Some(time.into()))
    }

    /// The token type of RFC 6749 §7.1, such as `Bearer`.
    pub fn with_token_type(self, token_type: impl Into<Box<str>>) -> Self {
        self.set(|fields| fields.token_type = Some(token_type.into()))
    }

    /// The granted scope of RFC 6749 §3.3: names separated by spaces.
    pub fn with_scope(self, scope: impl Into<Box<str>>) -> Self {
        self.set(|fields| fields.scope = Some(scope.into()))
    }

    /// Keeps another field of the token endpoint's answer, as JSON.
    ///
    /// # Errors
    /// When the value cannot be written as JSON.
    pub fn with_extra(
        self,
        name: impl Into<Box<str>>,
        value: &impl Serialize,
    ) -> serde_json::Result<Self> {
        let json = Secret::json(value)?;
        Ok(self.set(|fields| {
            let extra = fields.extra.get_or_insert_default();
            extra.insert(name.into(), json);
        }))
    }

    /// The token, as it goes into an `Authorization` header. Do not log it.
    pub fn access_token(&self) -> &str {
        &self.0.access_token
    }

    /// The token type of RFC 6749 §7.1.
    pub fn token_type(&self) -> Option<&str> {
        self.0.token_type.as_deref()
    }

    /// The granted scope as the provider wrote it.
    pub fn scope(&self) -> Option<&str> {
        self.0.scope.as_deref()
    }

    /// The names in the granted scope.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.scope().unwrap_or_default().split_ascii_whitespace()
    }

    /// When the token expires; `None` when the provider did not say.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.0.expires_at
    }

    /// When a new token should be asked for.
    pub fn refresh_at(&self) -> Option<Timestamp> {
        self.0.refresh_at
    }

    /// When the token was issued, where its expiry was given as a lifetime.
    pub(crate) fn issued_at(&self) -> Option<Timestamp> {
        self.0.issued_at
    }

    /// Another field of the token endpoint's answer: `None` when it is absent or of another type.
    pub fn extra<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.extras().get(name)?.expose()).ok()
    }

    /// All extra fields: name and JSON text.
    pub(crate) fn extras(&self) -> &Extras {
        static NONE: Extras = Extras::new();
        self.0.extra.as_deref().unwrap_or(&NONE)
    }

    pub(crate) fn with_extras(self, extra: Extras) -> Self {
        self.set(|fields| fields.extra = (!extra.is_empty()).then(|| Box::new(extra)))
    }

    /// Memory that this token holds, allocator overhead included, in bytes.
    pub(crate) fn footprint(&self) -> usize {
        let text = |text: &Option<Box<str>>| text.as_ref().map_or(0, |t| t.len() + ALLOCATION);
        let extra = self.extras().iter();
        std::mem::size_of::<Fields>()
            + 3 * ALLOCATION
            + self.0.access_token.len()
            + text(&self.0.token_type)
            + text(&self.0.scope)
            + extra
                .map(|(name, json)| name.len() + json.footprint() + 64)
                .sum::<usize>()
    }

    fn set(mut self, change: impl FnOnce(&mut Fields)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("access_token", &"[redacted]")
            .field("token_type", &self.0.token_type)
            .field("expires_at", &self.0.expires_at)
            .field("refresh_at", &self.0.refresh_at)
            .finish_non_exhaustive()
    }
}

/// The answer of a token endpoint (RFC 6749 §5.1): an access token, and optionally the refresh
/// token and the id token, which belong to the whole partition.
///
/// Deserializes from the endpoint's JSON, as providers really write it:
///
/// - Each member is read by itself. One of an odd type counts as absent, and so does an empty token; of a repeated
///   one the last that can be used counts. Only an answer without an access token is an error.
/// - The lifetime may be a number or a string, in `expires_in`, or a time in `expires_on` or `expires_at` (in seconds or
///   milliseconds since the Unix epoch, or by RFC 3339). A negative or absurd one is clamped. A token whose lifetime
///   cannot be read lives for five minutes, and one without a lifetime until it is removed.
/// - The scope may be an array.
/// - Other members become [extra fields](Token::extra), at most 256.
///
/// ```
/// # use tower_token_cache::TokenSet;
/// let json = r#"{"access_token":"a","token_type":"Bearer","expires_in":3600,"refresh_token":"r"}"#;
/// let set: TokenSet = serde_json::from_str(json)?;
/// assert_eq!(set.refresh_token().unwrap().expose(), "r");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct TokenSet {
    pub(crate) access: Token,
    pub(crate) refresh_token: Option<Secret>,
    pub(crate) refresh_token_expires_at: Option<Timestamp>,
    pub(crate) id_token: Option<Secret>,
}

impl TokenSet {
    /// Adds the refresh token.
    pub fn with_refresh_token(mut self, refresh_token: impl Into<Secret>) -> Self {
        self.refresh_token = Some(refresh_token.into());
        self.refresh_token_expires_at = None;
        self
    }

    /// Adds the id token (OpenID Connect Core §3.1.3.3).
    pub fn with_id_token(mut self, id_token: impl Into<Secret>) -> Self {
        self.id_token = Some(id_token.into());
        self
    }

    /// The access token.
    pub fn access(&self) -> &Token {
        &self.access
    }

    /// The refresh token, if the answer had one.
    pub fn refresh_token(&self) -> Option<&Secret> {
        self.refresh_token.as_ref()
    }

    /// When the refresh token expires, if the answer said so (`refresh_token_expires_in`, `refresh_expires_in`): how long a
    /// session can last. From then on the refresh token is absent. One without such a time is kept as long as its
    /// partition.
    pub fn refresh_token_expires_at(&self) -> Option<Timestamp> {
        self.refresh_token_expires_at
    }

    /// The id token, if the answer had one.
    pub fn id_token(&self) -> Option<&Secret> {
        self.id_token.as_ref()
    }

    /// Bytes of text in this set, the measure of its size limit.
    pub(crate) fn size(&self) -> usize {
        let token = &self.access.0;
        let secret = |secret: &Option<Secret>| secret.as_ref().map_or(0, Secret::len);
        token.access_token.len()
            + token.token_type.as_ref().map_or(0, |text| text.len())
            + token.scope.as_ref().map_or(0, |text| text.len())
            + self
                .access
                .extras()
                .iter()
                .map(|(name, json)| name.len() + json.len())
                .sum::<usize>()
            + secret(&self.refresh_token)
            + secret(&self.id_token)
    }
}

impl From<Token> for TokenSet {
    fn from(access: Token) -> Self {
        Self {
            access,
            refresh_token: None,
            refresh_token_expires_at: None,
            id_token: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> TokenSet {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn expires_in_is_clamped_never_refused() {
        for odd in ["-5", "0", "\"-1\"", "-1e300"] {
            let set = parse(&format!(r#"{{"access_token":"a","expires_in":{odd}}}"#));
            assert!(set.access().expires_at().unwrap() <= Timestamp::now());
        }
        for long in ["1e300", "99999999999999", "\"99999999999999\""] {
            let set = parse(&format!(r#"{{"access_token":"a","expires_in":{long}}}"#));
            let limit = Timestamp::now().saturating_add(MAX_LIFETIME);
            assert!(set.access().expires_at().unwrap() <= limit);
        }
        let unknown = parse(r#"{"access_token":"a","expires_in":"soon"}"#);
        let left = unknown
            .access()
            .expires_at()
            .unwrap()
            .since(Timestamp::now());
        assert!(left <= Duration::from_secs(300), "short, and not endless");
    }

    #[test]
    fn debug_shows_no_secret() {
        let set = TokenSet::from(Token::new("hidden-1").with_extra("e", &"hidden-2").unwrap())
            .with_refresh_token("hidden-3")
            .with_id_token("hidden-4");
        assert!(!format!("{set:?}{set:#?}").contains("hidden"));
    }
}
