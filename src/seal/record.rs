//! What a record of the repository says.
//!
//! Content is JSON. Names carry the order:
//!
//! | name | kind | holds |
//! |---|---|---|
//! | `naming` | `naming` | the key of the names of partitions and entries; the first one for ever |
//! | `key-00000001`, … | `sealing` | a sealing key; whoever adds the next number has made the next key |
//! | one of these, `.` and 16 digits | the same | the same key, wrapped by another protector |
//! | `revoked-` and a key id | `revoked` | that this key opens nothing any more |
//!
//! A key's record ends with a check value under the key itself: nobody who lacks the key can change
//! its id or its times, or put it under another name.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::Mac;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use super::erased::DynProtector;
use super::error::{KeyRingError, KeyRingErrorKind};
use super::key::{KeyId, RingKey};
use super::repository::KeyRecord;
use crate::time::Timestamp;

pub(super) const NAMING: &str = "naming";
const KEY: &str = "key-";
const REVOKED: &str = "revoked-";
/// Names above this number are not ours, and are not counted on from.
const MAX_NUMBER: u32 = 99_999_999;
/// The largest content of a record, in bytes.
pub(super) const MAX_CONTENT: usize = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Naming,
    Sealing,
    Revoked,
}

#[derive(Serialize, Deserialize)]
struct Content<'a> {
    v: u8,
    kind: Kind,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(default)]
    created: u64,
    #[serde(default)]
    activates: u64,
    /// The protector's id; absent when the key is in the clear.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    protector: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    key: Cow<'a, str>,
    #[serde(borrow, default)]
    check: Cow<'a, str>,
}

/// A key as the repository has it.
#[derive(Clone, Debug)]
pub(super) struct StoredKey {
    /// The record's name, without what tells protectors apart.
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) id: KeyId,
    pub(super) created: Timestamp,
    pub(super) activates: Timestamp,
    pub(super) key: RingKey,
}

impl StoredKey {
    fn check(&self) -> String {
        let mut mac = self.key.mac();
        mac.update(b"tower-token-cache ring record v1\0");
        mac.update(&[self.kind as u8]);
        mac.update(self.id.as_bytes());
        mac.update(&self.created.as_millis().to_be_bytes());
        mac.update(&self.activates.as_millis().to_be_bytes());
        mac.update(self.name.as_bytes());
        STANDARD.encode(&mac.finalize().into_bytes()[..16])
    }

    /// Whether a record says that it holds this key. The check value tells.
    pub(super) fn is_in(&self, record: &KeyRecord) -> bool {
        serde_json::from_slice::<Content<'_>>(&record.content)
            .is_ok_and(|content| content.check == self.check())
    }

    /// The record of this key, in the clear or wrapped.
    pub(super) async fn record(
        &self,
        protector: Option<&dyn DynProtector>,
        copy: bool,
    ) -> Result<KeyRecord, KeyRingError> {
        let key = match protector {
            Some(protector) => {
                let wrapped = protector.protect(self.key.expose()).await?;
                Zeroizing::new(STANDARD.encode(wrapped))
            }
            None => self.key.to_base64(),
        };
        let id = protector.map(DynProtector::id);
        let name = match id.as_deref().filter(|_| copy) {
            Some(id) => copy_name(&self.name, id),
            None => self.name.clone(),
        };
        let content = Content {
            v: 1,
            kind: self.kind,
            id: self.id.to_string().into(),
            created: self.created.as_millis(),
            activates: self.activates.as_millis(),
            protector: id.map(Cow::Owned),
            key: key.as_str().into(),
            check: self.check().into(),
        };
        written(name, &content)
    }
}

/// The name of a key's copy for another protector: the same for everybody who makes it.
pub(super) fn copy_name(name: &str, protector: &str) -> String {
    let digest = Sha256::digest(protector);
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    format!("{name}.{:016x}", u64::from_be_bytes(first))
}

/// The name of sealing key `number`.
pub(super) fn key_name(number: u32) -> String {
    format!("{KEY}{number:08}")
}

/// The number in a sealing key's name.
pub(super) fn key_number(name: &str) -> Option<u32> {
    let number = base_name(name).strip_prefix(KEY)?.parse().ok()?;
    (number < MAX_NUMBER).then_some(number)
}

