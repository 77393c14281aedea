//! The settings of encryption.

use tokio::runtime::Handle;

#[cfg(feature = "cookie")]
use crate::cache::TokenCache;
use crate::cache::builder::Builder;
use crate::engine::l2::entries::Sealing;
use crate::error::ConfigError;
use crate::seal::KeyRing;
use crate::time::{Clock, Timestamp};

/// What the builder was told.
#[derive(Default)]
pub(crate) struct Encryption {
    ring: Option<KeyRing>,
    required: bool,
    from: Option<Timestamp>,
    plaintext_until: Option<Timestamp>,
}

impl Encryption {
    pub(crate) fn is_on(&self) -> bool {
        self.ring.is_some()
    }
}

impl Builder {
    /// Seals everything that goes to L2 with the keys of this ring, and takes from L2 only what
    /// opens with them: see [`seal`](crate::seal). Off by default: keys have to come from somewhere.
    ///
    /// The ring is kept up to date for as long as it lives.
    pub fn key_ring(mut self, ring: KeyRing) -> Self {
        self.encryption.ring = Some(ring);
        self
    }

    /// [`build`](Self::build) fails without a [`key_ring`](Self::key_ring): for code where the ring
    /// depends on configuration. Off by default.
    pub fn require_encryption(mut self) -> Self {
        self.encryption.required = true;
        self
    }

    /// Until then the [`key_ring`](Self::key_ring) is not used, and everything is as without it. For
    /// a fleet in which instances are replaced one by one: an instance that has no ring yet would
    /// not find what another has sealed. Choose a time when all have it, together with
    /// [`accept_plaintext_until`](Self::accept_plaintext_until), and a quiet one: a token that is
    /// being refreshed at that moment may be lost. At once by default.
    pub fn seal_from(mut self, time: Timestamp) -> Self {
        self.encryption.from = Some(time);
        self
    }

    /// Until then, entries that are not sealed are still taken, counted as
    /// [`Stats::accepted_plaintext`](crate::Stats::accepted_plaintext), and sealed: for a store that
    /// was in use before there was a [`key_ring`](Self::key_ring). Until then too, a partition that
    /// is not found costs a second read. Choose a time when every partition will have been used or
    /// have ended; whoever can write to L2 can plant tokens until then. Never by default.
    pub fn accept_plaintext_until(mut self, time: Timestamp) -> Self {
        self.encryption.plaintext_until = Some(time);
        self
    }
}

#[cfg(feature = "cookie")]
impl TokenCache {
    /// Keeps a ring up to date that seals something else.
    pub(crate) fn keep_fresh(&self, ring: &KeyRing) {
        ring.start(&self.0.runtime);
    }
}

impl Encryption {
    /// Without a ring nothing can be asked of it.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let needs_ring = [
            ("require_encryption", self.required),
            ("accept_plaintext_until", self.plaintext_until.is_some()),
            ("seal_from", self.from.is_some()),
        ];
        let mut asked = needs_ring.into_iter().filter(|(_, asked)| *asked);
        match (&self.ring, asked.next()) {
            (None, Some((option, _))) => Err(ConfigError::new(option, "needs a key ring")),
            _ => Ok(()),
        }
    }

    /// What is to be the same where the cache is: the ring by a name that its keys give.
    pub(crate) fn fingerprint(&self) -> String {
        let ring = self.ring.as_ref();
        let ring = ring.map(|ring| ring.names().entry("fingerprint"));
        format!("{ring:?} {:?} {:?}", self.from, self.plaintext_until)
    }

    /// What the engine needs of it, with the ring kept up to date.
    pub(crate) fn start(self, clock: &Clock, runtime: &Handle) -> Option<Sealing> {
        let ring = self.ring?;
        ring.start(runtime);
        Some(Sealing {
            ring,
            from: self.from,
            plaintext_until: self.plaintext_until,
            clock: clock.clone(),
        })
    }
}
