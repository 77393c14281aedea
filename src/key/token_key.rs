//! `TokenKey`: which token of a partition.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::KeyError;
use super::partition::check;
use super::short::Short;

/// Separates the parts of a scoped key; a name cannot hold it.
const SEPARATOR: char = '\u{1f}';

/// Which token of the partition: a name, or a resource with scopes.
///
/// ```
/// use tower_token_cache::TokenKey;
///
/// let a = TokenKey::scoped("https://graph.example", ["mail.read", "profile"])?;
/// let b = TokenKey::scoped("https://graph.example", ["profile", "mail.read", "profile"])?;
/// assert_eq!(a, b);
/// assert_ne!(a, TokenKey::new("https://graph.example")?);
/// # Ok::<(), tower_token_cache::KeyError>(())
/// ```
#[derive(Clone)]
pub struct TokenKey(Text);

#[derive(Clone)]
enum Text {
    /// Room for a name; as large as the rest of this type.
    Short(Short<22>),
    Long(Arc<str>),
}

impl TokenKey {
    /// The longest key, in bytes: a resource and a page of scopes.
    pub const MAX_LEN: usize = 4096;

    /// A key by name, such as `"graph"`.
    ///
    /// # Errors
    /// [`KeyError`] for an empty text, one over [`MAX_LEN`](Self::MAX_LEN) bytes, or one with
    /// control characters.
    pub fn new(name: impl AsRef<str>) -> Result<Self, KeyError> {
        check(name.as_ref(), Self::MAX_LEN)?;
        Ok(Self::from_canonical(name.as_ref()))
    }

    /// A key by resource and scopes. The order and the duplicates of scopes do not matter; their
    /// case does (RFC 6749 §3.3).
    ///
    /// # Errors
    /// As for [`new`](Self::new), and [`KeyError::InvalidCharacter`] for a scope with a space.
    pub fn scoped<S: AsRef<str>>(
        resource: impl AsRef<str>,
        scopes: impl IntoIterator<Item = S>,
    ) -> Result<Self, KeyError> {
        let resource = resource.as_ref();
        check(resource, Self::MAX_LEN)?;
        let scopes: Vec<S> = scopes.into_iter().collect();
        let mut names: Vec<&str> = scopes.iter().map(AsRef::as_ref).collect();
        for name in &names {
            check(name, Self::MAX_LEN)?;
            if name.contains(' ') {
                return Err(KeyError::InvalidCharacter);
            }
        }
        names.sort_unstable();
        names.dedup();
        let text = format!("{SEPARATOR}{resource}{SEPARATOR}{}", names.join(" "));
        if text.len() > Self::MAX_LEN {
            return Err(KeyError::TooLong {
                limit: Self::MAX_LEN,
            });
        }
        Ok(Self::from_canonical(&text))
    }

    /// The name, or the resource of a scoped key.
    pub fn resource(&self) -> &str {
        self.parts().0
    }

    /// The scopes, sorted; none for a key by name.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.parts().1.split_ascii_whitespace()
    }

    fn parts(&self) -> (&str, &str) {
        let text: &str = self.as_ref();
        match text.strip_prefix(SEPARATOR) {
            None => (text, ""),
            Some(scoped) => scoped.split_once(SEPARATOR).unwrap_or((scoped, "")),
        }
    }

    /// A key from a text that was one before.
    pub(crate) fn from_canonical(text: &str) -> Self {
        Self(Short::new(text.as_bytes()).map_or_else(|| Text::Long(text.into()), Text::Short))
    }

    /// Memory that this key owns, allocator overhead included, in bytes.
    pub(crate) fn footprint(&self) -> usize {
        match &self.0 {
            Text::Short(_) => 0,
            Text::Long(text) => text.len() + 2 * crate::memory::ALLOCATION,
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Text::Short(text) => text.as_bytes(),
            Text::Long(text) => text.as_bytes(),
        }
    }
}

impl PartialEq for TokenKey {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for TokenKey {}

impl PartialOrd for TokenKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TokenKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for TokenKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // As the text, which stands for the key in maps.
        self.as_ref().hash(state);
    }
}

/// The canonical text: the name, or resource and sorted scopes behind separators.
impl AsRef<str> for TokenKey {
    fn as_ref(&self) -> &str {
        match &self.0 {
            Text::Short(text) => text.as_str(),
            Text::Long(text) => text,
        }
    }
}

impl Borrow<str> for TokenKey {
    fn borrow(&self) -> &str {
        self.as_ref()
    }
}

impl TryFrom<&str> for TokenKey {
    type Error = KeyError;
    fn try_from(name: &str) -> Result<Self, KeyError> {
        Self::new(name)
    }
}

impl TryFrom<String> for TokenKey {
    type Error = KeyError;
    fn try_from(name: String) -> Result<Self, KeyError> {
        Self::new(name)
    }
}

impl TryFrom<&String> for TokenKey {
    type Error = KeyError;
    fn try_from(name: &String) -> Result<Self, KeyError> {
        Self::new(name)
    }
}

impl From<&TokenKey> for TokenKey {
    fn from(key: &TokenKey) -> Self {
        key.clone()
    }
}

/// The name, or `resource [scopes]`.
impl fmt::Display for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (resource, scopes) = self.parts();
        match self.as_ref().starts_with(SEPARATOR) {
            true => write!(f, "{resource} [{scopes}]"),
            false => f.write_str(resource),
        }
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_normalised_and_names_stay_apart() {
        let scoped = TokenKey::scoped("r", ["b", "a", "b"]).unwrap();
        assert_eq!(scoped, TokenKey::scoped("r", ["a", "b"]).unwrap());
        assert_ne!(scoped, TokenKey::scoped("r", ["A", "b"]).unwrap());
        assert_ne!(scoped, TokenKey::scoped("r a", ["b"]).unwrap());
        assert_eq!(scoped.to_string(), "r [a b]");
        assert_eq!(
            TokenKey::new(scoped.as_ref()),
            Err(KeyError::InvalidCharacter)
        );
        let reserved = scoped.refresh_token();
        assert!(TokenKey::new(reserved.as_ref()).is_err());
    }

    #[test]
    fn bad_texts_are_typed_errors() {
        assert_eq!(TokenKey::new(""), Err(KeyError::Empty));
        assert!(matches!(
            TokenKey::new("x".repeat(4097)),
            Err(KeyError::TooLong { .. })
        ));
        assert!(TokenKey::scoped("r", vec!["scope-name"; 1000]).is_ok());
        assert!(TokenKey::scoped("r", (0..1000).map(|n| format!("s{n}"))).is_err());
        assert_eq!(
            TokenKey::scoped("r", ["a b"]),
            Err(KeyError::InvalidCharacter)
        );
    }
}
