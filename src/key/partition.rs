//! `PartitionKey`: whose tokens.

use std::fmt;
use std::hash::{Hash, Hasher};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::KeyError;
use super::short::Short;
use crate::secret::Secret;
use crate::wipe::wipe;

/// What a partition belongs to. Keys of different kinds are never equal, whatever their text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PartitionKind {
    /// A user: `{uid}.{utid}`, `sub`, or whatever identifies one in the application.
    User,
    /// A session: an unguessable id, usually from a cookie.
    Session,
    /// An on-behalf-of assertion, named by its SHA-256.
    Assertion,
    /// The application itself (client credentials, managed identity).
    Application,
}

impl PartitionKind {
    /// The first byte of a key's canonical text.
    const fn tag(self) -> char {
        match self {
            Self::User => 'u',
            Self::Session => 's',
            Self::Assertion => 'a',
            Self::Application => 'c',
        }
    }
}

/// Whose tokens: a user, a session, an assertion or the application.
///
/// The text is wiped on drop. `Debug` shows the kind only.
#[derive(Clone)]
pub struct PartitionKey(Key);

/// The beginning of the key of a list of sessions.
const LIST: &str = "\u{1}sessions\u{1}";

/// Short texts stand in place, so that most keys cost no allocation and no cache miss.
#[derive(Clone)]
enum Key {
    /// Room for a UUID, or for 256 bits in base64.
    Short(PartitionKind, Short<45>),
    Long(PartitionKind, Box<[u8]>),
}

impl Drop for Key {
    fn drop(&mut self) {
        match self {
            Self::Short(_, text) => text.wipe(),
            Self::Long(_, text) => wipe(text),
        }
    }
}

impl PartitionKey {
    /// The longest key, in bytes: room for any identifier, too small to be a token.
    pub const MAX_LEN: usize = 1024;

    /// A user's tokens, across their sessions.
    ///
    /// # Errors
    /// [`KeyError`] for an empty text, one over [`MAX_LEN`](Self::MAX_LEN) bytes, or one with
    /// control characters.
    pub fn user(id: impl AsRef<str>) -> Result<Self, KeyError> {
        Self::new(PartitionKind::User, id.as_ref())
    }

    /// One session's tokens. The id must be unguessable: who knows it, has the tokens.
    ///
    /// # Errors
    /// As for [`user`](Self::user).
    pub fn session(id: impl AsRef<str>) -> Result<Self, KeyError> {
        Self::new(PartitionKind::Session, id.as_ref())
    }

    /// The session of this id, which is known to be one.
    #[cfg(feature = "cookie")]
    pub(crate) fn of_session(id: &str) -> Self {
        Self::from_parts(PartitionKind::Session, id)
    }

