//! `KeyRingError`: why there are no keys.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::error::StoreError;

/// Why a key ring cannot be opened or brought up to date. No message holds a key.
#[derive(Clone, Debug)]
pub struct KeyRingError {
    kind: KeyRingErrorKind,
    /// The environment variable that it is about.
    variable: Option<Arc<str>>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// What kind of failure a [`KeyRingError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyRingErrorKind {
    /// The environment variable is not set, or has no keys in it.
    Missing,
    /// A key is not 32 bytes in base64; a certificate or private key cannot be read.
    Malformed,
    /// The folder or a file in it belongs to another user, is open to others, or is a symbolic
    /// link. The source says which, and what to do.
    Permissions,
    /// The repository could not be read or written.
    Unreachable,
    /// A record in the repository is damaged, or was changed by somebody without the key.
    Damaged,
    /// A key could not be wrapped or unwrapped: another certificate, passphrase or key service is
    /// needed, or the service failed.
    Protector,
    /// The repository holds a key that is not protected, where a protector is set.
    Unprotected,
    /// The keys would lie in the clear beside what they seal. Set a
    /// [protector](super::KeyRingBuilder::protector), or say that this is meant:
    /// [`unprotected`](super::KeyRingBuilder::unprotected).
    NoProtector,
    /// More records than any ring has.
    TooLarge,
    /// The settings of the schedule contradict each other.
    Schedule,
    /// The operating system gives no random numbers.
    Randomness,
    /// This ring's keys are given by the application: it cannot add or revoke any.
    Fixed,
}

impl KeyRingErrorKind {
    /// The value of `key_ring` in a [health report](crate::Health).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Permissions => "permissions",
            Self::Unreachable => "unreachable",
            Self::Damaged => "damaged",
            Self::Protector => "protector",
            Self::Unprotected => "unprotected",
            Self::NoProtector => "no_protector",
            Self::TooLarge => "too_large",
            Self::Schedule => "schedule",
            Self::Randomness => "randomness",
            Self::Fixed => "fixed",
        }
    }

    pub(crate) fn because(
        self,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> KeyRingError {
        KeyRingError::with_source(self, source)
    }
}

impl From<KeyRingErrorKind> for KeyRingError {
    fn from(kind: KeyRingErrorKind) -> Self {
        Self {
            kind,
            variable: None,
            source: None,
        }
    }
}

impl KeyRingError {
    /// An error of this kind without a source.
    pub fn new(kind: KeyRingErrorKind) -> Self {
        kind.into()
    }

    /// An error of this kind that keeps what caused it. The source's message must hold no key.
    pub fn with_source(
        kind: KeyRingErrorKind,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        let source = Some(source.into().into());
        Self {
            source,
            ..kind.into()
        }
    }

    /// The same, about this environment variable.
    pub(super) fn of_variable(self, name: &str) -> Self {
        let variable = Some(name.into());
        Self { variable, ..self }
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> KeyRingErrorKind {
        self.kind
    }
}

impl fmt::Display for KeyRingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(variable) = &self.variable {
            write!(f, "{variable}: ")?;
        }
        f.write_str(match self.kind {
            KeyRingErrorKind::Missing => "the environment variable holds no keys",
            KeyRingErrorKind::Malformed => "a key is malformed",
            KeyRingErrorKind::Permissions => {
                "the key folder or a file in it is not for this process's user alone"
            }
            KeyRingErrorKind::Unreachable => "the key repository failed",
            KeyRingErrorKind::Damaged => "a record in the key repository is damaged",
            KeyRingErrorKind::Protector => "a key cannot be wrapped or unwrapped",
            KeyRingErrorKind::Unprotected => "a key in the repository is not protected",
            KeyRingErrorKind::NoProtector => {
                "keys beside what they seal need a protector, or the word `unprotected()`"
            }
            KeyRingErrorKind::TooLarge => "the key repository holds more than a key ring",
            KeyRingErrorKind::Schedule => {
                "the activation delay must be at least twice the refresh interval, and the rotation \
                 at least twice the delay"
            }
            KeyRingErrorKind::Randomness => "the system gives no random numbers",
            KeyRingErrorKind::Fixed => "the keys of this ring are given by the application",
        })
    }
}

impl StdError for KeyRingError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<StoreError> for KeyRingError {
    fn from(error: StoreError) -> Self {
        KeyRingErrorKind::Unreachable.because(error)
    }
}
