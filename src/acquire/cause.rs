//! What a failure means to the cache, found whatever wraps it.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{AcquireErrorKind, BoxError};

/// What a failed acquisition means to the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meaning {
    pub(crate) kind: AcquireErrorKind,
    /// How long the provider asked to be left alone.
    pub(crate) retry_after: Option<Duration>,
    /// The provider has answered with an error code that says nothing about time: what was sent to it is not
    /// spent.
    pub(crate) is_refusal: bool,
    /// The user has to prove more, or to consent; the refresh token is not what was refused.
    pub(crate) asks_for_proof: bool,
    /// No provider was asked, so that none is to be left alone.
    pub(crate) is_unasked: bool,
}

impl Meaning {
    /// A failure of this kind, and nothing more is known.
    pub(crate) const fn of(kind: AcquireErrorKind) -> Self {
        Self {
            kind,
            retry_after: None,
            is_refusal: false,
            asks_for_proof: false,
            is_unasked: false,
        }
    }
}

/// The first source of the errors of this crate that have a meaning.
///
/// Some wrappers hide the error that they wrap, and show only its sources: `anyhow` without context,
/// `#[error(transparent)]` of `thiserror`, `std::io::Error`. So the meaning is a source.
///
/// `Debug` does not show the source, which may quote an answer.
pub(crate) struct Cause {
    pub(crate) meaning: Meaning,
    pub(crate) source: Option<BoxError>,
    /// What the provider demands of the user's next login.
    pub(crate) claims: Option<Arc<str>>,
}

/// The session is over. No provider has said so, and none is to be left alone.
pub(crate) static SIGN_IN: Cause = Cause::of(Meaning {
    retry_after: Some(Duration::ZERO),
    ..Meaning::of(AcquireErrorKind::ReauthenticationRequired)
});
/// This process or its store is busy.
pub(crate) static LATER: Cause = Cause::of(Meaning::of(AcquireErrorKind::RetryLater));
/// The acquire function has asked no provider.
#[cfg(feature = "grants")]
pub(crate) static UNASKED: Cause = Cause::of(Meaning {
    is_unasked: true,
    ..Meaning::of(AcquireErrorKind::Failed)
});
static TIMED_OUT: Cause = Cause::of(Meaning::of(AcquireErrorKind::TimedOut));
static PANICKED: Cause = Cause::of(Meaning::of(AcquireErrorKind::Panicked));

impl Cause {
    const fn of(meaning: Meaning) -> Self {
        Self {
            meaning,
            source: None,
            claims: None,
        }
    }

    /// The cause of an error that has no source; none for a failure that means nothing more.
    pub(crate) fn of_kind(kind: AcquireErrorKind) -> Option<&'static Self> {
        match kind {
            AcquireErrorKind::ReauthenticationRequired => Some(&SIGN_IN),
            AcquireErrorKind::RetryLater => Some(&LATER),
            AcquireErrorKind::TimedOut => Some(&TIMED_OUT),
            AcquireErrorKind::Panicked => Some(&PANICKED),
            AcquireErrorKind::Failed => None,
        }
    }
}

impl From<Meaning> for Cause {
    fn from(meaning: Meaning) -> Self {
        Self::of(meaning)
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cause")
            .field("meaning", &self.meaning)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.meaning.kind.as_str())
    }
}

impl StdError for Cause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
