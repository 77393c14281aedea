//! The names of partitions and entries in a store: digests.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// Names a partition in the store: a namespace and a digest, which tells nothing of the key.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PartitionId {
    pub(super) namespace: Arc<str>,
    pub(super) digest: [u8; 32],
}

impl PartitionId {
    /// The same partition under a number of the namespace.
    pub(crate) fn under(mut self, number: u64) -> Self {
        self.digest = Sha256::new()
            .chain_update(b"tower-token-cache prefix v1\0")
            .chain_update(number.to_be_bytes())
            .chain_update(self.digest)
            .finalize()
            .into();
        self
    }

    /// The id of a partition that belongs to no key, for tests of a store.
    #[cfg(feature = "test-util")]
    pub fn for_tests(namespace: &str, name: &str) -> Self {
        let digest = Sha256::new()
            .chain_update(b"tower-token-cache test partition v1\0")
            .chain_update(namespace)
            .chain_update(b"\0")
            .chain_update(name)
            .finalize();
        Self {
            namespace: namespace.into(),
            digest: digest.into(),
        }
    }

    /// The id of this digest, as a [listing](super::Listed) finds it in a store.
    pub fn from_digest(namespace: impl Into<Arc<str>>, digest: [u8; 32]) -> Self {
        Self {
            namespace: namespace.into(),
            digest,
        }
    }

    /// The application's namespace: letters, digits, `.`, `_`, `-` and `:`.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The digest, unique across namespaces.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The digest in unpadded base64url.
    pub fn encoded(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.digest)
    }

    /// A prefix of the digest that tells partitions apart in logs.
    pub(crate) fn short(&self) -> String {
        URL_SAFE_NO_PAD.encode(&self.digest[..6])
    }
}

impl fmt::Debug for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartitionId({}…)", self.short())
    }
}

/// Names an entry within its partition: a digest of the entry's name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId([u8; 16]);

impl EntryId {
    /// The id as stored.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The id in unpadded base64url.
    pub fn encoded(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }
}

impl From<[u8; 16]> for EntryId {
    fn from(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryId({}…)", URL_SAFE_NO_PAD.encode(&self.0[..3]))
    }
}

/// A random number that identifies a commit, or a sign-out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(pub [u8; 8]);
