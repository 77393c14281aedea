//! `KeyExtractor`: which partition a request belongs to.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use http::HeaderName;
use http::header::AUTHORIZATION;

use super::cookies::CookieName;
use super::{KeyError, PartitionKey, PartitionKind, RequestHead};
use crate::session;

/// Finds the partition key of a request.
///
/// | the request has | answer |
/// |---|---|
/// | no key, or an empty one | `Ok(None)`: the layer's [`MissingKey`](crate::MissingKey) policy decides |
/// | one key, also when repeated with the same value | `Ok(Some(key))` |
/// | two different keys in one place | [`KeyError::Ambiguous`] |
/// | a key over [`PartitionKey::MAX_LEN`] | [`KeyError::TooLong`] |
/// | control characters or bytes outside ASCII | [`KeyError::InvalidCharacter`] |
///
/// No other extractor sees a request with an invalid key: guessing whose tokens are meant would be a security
/// hole. The layer's [`InvalidKey`](crate::InvalidKey) policy decides what becomes of it.
pub trait KeyExtractor: Send + Sync + 'static {
    /// The key of this request, if it has one.
    ///
    /// # Errors
    /// [`KeyError`] for a key that cannot be accepted.
    fn extract(&self, request: &RequestHead<'_>) -> Result<Option<PartitionKey>, KeyError>;

    /// The cookie that new sessions are given, where the extractor has one: that of
    /// [`session::Cookie`](crate::session::Cookie). An extractor around another one passes it on. None unless
    /// this is implemented.
    fn issues(&self) -> Option<&session::Cookie> {
        None
    }

    /// Whether requests bring their key as a bearer token: their 401s then ask for one (`WWW-Authenticate: Bearer`, RFC
    /// 6750 §3), and not for a session. An extractor around another one passes it on. `false` unless this is
    /// implemented.
    fn takes_bearer(&self) -> bool {
        false
    }

    /// Asks `other` when this extractor finds no key.
    fn or<K: KeyExtractor>(self, other: K) -> Or<Self, K>
    where
        Self: Sized,
    {
        Or(self, other)
    }
}

impl KeyExtractor for Arc<dyn KeyExtractor> {
    #[inline]
    fn extract(&self, request: &RequestHead<'_>) -> Result<Option<PartitionKey>, KeyError> {
        (**self).extract(request)
    }

    fn issues(&self) -> Option<&session::Cookie> {
        (**self).issues()
    }

    fn takes_bearer(&self) -> bool {
        (**self).takes_bearer()
    }
}

/// The one value that all candidates agree on.
#[derive(Default)]
struct Unanimous<'a>(Option<&'a [u8]>);

impl<'a> Unanimous<'a> {
    /// Takes a candidate without surrounding white space.
    #[inline]
    fn add(&mut self, candidate: &'a [u8]) -> Result<(), KeyError> {
        if candidate.is_empty() {
            return Ok(());
        }
        match self.0.replace(candidate) {
            Some(earlier) if earlier != candidate => Err(KeyError::Ambiguous),
            _ => Ok(()),
        }
    }

    fn key(self, kind: PartitionKind) -> Result<Option<PartitionKey>, KeyError> {
        PartitionKey::from_header(kind, self.0.unwrap_or_default())
    }
}

/// The value of a request header; see [`header`].
#[derive(Clone, Debug)]
pub struct Header {
    /// `None`: no header can have the name that was given.
    name: Option<HeaderName>,
    kind: PartitionKind,
}

/// The session named by a request header, such as `x-session`. Its name is compared without regard to
/// case. As with [`cookie`], a name that no request can have finds no key.
pub fn header(name: impl AsRef<str>) -> Header {
    Header {
        name: HeaderName::from_bytes(name.as_ref().as_bytes()).ok(),
        kind: PartitionKind::Session,
    }
}

impl Header {
    /// The header names a user. Use it only behind a proxy that sets the header and removes what
    /// clients send.
    pub fn user(mut self) -> Self {
        self.kind = PartitionKind::User;
        self
    }
}

impl KeyExtractor for Header {
    fn extract(&self, request: &RequestHead<'_>) -> Result<Option<PartitionKey>, KeyError> {
        let mut found = Unanimous::default();
        let values = self.name.iter().flat_map(|name| request.headers(name));
        for value in values {
            found.add(value.trim_ascii())?;
        }
        found.key(self.kind)
    }
}

/// The value of a cookie; see [`cookie`].
#[derive(Clone, Debug)]
pub struct Cookie(CookieName);

/// The session named by a cookie (RFC 6265 §5.4) that the application sets itself;
/// [`session::Cookie`](crate::session::Cookie) also sets it. The value is taken as it is, less surrounding
/// double quotes; its name is compared case-sensitively. A name that no request can have finds no key.
pub fn cookie(name: impl Into<Box<str>>) -> Cookie {
    Cookie(CookieName::new(name))
}

impl KeyExtractor for Cookie {
    fn extract(&self, request: &RequestHead<'_>) -> Result<Option<PartitionKey>, KeyError> {
        let mut found = Unanimous::default();
        self.0.each_value(request, |value| found.add(value))?;
        found.key(PartitionKind::Session)
    }
}

