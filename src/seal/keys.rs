//! The keys that a ring has at one moment.

use super::aead::SealingKey;
use super::key::{KeyId, RingKey};
use super::record::{Kind, StoredKey};
use crate::codec::Unopenable;
use crate::store::Names;
use crate::time::Timestamp;

const NAMING: &[u8] = b"tower-token-cache naming v1\0";

/// Immutable: a ring that learns of a key gets new ones. Never without a key.
pub(super) struct Keys {
    pub(super) names: Names,
    /// `None` where the application gives the keys.
    pub(super) naming: Option<StoredKey>,
    /// In the order in which they become active.
    pub(super) keys: Vec<HeldKey>,
    pub(super) revoked: Vec<KeyId>,
}

#[derive(Clone)]
pub(super) struct HeldKey {
    pub(super) sealing: SealingKey,
    pub(super) stored: StoredKey,
}

impl HeldKey {
    pub(super) fn new(stored: StoredKey) -> Self {
        Self {
            sealing: SealingKey::new(stored.id, &stored.key),
            stored,
        }
    }
}

impl Keys {
    /// The keys of an application, the active one first; `naming` or the last one gives the names.
    pub(super) fn fixed(active: RingKey, older: Vec<RingKey>, naming: Option<RingKey>) -> Self {
        let naming = naming.as_ref().or(older.last()).unwrap_or(&active);
        let names = Names::keyed(naming.derive(NAMING).expose());
        let count = older.len() as u64;
        let mut keys: Vec<HeldKey> = Vec::with_capacity(older.len() + 1);
        for (age, key) in std::iter::once(active).chain(older).enumerate() {
            let id = KeyId::of(&key);
            if keys.iter().all(|known| known.stored.id != id) {
                let activates = Timestamp::from_millis(count - age as u64);
                keys.push(HeldKey::new(StoredKey {
                    name: String::new(),
                    kind: Kind::Sealing,
                    id,
                    created: activates,
                    activates,
                    key,
                }));
            }
        }
        keys.reverse();
        Self {
            names,
            naming: None,
            keys,
            revoked: Vec::new(),
        }
    }

    /// The keys of a repository; `None` without a sealing key.
    pub(super) fn stored(
        naming: StoredKey,
        mut keys: Vec<HeldKey>,
        revoked: Vec<KeyId>,
    ) -> Option<Self> {
        keys.sort_by(|a, b| {
            let order = |key: &HeldKey| (key.stored.activates, key.stored.name.clone());
            order(a).cmp(&order(b))
        });
        (!keys.is_empty()).then(|| Self {
            names: Names::keyed(naming.key.expose()),
            naming: Some(naming),
            keys,
            revoked,
        })
    }

    pub(super) fn is_revoked(&self, id: KeyId) -> bool {
        self.revoked.contains(&id)
    }

    pub(super) fn knows(&self, id: KeyId) -> bool {
        self.is_revoked(id) || self.keys.iter().any(|key| key.stored.id == id)
    }

    /// Keys that may be used, in the order in which they become active.
    pub(super) fn valid(&self) -> impl DoubleEndedIterator<Item = &HeldKey> {
        self.keys
            .iter()
            .filter(|key| !self.is_revoked(key.stored.id))
    }

    /// The key that seals now: the latest that has become active. Where this clock is behind and
    /// none has, the first that will.
    pub(super) fn active(&self, now: Timestamp) -> &HeldKey {
        let started = self.valid().rev().find(|key| key.stored.activates <= now);
        started
            .or_else(|| self.valid().next())
            // All are revoked, and there was no way to make another: what is sealed now opens
            // nowhere, which is what was asked for.
            .unwrap_or(&self.keys[self.keys.len() - 1])
    }

    /// The key that opens what was sealed with it.
    pub(super) fn opening(&self, id: KeyId) -> Result<&SealingKey, Unopenable> {
        if self.is_revoked(id) {
            return Err(Unopenable::RevokedKey);
        }
        let mut known = self.keys.iter().filter(|key| key.stored.id == id);
        let key = known.next().ok_or(Unopenable::UnknownKey)?;
        Ok(&key.sealing)
    }
}
