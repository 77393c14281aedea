//! What partitions and entries are called in the store.

#[cfg(feature = "seal")]
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use std::sync::Arc;

use super::{EntryId, PartitionId};
use crate::key::{LINK, PartitionKey};

const ENTRY: &[u8] = b"tower-token-cache entry v1\0";
const LINKS: &[u8] = b"tower-token-cache links v1\0";

/// Makes the names: SHA-256 digests, or HMAC-SHA-256 digests under a key, so that nobody without
/// it can tell whether a record is a certain user's. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Names {
    /// The state after the key was taken in.
    #[cfg(feature = "seal")]
    key: Option<Arc<Hmac<Sha256>>>,
}

impl Names {
    /// Names under this key.
    #[cfg(feature = "seal")]
    pub(crate) fn keyed(key: &[u8; 32]) -> Self {
        let key = Hmac::new_from_slice(key).ok().map(Arc::new);
        debug_assert!(key.is_some(), "HMAC takes keys of any length");
        Self { key }
    }

    /// The id of a partition within a namespace.
    pub(crate) fn partition(&self, namespace: &Arc<str>, key: &PartitionKey) -> PartitionId {
        PartitionId {
            namespace: namespace.clone(),
            digest: self.digest(|update| key.digest_with(namespace, update)),
        }
    }

    /// The id of the epoch of a namespace. It is the same with encryption and without, so that
    /// both see one number.
    pub(crate) fn namespace_epoch(namespace: &str) -> PartitionId {
        Self::default().partition(&namespace.into(), &PartitionKey::everything())
    }

    /// The id of an entry by name.
    pub(crate) fn entry(&self, name: &str) -> EntryId {
        let digest = self.digest(|update| {
            update(ENTRY);
            update(name.as_bytes());
        });
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        if name.starts_with(LINK) {
            id[..8].copy_from_slice(&self.links());
        }
        EntryId::from(id)
    }

    /// Whether an entry is a link to a user: known of one that cannot be read, too, because the
    /// session may be over by it.
    pub(crate) fn is_link(&self, entry: &EntryId) -> bool {
        entry.as_bytes()[..8] == self.links()
    }

    /// The beginning of the ids of links.
    fn links(&self) -> [u8; 8] {
        let digest = self.digest(|update| update(LINKS));
        let mut links = [0; 8];
        links.copy_from_slice(&digest[..8]);
        links
    }

    fn digest(&self, feed: impl FnOnce(&mut dyn FnMut(&[u8]))) -> [u8; 32] {
        #[cfg(feature = "seal")]
        if let Some(key) = &self.key {
            let mut mac = Hmac::clone(key);
            feed(&mut |part| mac.update(part));
            return mac.finalize().into_bytes().into();
        }
        let mut hash = Sha256::new();
        feed(&mut |part| Digest::update(&mut hash, part));
        hash.finalize().into()
    }
}

#[cfg(any(test, feature = "test-util"))]
impl EntryId {
    /// The id of an entry by name, where no key is involved.
    pub(crate) fn of(name: &str) -> Self {
        Names::default().entry(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(names: &Names, user: &str) -> PartitionId {
        names.partition(&"n".into(), &PartitionKey::user(user).unwrap())
    }

    #[test]
    fn without_a_key_names_are_what_they_always_were() {
        // Records of earlier versions are found by these.
        let names = Names::default();
        assert_eq!(
            id(&names, "ada").encoded(),
            "Lg13JExykJ_QqMCv8WS-iFXtfyOmWsyLMpGuoJ18Kfc"
        );
        let entry: String = names
            .entry("graph")
            .as_bytes()
            .map(|b| format!("{b:02x}"))
            .concat();
        assert_eq!(entry, "a0167225228c10066768ae73692d94e6");
    }

    #[test]
    #[cfg(feature = "seal")]
    fn with_a_key_names_are_hmac_sha256() {
        let names = Names::keyed(&[7; 32]);
        let entry: String = names
            .entry("graph")
            .as_bytes()
            .map(|b| format!("{b:02x}"))
            .concat();
        assert_eq!(entry, "37c6688d4b863954daf08af683b421a0");
        assert_eq!(
            id(&names, "ada").encoded(),
            "dv413dkRHdNheyw9hyW5zxAVDYl80MNjWpFymzo29xg"
        );
        assert_ne!(id(&names, "ada"), id(&Names::keyed(&[8; 32]), "ada"));
    }
}
