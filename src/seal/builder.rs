//! The settings of a `KeyRing` that is kept in a repository.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::erased::{DynProtector, DynRepository};
use super::error::{KeyRingError, KeyRingErrorKind};
use super::protector::KeyProtector;
use super::repository::KeyRepository;
use super::ring::KeyRing;
use super::schedule::Schedule;
use super::synchronise::Vault;
use crate::time::{Clock, setting};

/// Sets up a [`KeyRing`] that is kept in a repository.
#[must_use = "there is no ring until `open`"]
pub struct KeyRingBuilder {
    repository: Arc<dyn DynRepository>,
    protectors: Vec<Arc<dyn DynProtector>>,
    unprotected: bool,
    schedule: Schedule,
    clock: Clock,
}

impl KeyRing {
    /// A ring in the store that holds what it seals (`RedisStore::keys`, `SqlStore::keys`,
    /// `SqliteStore::keys`), for all instances: of any number that start at once, all get the same first
    /// keys. `protector` wraps them: keys that lie in the clear beside what they seal protect nothing.
    ///
    /// # Errors
    /// [`KeyRingError`] when the store cannot be asked, or a key in it cannot be unwrapped.
    pub async fn open_in_store(
        repository: impl KeyRepository,
        protector: impl KeyProtector,
    ) -> Result<Self, KeyRingError> {
        Self::builder(repository).protector(protector).open().await
    }

    /// Sets up a ring that is kept in this repository.
    pub fn builder(repository: impl KeyRepository) -> KeyRingBuilder {
        KeyRingBuilder::new(Arc::new(repository))
    }
}

impl KeyRingBuilder {
    pub(super) fn new(repository: Arc<dyn DynRepository>) -> Self {
        Self {
            repository,
            protectors: Vec::new(),
            unprotected: false,
            schedule: Schedule::default(),
            clock: Clock::system(),
        }
    }

    /// Wraps the keys at rest. The first protector that is set wraps; it and all others unwrap, so
    /// that one kind of protection can be replaced by another. Keys in the clear are refused.
    ///
    /// None by default: the repository then has to keep the keys secret by itself. One that keeps
    /// them beside what they seal, in the same store, cannot, and needs one.
    pub fn protector(mut self, protector: impl KeyProtector) -> Self {
        self.protectors.push(Arc::new(protector));
        self
    }

    /// Leaves the keys in the clear in the store that holds what they seal: whoever reads the store
    /// can open everything in it. For tests, and for a store whose keys are protected otherwise.
    pub fn unprotected(mut self) -> Self {
        self.unprotected = true;
        self
    }

    /// How long a key seals before the next one does; `None` is for ever. Defaults to 90 days, as
    /// usual for keys that rotate by themselves.
    pub fn rotate_every(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.schedule.rotate_every = interval.into();
        self
    }

    /// How long a key is known before it seals. Defaults to 24 hours: 288 refreshes, so that a
    /// repository may be away for a day, and clocks may differ by hours, before anybody meets a key
    /// that it does not know. At least twice the refresh interval, and at most half the rotation.
    pub fn activation_delay(mut self, delay: Duration) -> Self {
        self.schedule.activation_delay = delay;
        self
    }

    /// How often each instance reads the repository. Defaults to 5 minutes, up to a fifth less at
    /// random: revocations take that long.
    pub fn refresh_every(mut self, interval: Duration) -> Self {
        self.schedule.refresh_every = interval;
        self
    }

    /// The clock of the schedule. Defaults to the system's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The ring. Its first keys are made if the repository has none.
    ///
    /// # Errors
    /// [`KeyRingError`] for a schedule that contradicts itself, when the repository cannot be read
    /// or written, or when its keys cannot be unwrapped; [`KeyRingErrorKind::NoProtector`] for keys
    /// in the clear beside what they seal, unless that is [meant](Self::unprotected).
    pub async fn open(self) -> Result<KeyRing, KeyRingError> {
        let in_the_clear = self.protectors.is_empty() && !self.unprotected;
        if in_the_clear && self.repository.is_beside_data() {
            return Err(KeyRingErrorKind::NoProtector.into());
        }
        let vault = Vault {
            repository: self.repository,
            protectors: self.protectors,
            schedule: Schedule {
                rotate_every: self.schedule.rotate_every.map(setting),
                activation_delay: setting(self.schedule.activation_delay),
                refresh_every: setting(self.schedule.refresh_every),
            },
        };
        KeyRing::open(vault, self.clock).await
    }
}

impl fmt::Debug for KeyRingBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protectors: Vec<_> = self.protectors.iter().map(|p| p.id()).collect();
        f.debug_struct("KeyRingBuilder")
            .field("protectors", &protectors)
            .field("schedule", &self.schedule)
            .finish_non_exhaustive()
    }
}
