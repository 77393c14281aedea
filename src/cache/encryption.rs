//! The settings of encryption.

use tokio::runtime::Handle;

#[cfg(feature = "cookie")]
use crate::cache::TokenCache;
use crate::engine::l2::sealing::Sealing;
use crate::error::ConfigError;
use crate::seal::KeyRing;
use crate::time::{Clock, Timestamp};

/// The settings of encryption in the builder.
#[derive(Default)]
pub(crate) struct Encryption {
    pub(crate) ring: Option<KeyRing>,
    pub(crate) required: bool,
    pub(crate) from: Option<Timestamp>,
    pub(crate) plaintext_until: Option<Timestamp>,
}

impl Encryption {
    pub(crate) fn none() -> Self {
        Self::default()
    }

    pub(crate) fn is_on(&self) -> bool {
        self.ring.is_some()
    }
}

#[cfg(feature = "cookie")]
impl TokenCache {
    /// Keeps a ring up to date that seals something other than L2.
    pub(crate) fn keep_fresh(&self, ring: &KeyRing) {
        ring.start(&self.0.runtime);
    }
}

impl Encryption {
    /// Without a ring no other setting of encryption is allowed.
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

    /// The settings as text, to compare two caches of one name. The ring is represented by a name that its
    /// keys give.
    pub(crate) fn fingerprint(&self) -> String {
        let ring = self.ring.as_ref();
        let ring = ring.map(|ring| ring.names().entry("fingerprint"));
        format!("{ring:?} {:?} {:?}", self.from, self.plaintext_until)
    }

    /// The engine's part of the settings. Also starts the task that keeps the ring up to date.
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