/// The SHA-256 of the bearer token; see [`bearer_assertion`].
#[derive(Clone, Copy, Debug)]
pub struct BearerAssertion(());

/// The assertion in `Authorization: Bearer …`, named by its SHA-256: the key of on-behalf-of
/// flows. Verify the assertion before you trust it; this extractor does not.
/// `JwtBearer` (feature `grants`) has an example.
pub fn bearer_assertion() -> BearerAssertion {
    BearerAssertion(())
}

impl BearerAssertion {
    /// The longest assertion that is hashed, in bytes: more than servers accept in a header.
    pub const MAX_LEN: usize = 64 * 1024;
}

impl KeyExtractor for BearerAssertion {
    fn extract(&self, request: &RequestHead<'_>) -> Result<Option<PartitionKey>, KeyError> {
        let mut found = None;
        for header in request.headers(&AUTHORIZATION) {
            let Some((scheme, token)) = header.split_at_checked(7) else {
                continue;
            };
            let token = token.trim_ascii();
            if !scheme.eq_ignore_ascii_case(b"Bearer ") || token.is_empty() {
                continue;
            }
            if found.is_some_and(|earlier| earlier != token) {
                return Err(KeyError::Ambiguous);
            }
            found = Some(token);
        }
        let Some(token) = found else { return Ok(None) };
        if token.len() > Self::MAX_LEN {
            return Err(KeyError::TooLong {
                limit: Self::MAX_LEN,
            });
        }
        match std::str::from_utf8(token) {
            Ok(text) if text.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Ok(Some(PartitionKey::assertion(text)))
            }
            _ => Err(KeyError::InvalidCharacter),
        }
    }

    fn takes_bearer(&self) -> bool {
        true
    }
}

/// A key from a typed request extension; see [`extension`].
pub struct Extension<T, F>(F, PhantomData<fn(T)>);

/// A key from an extension that a session or authentication middleware has set. Put that
/// middleware outside of this layer, so that it runs first.
pub fn extension<T, F>(read: F) -> Extension<T, F>
where
    T: Clone + Send + Sync + 'static,
    F: Fn(&T) -> Result<PartitionKey, KeyError> + Send + Sync + 'static,
{
    Extension(read, PhantomData)
}

impl<T, F> KeyExtractor for Extension<T, F>
where
    T: Clone + Send + Sync + 'static,
    F: Fn(&T) -> Result<PartitionKey, KeyError> + Send + Sync + 'static,
{
    fn extract(&self, request: &RequestHead<'_>) -> Result<Option<PartitionKey>, KeyError> {
        empty_is_missing(request.extension(&self.0).transpose())
    }
}

impl<T, F> fmt::Debug for Extension<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Extension<{}>", std::any::type_name::<T>())
    }
}

/// A key from a closure; see [`from_fn`].
pub struct FromFn<F>(F);

/// A key from whatever a closure makes of the request's head.
pub fn from_fn<F>(extract: F) -> FromFn<F>
where
    F: Fn(&RequestHead<'_>) -> Result<Option<PartitionKey>, KeyError> + Send + Sync + 'static,
{
    FromFn(extract)
}

impl<F> KeyExtractor for FromFn<F>
where
    F: Fn(&RequestHead<'_>) -> Result<Option<PartitionKey>, KeyError> + Send + Sync + 'static,
{
    fn extract(&self, request: &RequestHead<'_>) -> Result<Option<PartitionKey>, KeyError> {
        empty_is_missing((self.0)(request))
    }
}

impl<F> fmt::Debug for FromFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FromFn")
    }
}

/// An empty key means no key, wherever it comes from.
fn empty_is_missing(
    key: Result<Option<PartitionKey>, KeyError>,
) -> Result<Option<PartitionKey>, KeyError> {
    match key {
        Err(KeyError::Empty) => Ok(None),
        other => other,
    }
}

/// One partition for every request; see [`constant`].
#[derive(Clone, Debug)]
pub struct Constant(PartitionKey);

/// The same partition for every request: the application's own tokens.
pub fn constant(key: PartitionKey) -> Constant {
    Constant(key)
}

impl KeyExtractor for Constant {
    fn extract(&self, _: &RequestHead<'_>) -> Result<Option<PartitionKey>, KeyError> {
        Ok(Some(self.0.clone()))
    }
}

/// The first of two extractors that finds a key; see [`KeyExtractor::or`].
#[derive(Clone, Copy, Debug)]
pub struct Or<A, B>(A, B);

impl<A: KeyExtractor, B: KeyExtractor> KeyExtractor for Or<A, B> {
    fn extract(&self, request: &RequestHead<'_>) -> Result<Option<PartitionKey>, KeyError> {
        match self.0.extract(request)? {
            None => self.1.extract(request),
            found => Ok(found),
        }
    }

    fn issues(&self) -> Option<&session::Cookie> {
        self.0.issues().or_else(|| self.1.issues())
    }

    fn takes_bearer(&self) -> bool {
        self.0.takes_bearer() || self.1.takes_bearer()
    }
}

#[cfg(test)]
#[path = "extract_tests.rs"]
mod tests;
