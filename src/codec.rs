//! How an entry is written for the store.
//!
//! # Format
//!
//! | offset | bytes | meaning |
//! |---|---|---|
//! | 0 | 1 | `0xC7`, the mark of this crate's envelopes |
//! | 1 | 1 | format version: 1 |
//! | 2 | 1 | protection: 0 = none, 1 = sealed |
//!
//! Without protection there follow
//!
//! | offset | bytes | meaning |
//! |---|---|---|
//! | 3 | 4 | length of the payload, big endian |
//! | 7 | … | payload |
//!
//! and where it is sealed (feature `seal`, AES-256-GCM-SIV of RFC 8452; see the module `seal` for
//! the key and what the tag covers besides)
//!
//! | offset | bytes | meaning |
//! |---|---|---|
//! | 3 | 8 | key id |
//! | 11 | 12 | nonce, random |
//! | 23 | … | payload, encrypted |
//! | … | 16 | tag |
//!
//! The payload of version 1 is one MessagePack map with named members, so that a member can be
//! added without a new version; unknown members are passed over:
//!
//! | member | type | meaning |
//! |---|---|---|
//! | `n` | string | the entry's name: a token key's canonical text, or a reserved name |
//! | `s` | string | the access, refresh or id token; a session value as JSON, empty once it is taken; a failure record as text; `linked` for a link |
//! | `t` | string? | token type |
//! | `o` | string? | scope |
//! | `e` | integer? | expiry, in milliseconds since the Unix epoch |
//! | `r` | integer? | refresh time, likewise |
//! | `i` | integer? | time of issue, likewise |
//! | `x` | map? | extra members of the token endpoint's answer: name → JSON text |
//!
//! `tests/golden/` holds one file per kind of entry; a decoder must read them for ever.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::acquire::FailureRecord;
use crate::key::{EntryKind, TokenKey};
use crate::memory::ALLOCATION;
use crate::secret::Secret;
use crate::time::Timestamp;
use crate::token::Token;
use crate::wipe::Wiped;

pub(crate) const MARK: u8 = 0xC7;
pub(crate) const VERSION: u8 = 1;
const PROTECTION_NONE: u8 = 0;
pub(crate) const PROTECTION_SEALED: u8 = 1;
const HEADER: [u8; 3] = [MARK, VERSION, PROTECTION_NONE];

/// The largest envelope that is decoded: the 1 MiB limit of a token set, with room for framing.
pub(crate) const MAX_ENVELOPE: usize = (1 << 20) + (64 << 10);

/// What an entry holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// An access token, under a token key.
    Token(Token),
    /// A refresh or id token.
    Secret(Secret),
    /// The same with an expiry of its own, or a session value. Boxed, so that an entry is no larger for it.
    Expiring(Box<(Secret, Timestamp)>),
    /// Why the last acquisition failed.
    FailureRecord(Box<FailureRecord>),
    /// A link to a user; its name says to which.
    Link,
}

/// What is stored as the text of a link.
const LINKED: &str = "linked";

impl Value {
    /// A refresh or id token, or a session value.
    pub(crate) fn secret(secret: Secret, expires_at: Option<Timestamp>) -> Self {
        match expires_at {
            Some(expires_at) => Self::Expiring(Box::new((secret, expires_at))),
            None => Self::Secret(secret),
        }
    }

    pub(crate) fn as_secret(&self) -> Option<&Secret> {
        match self {
            Self::Secret(secret) => Some(secret),
            Self::Expiring(expiring) => Some(&expiring.0),
            Self::Token(_) | Self::FailureRecord(_) | Self::Link => None,
        }
    }

    /// When the entry expires; `None` if it lives as long as its partition.
    pub(crate) fn expires_at(&self) -> Option<Timestamp> {
        match self {
            Self::Token(token) => token.expires_at(),
            Self::FailureRecord(record) => Some(record.expires_at()),
            Self::Expiring(expiring) => Some(expiring.1),
            Self::Secret(_) | Self::Link => None,
        }
    }

    pub(crate) fn footprint(&self) -> usize {
        match self {
            Self::Token(token) => token.footprint(),
            Self::Secret(secret) => secret.footprint(),
            Self::Expiring(expiring) => {
                std::mem::size_of_val(&**expiring) + ALLOCATION + expiring.0.footprint()
            }
            Self::FailureRecord(record) => std::mem::size_of_val(&**record) + record.footprint(),
            Self::Link => 0,
        }
    }
}

/// Why bytes from the store are not an entry. Counted and logged without content. In the order of
/// [`UnopenableReasons`](crate::telemetry::UnopenableReasons).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "seal"), allow(dead_code, reason = "nothing is sealed"))]
pub(crate) enum Unopenable {
    /// Not written by this crate, or cut off.
    Foreign,
    /// A format version or protection that this version does not know.
    UnknownVersion,
    /// The payload is damaged.
    Damaged,
    /// Larger than any entry this crate writes.
    TooLarge,
    /// A sound entry in another entry's place.
    Misplaced,
    /// Sealed with a key that is not in the ring, or there is no ring.
    UnknownKey,
    /// Sealed with a key that was revoked.
    RevokedKey,
    /// Sealed, and changed, cut off, or moved here from another user, entry or sign-in.
    Tampered,
    /// Not sealed, where it has to be.
    Plaintext,
}