/// The name without what tells protectors apart.
pub(super) fn base_name(name: &str) -> &str {
    name.split_once('.').map_or(name, |(base, _)| base)
}

/// The record that revokes a key.
pub(super) fn revocation(id: KeyId, now: Timestamp) -> Result<KeyRecord, KeyRingError> {
    let content = Content {
        v: 1,
        kind: Kind::Revoked,
        id: id.to_string().into(),
        created: now.as_millis(),
        activates: 0,
        protector: None,
        key: "".into(),
        check: "".into(),
    };
    written(format!("{REVOKED}{id}"), &content)
}

/// The key that a record of this name revokes. The name alone counts: a record that is damaged
/// must not bring a key back.
pub(super) fn revoked(name: &str) -> Option<KeyId> {
    KeyId::parse(name.strip_prefix(REVOKED)?)
}

/// Who has wrapped a record's key; `None` when it is in the clear or cannot be read.
pub(super) fn protector_of(record: &KeyRecord) -> Option<String> {
    let content: Content<'_> = serde_json::from_slice(&record.content).ok()?;
    content.protector.map(Cow::into_owned)
}

/// The key of a record, unwrapped by the first protector that can.
pub(super) async fn read(
    record: &KeyRecord,
    protectors: &[std::sync::Arc<dyn DynProtector>],
) -> Result<StoredKey, KeyRingError> {
    let damaged = || KeyRingError::new(KeyRingErrorKind::Damaged);
    if record.content.len() > MAX_CONTENT {
        return Err(KeyRingErrorKind::TooLarge.into());
    }
    let content: Content<'_> = serde_json::from_slice(&record.content)
        // What is wrong with it is not said: the text may hold a key.
        .map_err(|_| damaged())?;
    let id = KeyId::parse(&content.id).ok_or_else(damaged)?;
    if content.v != 1 || content.kind == Kind::Revoked {
        return Err(damaged());
    }
    let key = match (&content.protector, protectors) {
        (None, []) => RingKey::from_base64(&content.key).map_err(|_| damaged())?,
        (None, _) => return Err(KeyRingErrorKind::Unprotected.into()),
        (Some(_), []) => return Err(KeyRingErrorKind::Protector.into()),
        (Some(_), protectors) => {
            let wrapped = STANDARD.decode(&*content.key).map_err(|_| damaged())?;
            unwrapped(&wrapped, protectors).await?
        }
    };
    let stored = StoredKey {
        name: base_name(&record.name).into(),
        kind: content.kind,
        id,
        created: Timestamp::from_millis(content.created),
        activates: Timestamp::from_millis(content.activates),
        key,
    };
    match stored.check() == content.check {
        true => Ok(stored),
        false => Err(damaged()),
    }
}

async fn unwrapped(
    wrapped: &[u8],
    protectors: &[std::sync::Arc<dyn DynProtector>],
) -> Result<RingKey, KeyRingError> {
    let mut first = None;
    for protector in protectors {
        match protector.unprotect(wrapped).await {
            Ok(key) => {
                let mut bytes = [0; 32];
                if key.len() == bytes.len() {
                    bytes.copy_from_slice(&key);
                    let key = RingKey::from_bytes(bytes);
                    bytes.zeroize();
                    return Ok(key);
                }
            }
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| KeyRingErrorKind::Protector.into()))
}

fn written(name: String, content: &Content<'_>) -> Result<KeyRecord, KeyRingError> {
    let room = content.key.len() + content.protector.as_ref().map_or(0, |id| 6 * id.len()) + 256;
    let mut buffer = Zeroizing::new(Vec::with_capacity(room));
    serde_json::to_writer(&mut *buffer, content)
        .map_err(|_| KeyRingError::new(KeyRingErrorKind::Damaged))?;
    debug_assert!(buffer.len() <= room, "the buffer never grows");
    match buffer.len() <= MAX_CONTENT {
        true => Ok(KeyRecord {
            name,
            content: buffer,
        }),
        false => Err(KeyRingErrorKind::TooLarge.into()),
    }
}
