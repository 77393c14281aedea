//! Text that must not leak.

use std::sync::Arc;
use std::{fmt, io};

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::wipe::Wiped;

/// A secret string: an access, refresh or id token.
///
/// Clones share one buffer, so a clone costs a reference count. The buffer is wiped when the last
/// clone is dropped, and `Debug` prints `[redacted]`. Reading the text takes an explicit
/// [`expose`](Secret::expose).
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<Wiped<Box<str>>>);

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

    /// A value as JSON, in a buffer that never grew and left no copy behind.
    pub(crate) fn json(value: &impl Serialize) -> serde_json::Result<Self> {
        let mut length = Length(0);
        serde_json::to_writer(&mut length, value)?;
        let mut text = Wiped::new(Vec::with_capacity(length.0));
        serde_json::to_writer(&mut *text, value)?;
        let text = std::str::from_utf8(&text).map_err(serde::ser::Error::custom)?;
        Ok(text.into())
    }

    /// The same of a value that is wiped.
    pub(crate) fn json_of(mut value: serde_json::Value) -> serde_json::Result<Self> {
        let json = Self::json(&value);
        wipe_json(&mut value);
        json
    }

    /// What the buffer and its reference count cost in memory, in bytes.
    pub(crate) fn footprint(&self) -> usize {
        self.len() + 2 * crate::memory::ALLOCATION + 32
    }
}

/// Counts what is written.
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn wipe_json(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) => drop(Wiped::new(std::mem::take(text).into_bytes())),
        serde_json::Value::Array(items) => items.iter_mut().for_each(wipe_json),
        serde_json::Value::Object(members) => members.values_mut().for_each(wipe_json),
        _ => {}
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(Arc::new(Wiped::new(text.into())))
    }
}

impl From<String> for Secret {
    /// Takes the text over, and wipes the source when it had to be copied to fit.
    fn from(text: String) -> Self {
        if text.len() == text.capacity() {
            return Self(Arc::new(Wiped::new(text.into_boxed_str())));
        }
        let secret = Self::from(text.as_str());
        drop(Wiped::new(text.into_bytes()));
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