impl Unopenable {
    /// The reason as logs and metrics have it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::UnknownVersion => "unknown_version",
            Self::Damaged => "damaged",
            Self::TooLarge => "too_large",
            Self::Misplaced => "misplaced",
            Self::UnknownKey => "unknown_key",
            Self::RevokedKey => "revoked_key",
            Self::Tampered => "tampered",
            Self::Plaintext => "plaintext",
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Payload<'a> {
    #[serde(borrow)]
    n: &'a str,
    #[serde(borrow)]
    s: &'a str,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    t: Option<&'a str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    o: Option<&'a str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    e: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    r: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    i: Option<u64>,
    #[serde(borrow, default, skip_serializing_if = "BTreeMap::is_empty")]
    x: BTreeMap<&'a str, &'a str>,
}

/// Writes an entry without protection, into a buffer that is wiped when the last clone is dropped.
pub(crate) fn encode(name: &str, value: &Value) -> Bytes {
    let start = HEADER.len() + 4;
    let mut buffer = write(name, value, start, 0);
    let length = (buffer.len() - start) as u32;
    buffer[..HEADER.len()].copy_from_slice(&HEADER);
    buffer[HEADER.len()..start].copy_from_slice(&length.to_be_bytes());
    Bytes::from_owner(buffer)
}

/// Writes an entry's payload, after `before` zeros and with room for `after` bytes more.
pub(crate) fn write(name: &str, value: &Value, before: usize, after: usize) -> Wiped<Vec<u8>> {
    let empty = BTreeMap::new();
    let record;
    let (text, token) = match value {
        Value::Token(token) => (token.access_token(), Some(token)),
        Value::Secret(secret) => (secret.expose(), None),
        Value::Expiring(expiring) => (expiring.0.expose(), None),
        Value::FailureRecord(failure) => {
            record = failure.to_text();
            (record.as_str(), None)
        }
        Value::Link => (LINKED, None),
    };
    let extras = token.map_or(&empty, |token| token.extras());
    let payload = Payload {
        n: name,
        s: text,
        t: token.and_then(Token::token_type),
        o: token.and_then(Token::scope),
        e: value.expires_at().map(Timestamp::as_millis),
        r: token.and_then(Token::refresh_at).map(Timestamp::as_millis),
        i: token.and_then(Token::issued_at).map(Timestamp::as_millis),
        x: extras.iter().map(|(k, v)| (&**k, v.expose())).collect(),
    };
    // Large enough for every member, so that the buffer never grows and leaves a copy behind:
    // per text at most 5 bytes of length and 2 of name, per number 9 and 2.
    let texts = [Some(payload.n), Some(payload.s), payload.t, payload.o];
    let texts: usize = texts.iter().flatten().map(|text| text.len() + 7).sum();
    let extra: usize = payload.x.iter().map(|(k, v)| k.len() + v.len() + 10).sum();
    let room = before + texts + extra + 64 + after;
    let mut buffer = Wiped::new(Vec::with_capacity(room));
    buffer.resize(before, 0);
    let written = rmp_serde::encode::write_named(&mut *buffer, &payload);
    debug_assert!(written.is_ok(), "strings and integers always encode");
    debug_assert!(buffer.len() + after <= room, "the buffer never grows");
    buffer
}

/// Reads an entry without protection, and checks that it stands where its name belongs.
pub(crate) fn decode(
    bytes: &[u8],
    belongs: impl FnOnce(&str) -> bool,
) -> Result<(TokenKey, Value), Unopenable> {
    if bytes.len() > MAX_ENVELOPE {
        return Err(Unopenable::TooLarge);
    }
    let payload = match bytes {
        [MARK, VERSION, PROTECTION_NONE, a, b, c, d, payload @ ..] => {
            let length = u32::from_be_bytes([*a, *b, *c, *d]);
            if length as usize != payload.len() {
                return Err(Unopenable::Damaged);
            }
            payload
        }
        [MARK, VERSION, PROTECTION_SEALED, ..] => return Err(Unopenable::UnknownKey),
        [MARK, version, protection, ..]
            if (*version, *protection) != (VERSION, PROTECTION_NONE) =>
        {
            return Err(Unopenable::UnknownVersion);
        }
        _ => return Err(Unopenable::Foreign),
    };
    read(payload, belongs)
}

/// Reads an entry's payload, and checks that it stands where its name belongs.
pub(crate) fn read(
    payload: &[u8],
    belongs: impl FnOnce(&str) -> bool,
) -> Result<(TokenKey, Value), Unopenable> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(payload);
    reader.set_max_depth(16);
    let payload = Payload::deserialize(&mut reader).map_err(|_| Unopenable::Damaged)?;
    if !belongs(payload.n) {
        return Err(Unopenable::Misplaced);
    }
    let name = TokenKey::from_canonical(payload.n);
    let value = match EntryKind::of(payload.n) {
        EntryKind::Token => Value::Token(token(&payload)),
        EntryKind::Secret | EntryKind::SessionValue => {
            Value::secret(payload.s.into(), payload.e.map(Timestamp::from_millis))
        }
        EntryKind::FailureRecord => {
            let record = FailureRecord::parse(payload.s).ok_or(Unopenable::Damaged)?;
            Value::FailureRecord(Box::new(record))
        }
        EntryKind::Link => Value::Link,
    };
    Ok((name, value))
}

fn token(payload: &Payload<'_>) -> Token {
    let extras = payload.x.iter().map(|(k, v)| ((*k).into(), (*v).into()));
    let mut token = Token::new(payload.s).with_extras(extras.collect());
    if let Some(token_type) = payload.t {
        token = token.with_token_type(token_type);
    }
    if let Some(scope) = payload.o {
        token = token.with_scope(scope);
    }
    if let Some(millis) = payload.e {
        token = token.with_expires_at(Timestamp::from_millis(millis));
    }
    if let Some(millis) = payload.r {
        token = token.with_refresh_at(Timestamp::from_millis(millis));
    }
    if let Some(millis) = payload.i {
        token = token.with_issued_at(Timestamp::from_millis(millis));
    }
    token
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
