//! `KeyRing`: the keys that seal and open.

use std::fmt;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::RwLock;
use zeroize::Zeroizing;

use super::aead::{self, PartitionCipher, Place};
use super::dir::{Blocking, DirRepository};
use super::error::{KeyRingError, KeyRingErrorKind};
use super::key::{KeyId, RingKey};
use super::keys::Keys;
use super::source::Source;
use super::synchronise::Vault;
use crate::codec::Unopenable;
use crate::store::{Names, PartitionId};
use crate::time::{Clock, Timestamp};
use crate::wipe::Wiped;

/// The keys that seal what goes to L2: one is active, older ones still open what they have sealed.
///
/// See the [module](super) for what is sealed and how keys rotate. Cheap to clone; clones share
/// everything, and one ring can serve several caches.
#[derive(Clone)]
pub struct KeyRing(pub(super) Arc<Ring>);

pub(super) struct Ring {
    keys: RwLock<Arc<Keys>>,
    clock: Clock,
    /// `None` where the application gives the keys.
    pub(super) source: Option<Source>,
}

/// What a ring says of one of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyInfo {
    /// The key's id.
    pub id: KeyId,
    /// From when on it seals, if no later one does. Without meaning where the application gives
    /// the keys.
    pub activates_at: Timestamp,
    /// Whether it seals now.
    pub active: bool,
    /// Whether it opens nothing any more.
    pub revoked: bool,
}

impl KeyRing {
    /// A ring with one random key that nobody else has: what it seals can be opened until the last
    /// clone is dropped. For tests, and for one process over a store that need not outlive it.
    ///
    /// # Errors
    /// [`KeyRingErrorKind::Randomness`].
    pub fn generate() -> Result<Self, KeyRingError> {
        Ok(Self::from_keys(RingKey::generate()?, []))
    }

    /// A ring of keys that the application brings: `active` seals, `older` ones only open.
    ///
    /// The names of records in L2 are made with a key that is derived from the last of them, so
    /// that a new active key in front changes no name. Before the last one is dropped, go on to
    /// [`from_keys_named_by`](Self::from_keys_named_by) with it, or all records are lost.
    pub fn from_keys(active: RingKey, older: impl IntoIterator<Item = RingKey>) -> Self {
        let older = older.into_iter().collect();
        Self::fixed(Keys::fixed(active, older, None))
    }

    /// The same, where the names of records are made with a key that is derived from `names`. It
    /// seals and opens nothing, and has to stay the same for as long as records are to be found.
    pub fn from_keys_named_by(
        names: RingKey,
        active: RingKey,
        older: impl IntoIterator<Item = RingKey>,
    ) -> Self {
        let older = older.into_iter().collect();
        Self::fixed(Keys::fixed(active, older, Some(names)))
    }

    /// A ring of the keys in an environment variable: each 32 bytes in base64, several separated
    /// by commas, the first one active (`openssl rand -base64 32` makes one). `names=KEY` among
    /// them is as [`from_keys_named_by`](Self::from_keys_named_by):
    ///
    /// | step | variable |
    /// |---|---|
    /// | start | `K1` |
    /// | a new key, known to all instances before it seals | `K1,K2,names=K1` |
    /// | the new key seals | `K2,K1,names=K1` |
    /// | nothing is sealed with the old one any more | `K2,names=K1` |
    ///
    /// # Errors
    /// [`KeyRingErrorKind::Missing`] when it is not set or empty, [`KeyRingErrorKind::Malformed`]
    /// when something in it is no key. The message names the variable.
    pub fn from_env(variable: &str) -> Result<Self, KeyRingError> {
        let ring = match std::env::var(variable) {
            Ok(text) => Self::parse(&Zeroizing::new(text)),
            Err(std::env::VarError::NotPresent) => Err(KeyRingErrorKind::Missing.into()),
            // The error would show the value.
            Err(std::env::VarError::NotUnicode(_)) => Err(KeyRingErrorKind::Malformed.into()),
        };
        ring.map_err(|error| error.of_variable(variable))
    }

    fn parse(text: &str) -> Result<Self, KeyRingError> {
        let mut names = None;
        let mut keys = Vec::new();
        for item in text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
        {
            match item.strip_prefix("names=") {
                Some(_) if names.is_some() => return Err(KeyRingErrorKind::Malformed.into()),
                Some(key) => names = Some(RingKey::from_base64(key)?),
                None => keys.push(RingKey::from_base64(item)?),
            }
        }
        if keys.len() > 1 && names.is_none() {
            tracing::warn!(
                "the last key of the ring names the records: before it is removed, add it as names="
            );
        }
        let mut keys = keys.into_iter();
        let active = keys.next().ok_or(KeyRingErrorKind::Missing)?;
        Ok(Self::fixed(Keys::fixed(active, keys.collect(), names)))
    }