    /// The tokens acquired on behalf of an assertion: the key is the unpadded base64url SHA-256 of
    /// the assertion's UTF-8 text, which itself is not kept.
    pub fn assertion(assertion: impl AsRef<str>) -> Self {
        let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(assertion.as_ref()));
        Self::from_parts(PartitionKind::Assertion, &hash)
    }

    /// The application's own tokens, of one client in one tenant.
    ///
    /// # Errors
    /// As for [`user`](Self::user).
    pub fn application(
        client_id: impl AsRef<str>,
        tenant: impl AsRef<str>,
    ) -> Result<Self, KeyError> {
        let (client_id, tenant) = (client_id.as_ref(), tenant.as_ref());
        check(client_id, Self::MAX_LEN)?;
        if !tenant.is_empty() {
            check(tenant, Self::MAX_LEN - client_id.len().min(Self::MAX_LEN))?;
        }
        // A control character cannot occur in either part, so no two pairs give one text.
        let text = format!("{client_id}\u{1f}{tenant}");
        Ok(Self::from_parts(PartitionKind::Application, &text))
    }

    /// The epoch that a user's sessions are linked to. No text of an application's gives it.
    pub(crate) fn epoch_of(user: &str) -> Result<Self, KeyError> {
        check(user, Self::MAX_LEN)?;
        let text = format!("\u{1}epoch\u{1}{user}");
        Ok(Self::from_parts(PartitionKind::User, &text))
    }

    /// The same for a session at a provider: the issuer, and its `sid`.
    pub(crate) fn epoch_of_provider_session(iss: &str, sid: &str) -> Result<Self, KeyError> {
        Self::epoch_at("sid", iss, sid)
    }

    /// The same for a user as a provider knows them: the issuer, and its `sub`.
    pub(crate) fn epoch_of_provider_user(iss: &str, sub: &str) -> Result<Self, KeyError> {
        Self::epoch_at("sub", iss, sub)
    }

    fn epoch_at(claim: &str, iss: &str, value: &str) -> Result<Self, KeyError> {
        check(iss, Self::MAX_LEN)?;
        check(value, Self::MAX_LEN)?;
        // A control character cannot occur in a part, so no other parts and no user give this text.
        let text = format!("\u{1}epoch\u{1}\u{1}{claim}\u{1}{iss}\u{1}{value}");
        Ok(Self::from_parts(PartitionKind::User, &text))
    }

    /// What stands for a logout token that was obeyed.
    #[cfg(feature = "logout")]
    pub(crate) fn logout_token(iss: &str, jti: &str) -> Result<Self, KeyError> {
        Self::epoch_at("jti", iss, jti)
    }

    /// The list of the sessions that are linked to an epoch.
    pub(crate) fn list_of(epoch: &[u8; 32]) -> Self {
        let text = format!("{LIST}{}", URL_SAFE_NO_PAD.encode(epoch));
        Self::from_parts(PartitionKind::User, &text)
    }

    /// Whether this is such a list.
    pub(crate) fn is_list(&self) -> bool {
        self.value().starts_with(LIST.as_bytes())
    }

    /// The epoch of the whole namespace.
    pub(crate) fn everything() -> Self {
        Self::from_parts(PartitionKind::Application, "\u{1}everything")
    }

    /// The whole key as one text, for [`from_text`](Self::from_text).
    pub(crate) fn to_text(&self) -> Secret {
        let mut text = String::with_capacity(self.value().len() + 1);
        text.push(self.kind().tag());
        text.push_str(&String::from_utf8_lossy(self.value()));
        Secret::from(text)
    }

    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let kinds = [
            PartitionKind::User,
            PartitionKind::Session,
            PartitionKind::Assertion,
            PartitionKind::Application,
        ];
        let kind = kinds
            .into_iter()
            .find(|kind| text.starts_with(kind.tag()))?;
        Some(Self::from_parts(kind, &text[1..]))
    }

    /// A key of this kind.
    pub(crate) fn new(kind: PartitionKind, value: &str) -> Result<Self, KeyError> {
        check(value, Self::MAX_LEN)?;
        Ok(Self::from_parts(kind, value))
    }

    /// A key of this kind from what a header has: printable ASCII, or it is refused.
    #[inline]
    pub(crate) fn from_header(kind: PartitionKind, value: &[u8]) -> Result<Option<Self>, KeyError> {
        match value.len() {
            0 => Ok(None),
            length if length > Self::MAX_LEN => Err(KeyError::TooLong {
                limit: Self::MAX_LEN,
            }),
            _ if position(value, |byte| !matches!(byte, b' '..=b'~')).is_some() => {
                Err(KeyError::InvalidCharacter)
            }
            _ => Ok(Some(Self::from_bytes(kind, value))),
        }
    }

    fn from_parts(kind: PartitionKind, value: &str) -> Self {
        Self::from_bytes(kind, value.as_bytes())
    }

    fn from_bytes(kind: PartitionKind, value: &[u8]) -> Self {
        // Filled where it stands: each move of bytes just written waits for them.
        let mut key = Self(Key::Short(kind, Short::default()));
        if let Key::Short(_, text) = &mut key.0
            && text.fill(value)
        {
            return key;
        }
        Self(Key::Long(kind, value.into()))
    }

    /// What the partition belongs to.
    pub fn kind(&self) -> PartitionKind {
        match self.0 {
            Key::Short(kind, _) | Key::Long(kind, _) => kind,
        }
    }

    /// Memory that this key owns, allocator overhead included, in bytes.
    pub(crate) fn footprint(&self) -> usize {
        match &self.0 {
            Key::Short(..) => 0,
            Key::Long(_, text) => text.len() + crate::memory::ALLOCATION,
        }
    }

    /// The text that names the partition within its kind.
    pub(crate) fn value(&self) -> &[u8] {
        match &self.0 {
            Key::Short(_, text) => text.as_bytes(),
            Key::Long(_, text) => text,
        }
    }

    /// Feeds a digest with what stands for the key in the store: namespace, kind and text.
    pub(crate) fn digest_with(&self, namespace: &str, mut update: impl FnMut(&[u8])) {
        let mut kind = [0; 4];
        update(b"tower-token-cache partition v1\0");
        update(&(namespace.len() as u64).to_be_bytes());
        update(namespace.as_bytes());
        update(self.kind().tag().encode_utf8(&mut kind).as_bytes());
        update(self.value());
    }
}

/// Where the first such byte is. Most texts here are of 16 to 64 bytes: 16 at a time are looked at,
/// and the last 16 as a whole, so that there is no rest to look at byte by byte.
#[inline]
pub(super) fn position(text: &[u8], is: impl Fn(u8) -> bool) -> Option<usize> {
    let any = |part: &[u8]| part.iter().fold(false, |any, byte| any | is(*byte));
    let found = match text.last_chunk::<16>() {
        Some(last) => text.as_chunks::<16>().0.iter().any(|part| any(part)) || any(last),
        None => any(text),
    };
    match found {
        true => text.iter().position(|byte| is(*byte)),
        false => None,
    }
}

