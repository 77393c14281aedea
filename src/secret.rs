//! Text that must not leak.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, de};
use zeroize::{Zeroize, Zeroizing};

/// A secret string: an access, refresh or id token.
///
/// Clones share one buffer, so a clone costs a reference count. The buffer is wiped when the last
/// clone is dropped, and `Debug` prints `[redacted]`. Reading the text takes an explicit
/// [`expose`](Secret::expose).
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<Zeroizing<Box<str>>>);

impl Secret {
    /// The text itself. Do not log it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the text is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the buffer and its reference count cost in memory, in bytes.
    pub(crate) fn footprint(&self) -> usize {
        self.len() + 2 * crate::cache::ALLOCATION + 32
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(Arc::new(Zeroizing::new(text.into())))
    }
}

impl From<String> for Secret {
    /// Takes the text over, and wipes the source when it had to be copied to fit.
    fn from(mut text: String) -> Self {
        if text.len() == text.capacity() {
            return Self(Arc::new(Zeroizing::new(text.into_boxed_str())));
        }
        let secret = Self::from(text.as_str());
        text.zeroize();
        secret
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Secret;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
                Ok(text.into())
            }
            fn visit_string<E: de::Error>(self, text: String) -> Result<Secret, E> {
                Ok(text.into())
            }
        }
        deserializer.deserialize_str(Text)
    }
}