    /// A ring in a folder, for all processes of one machine: made with its first keys if there is
    /// none, rotated as the [module](super) says. The keys stand in its files as they are, with mode
    /// 0600 in a folder of mode 0700; [`builder`](Self::builder) can protect them.
    ///
    /// # Errors
    /// [`KeyRingErrorKind::Permissions`] when the folder or a file in it is open to others than its
    /// owner; other kinds when it cannot be read or written.
    pub fn open_dir(path: impl AsRef<Path>) -> Result<Self, KeyRingError> {
        let dir = DirRepository::open(path)?;
        let clock = Clock::system();
        let mut vault = Vault {
            repository: Arc::new(Blocking(dir.clone())),
            protectors: Vec::new(),
            schedule: super::schedule::Schedule::default(),
        };
        let keys = {
            // Nothing in it waits for anybody else.
            let mut keys = pin!(vault.synchronise(None, clock.now()));
            match keys.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(keys) => keys?,
                Poll::Pending => return Err(KeyRingErrorKind::Unreachable.into()),
            }
        };
        vault.repository = Arc::new(dir);
        Ok(Self::with_source(keys, vault, clock))
    }

    pub(super) async fn open(vault: Vault, clock: Clock) -> Result<Self, KeyRingError> {
        vault.schedule.validate()?;
        let keys = vault.synchronise(None, clock.now()).await?;
        Ok(Self::with_source(keys, vault, clock))
    }

    fn with_source(keys: Keys, vault: Vault, clock: Clock) -> Self {
        Self(Arc::new(Ring {
            keys: RwLock::new(Arc::new(keys)),
            clock,
            source: Some(Source::new(vault)),
        }))
    }

    fn fixed(keys: Keys) -> Self {
        Self(Arc::new(Ring {
            keys: RwLock::new(Arc::new(keys)),
            clock: Clock::system(),
            source: None,
        }))
    }

    /// The keys of the ring, oldest first.
    pub fn keys(&self) -> Vec<KeyInfo> {
        let keys = self.0.keys();
        let active = keys.active(self.0.now()).stored.id;
        let info = |key: &super::keys::HeldKey| KeyInfo {
            id: key.stored.id,
            activates_at: key.stored.activates,
            active: key.stored.id == active,
            revoked: keys.is_revoked(key.stored.id),
        };
        keys.keys.iter().map(info).collect()
    }

    /// The id of the key that seals now.
    pub fn active(&self) -> KeyId {
        self.0.keys().active(self.0.now()).stored.id
    }

    /// Reads the repository now, and makes the next key if it is due. A cache does this in the
    /// background. Does nothing where the application gives the keys.
    ///
    /// # Errors
    /// [`KeyRingError`]; the ring goes on with the keys it has.
    pub async fn refresh(&self) -> Result<(), KeyRingError> {
        self.0.refresh().await
    }

    /// Makes a new key now, which seals after the activation delay like any other.
    ///
    /// # Errors
    /// [`KeyRingErrorKind::Fixed`] where the application gives the keys; others as for
    /// [`refresh`](Self::refresh).
    pub async fn rotate(&self) -> Result<KeyId, KeyRingError> {
        let source = self.0.source.as_ref().ok_or(KeyRingErrorKind::Fixed)?;
        let known = self.0.keys();
        let id = source.vault.rotate(&known, self.0.now()).await?;
        self.0.refresh().await?;
        Ok(id)
    }

    /// Revokes a key, for ever: what it has sealed opens nowhere from the next refresh of each
    /// instance on, and its users sign in again. An instance that knows of it puts it back when the
    /// repository loses it. If no other key is left, one is made that seals
    /// at once; the others learn of it when they meet it.
    ///
    /// # Errors
    /// As for [`rotate`](Self::rotate).
    pub async fn revoke(&self, id: KeyId) -> Result<(), KeyRingError> {
        let source = self.0.source.as_ref().ok_or(KeyRingErrorKind::Fixed)?;
        source.vault.revoke(id, self.0.now()).await?;
        self.0.refresh().await
    }

    /// How records are named.
    pub(crate) fn names(&self) -> Names {
        self.0.keys().names.clone()
    }

    /// What seals for a partition now: for the values of one commit, not to be kept.
    pub(crate) fn sealer(&self, partition: &PartitionId) -> PartitionCipher {
        let keys = self.0.keys();
        keys.active(self.0.now()).sealing.of_partition(partition)
    }

    /// What opens values of a partition now: those of one load, not to be kept.
    pub(crate) fn opener<'a>(&self, partition: &'a PartitionId) -> PartitionOpener<'a> {
        PartitionOpener {
            keys: self.0.keys(),
            partition,
            latest: None,
        }
    }

    /// Whether a key is in the ring, or was revoked.
    pub(crate) fn knows(&self, id: KeyId) -> bool {
        self.0.keys().knows(id)
    }
}

/// Opens values of one partition. Most have the same key, which is derived once.
pub(crate) struct PartitionOpener<'a> {
    keys: Arc<Keys>,
    partition: &'a PartitionId,
    latest: Option<PartitionCipher>,
}

impl PartitionOpener<'_> {
    /// The payload of a sealed envelope; the place is in the partition that this is for.
    pub(crate) fn open(
        &mut self,
        place: Place<'_>,
        envelope: &[u8],
    ) -> Result<Wiped<Vec<u8>>, Unopenable> {
        debug_assert_eq!(place.partition, self.partition);
        let id = aead::key_id(envelope).ok_or(Unopenable::Tampered)?;
        let cipher = match self.latest.take() {
            Some(latest) if latest.id == id => latest,
            _ => self.keys.opening(id)?.of_partition(self.partition),
        };
        let payload = cipher.open(place, envelope);
        self.latest = Some(cipher);
        payload.ok_or(Unopenable::Tampered)
    }
}

impl Ring {
    pub(super) fn keys(&self) -> Arc<Keys> {
        let keys = self.keys.read();
        keys.clone()
    }

    pub(super) fn replace(&self, keys: Keys) {
        *self.keys.write() = Arc::new(keys);
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing")
            .field("active", &self.active())
            .field("keys", &self.0.keys().keys.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