/// Accepts 1 to `limit` bytes without control characters.
pub(super) fn check(text: &str, limit: usize) -> Result<(), KeyError> {
    let has_control = match text.is_ascii() {
        true => text.bytes().any(|byte| byte.is_ascii_control()),
        false => text.chars().any(char::is_control),
    };
    match text {
        "" => Err(KeyError::Empty),
        _ if text.len() > limit => Err(KeyError::TooLong { limit }),
        _ if has_control => Err(KeyError::InvalidCharacter),
        _ => Ok(()),
    }
}

impl PartialEq for PartitionKey {
    fn eq(&self, other: &Self) -> bool {
        self.kind() == other.kind() && self.value() == other.value()
    }
}

impl Eq for PartitionKey {}

impl Hash for PartitionKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Each key's text ends where its kind stands: one run of bytes is hashed faster than three.
        state.write(self.value());
        state.write_u8(self.kind() as u8);
    }
}

impl fmt::Debug for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartitionKey({:?}, [redacted])", self.kind())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(key: &PartitionKey, namespace: &str) -> Vec<u8> {
        let mut sha = Sha256::new();
        key.digest_with(namespace, |part| sha.update(part));
        sha.finalize().to_vec()
    }

    #[test]
    fn kinds_never_collide() {
        let hash = URL_SAFE_NO_PAD.encode(Sha256::digest("x"));
        let keys = [
            PartitionKey::user(&hash).unwrap(),
            PartitionKey::session(&hash).unwrap(),
            PartitionKey::assertion("x"),
            PartitionKey::application(&hash, "").unwrap(),
            PartitionKey::application("a", "b").unwrap(),
            PartitionKey::application("a b", "").unwrap(),
        ];
        for (i, a) in keys.iter().enumerate() {
            for (j, b) in keys.iter().enumerate() {
                assert_eq!(a == b, i == j);
                assert_eq!(digest(a, "n") == digest(b, "n"), i == j);
            }
            assert_ne!(digest(a, "n"), digest(a, "other"));
        }
    }

    #[test]
    fn no_two_users_or_provider_sessions_have_one_epoch() {
        let epochs = [
            PartitionKey::epoch_of("sid"),
            PartitionKey::epoch_of("sidab"),
            PartitionKey::epoch_of_provider_session("a", "b"),
            PartitionKey::epoch_of_provider_session("ab", "c"),
            PartitionKey::epoch_of_provider_session("a", "bc"),
            PartitionKey::epoch_of_provider_user("a", "b"),
            PartitionKey::epoch_of_provider_user("b", "a"),
        ];
        let epochs = epochs.map(Result::unwrap);
        for (i, a) in epochs.iter().enumerate() {
            for (j, b) in epochs.iter().enumerate() {
                assert_eq!(a == b, i == j);
            }
        }
        for (iss, sid) in [("", "b"), ("a", ""), ("a\u{1}", "b"), ("a", "\u{1}b")] {
            assert!(PartitionKey::epoch_of_provider_session(iss, sid).is_err());
            assert!(PartitionKey::epoch_of_provider_user(iss, sid).is_err());
        }
    }

    #[test]
    fn a_byte_is_found_wherever_it_is() {
        for len in 0..70 {
            let mut text = vec![b'x'; len];
            assert_eq!(position(&text, |byte| byte == b';'), None);
            for place in (0..len).rev() {
                text[place] = b';';
                assert_eq!(position(&text, |byte| byte == b';'), Some(place));
            }
        }
    }

    #[test]
    fn bad_texts_are_typed_errors() {
        assert_eq!(PartitionKey::user(""), Err(KeyError::Empty));
        assert_eq!(
            PartitionKey::session("x".repeat(1025)),
            Err(KeyError::TooLong { limit: 1024 })
        );
        assert!(PartitionKey::session("x".repeat(1024)).is_ok());
        assert_eq!(
            PartitionKey::user("a\u{1f}b"),
            Err(KeyError::InvalidCharacter)
        );
        assert_eq!(
            PartitionKey::application("a\u{1f}b", "c"),
            Err(KeyError::InvalidCharacter)
        );
        assert!(PartitionKey::application("x".repeat(2000), "c").is_err());
    }

    #[test]
    fn an_assertion_is_the_unpadded_base64url_sha256_of_its_text() {
        // SHA-256 of "abc" (FIPS 180-4), in base64url.
        assert_eq!(
            PartitionKey::assertion("abc").value(),
            b"ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0"
        );
    }
}
