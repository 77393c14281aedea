//! `RingKey` and `KeyId`: 256 secret bits, and what tells keys apart.

use std::fmt;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use super::error::{KeyRingError, KeyRingErrorKind};

/// Padded or not: both are what people paste.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);
const BASE64URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);

/// A key of a [`KeyRing`](crate::KeyRing): 32 secret bytes, random. Wiped on drop; `Debug` shows
/// nothing of it.
#[derive(Clone)]
pub struct RingKey(Box<Zeroizing<[u8; 32]>>);

impl RingKey {
    /// A new random key, from the operating system.
    ///
    /// # Errors
    /// [`KeyRingErrorKind::Randomness`] when the system has none.
    pub fn generate() -> Result<Self, KeyRingError> {
        // Filled in place: no copy stays on the stack.
        let mut key = Box::new(Zeroizing::new([0; 32]));
        match getrandom::fill(&mut key[..]) {
            Ok(()) => Ok(Self(key)),
            Err(error) => Err(KeyRingErrorKind::Randomness.because(error)),
        }
    }

    /// A key of these bytes, which must be random: a password is no key. The argument is wiped.
    pub fn from_bytes(mut bytes: [u8; 32]) -> Self {
        let mut key = Box::new(Zeroizing::new([0; 32]));
        key.copy_from_slice(&bytes);
        bytes.zeroize();
        Self(key)
    }

    /// A key from 32 bytes in base64 (standard or URL-safe alphabet, padded or not), as
    /// `openssl rand -base64 32` prints it.
    ///
    /// # Errors
    /// [`KeyRingErrorKind::Malformed`] for anything else.
    pub fn from_base64(text: &str) -> Result<Self, KeyRingError> {
        let text = text.trim();
        let engine = match text.contains(['-', '_']) {
            true => BASE64URL,
            false => BASE64,
        };
        // Room for what the decoder may ask for, so that nothing is left in a smaller buffer.
        let mut bytes = Zeroizing::new([0; 64]);
        match engine.decode_slice(text, &mut bytes[..]) {
            Ok(32) => {
                let mut key = Box::new(Zeroizing::new([0; 32]));
                key.copy_from_slice(&bytes[..32]);
                Ok(Self(key))
            }
            _ => Err(KeyRingErrorKind::Malformed.into()),
        }
    }

    /// The key in base64, to be kept in a secret store. Do not log it.
    pub fn to_base64(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(64));
        BASE64.encode_string(&self.0[..], &mut text);
        text
    }

    pub(super) fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// HMAC-SHA-256 under this key.
    pub(super) fn mac(&self) -> Hmac<Sha256> {
        // As RFC 2104 has it for a key shorter than a block: padded with zeros.
        let mut block = Zeroizing::new([0; 64]);
        block[..32].copy_from_slice(self.expose());
        Hmac::new((&*block).into())
    }

    /// A key of its own for another purpose.
    pub(super) fn derive(&self, purpose: &[u8]) -> Self {
        let derived = self
            .mac()
            .chain_update(purpose)
            .chain_update([1])
            .finalize();
        Self::from_bytes(derived.into_bytes().into())
    }
}

impl PartialEq for RingKey {
    fn eq(&self, other: &Self) -> bool {
        // Compared by what cannot tell anything of the rest when it is timed.
        let probe = |key: &Self| key.derive(b"tower-token-cache comparison v1\0").0;
        probe(self) == probe(other)
    }
}

impl fmt::Debug for RingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RingKey([redacted])")
    }
}

/// Tells the keys of a ring apart: 8 random bytes, or for keys that the application brings a digest
/// of the key. Not secret: it stands before each value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 8]);

impl KeyId {
    /// The id of these bytes.
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// The id from the 16 hexadecimal digits that `Display` shows.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 16 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let number = u64::from_str_radix(text, 16).ok()?;
        Some(Self(number.to_be_bytes()))
    }

    /// The id as it stands in a sealed value.
    pub fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }

    pub(super) fn random() -> Result<Self, KeyRingError> {
        match getrandom::u64() {
            Ok(number) => Ok(Self(number.to_be_bytes())),
            Err(error) => Err(KeyRingErrorKind::Randomness.because(error)),
        }
    }

    /// The same on every instance that has the key.
    pub(super) fn of(key: &RingKey) -> Self {
        let digest = key.derive(b"tower-token-cache key id v1\0");
        let mut id = [0; 8];
        id.copy_from_slice(&digest.expose()[..8]);
        Self(id)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_either_alphabet_is_a_key() {
        let key = RingKey::from_bytes([0xfb; 32]);
        let text = key.to_base64();
        for text in [
            text.as_str(),
            text.trim_end_matches('='),
            &text.replace('+', "-").replace('/', "_"),
            &format!(" {}\n", text.as_str()),
        ] {
            assert_eq!(RingKey::from_base64(text).unwrap(), key);
        }
        for text in [
            "",
            "abc",
            &"A".repeat(42),
            &"A".repeat(44),
            &"A".repeat(500),
            "p4ss word",
        ] {
            let error = RingKey::from_base64(text).unwrap_err();
            assert_eq!(error.kind(), KeyRingErrorKind::Malformed, "{text}");
        }
    }

    #[test]
    fn ids_are_shown_as_they_are_read() {
        let id = KeyId::from_bytes([0, 1, 2, 3, 4, 5, 6, 0xff]);
        assert_eq!(id.to_string(), "00010203040506ff");
        assert_eq!(KeyId::parse("00010203040506ff"), Some(id));
        assert_eq!(KeyId::parse("+001020304050607"), None);
        assert_eq!(KeyId::parse("00"), None);
    }

    #[test]
    fn debug_shows_no_key() {
        let key = RingKey::from_bytes([7; 32]);
        assert_eq!(format!("{key:?}"), "RingKey([redacted])");
    }
}
