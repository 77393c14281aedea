//! Why a token could not be acquired.

use std::error::Error as StdError;
use std::fmt;
use std::iter::successors;
use std::sync::Arc;

use super::cause::Cause;
use super::{AcquireErrorKind, BoxError};
use crate::challenge::Challenge;
use crate::time::Timestamp;

/// Why a token could not be acquired. Shared by everyone who waited for it.
///
/// The acquire function's own error is its [source](StdError::source). What that says is the
/// application's, and may well be a body with tokens in it: neither `Debug` nor `Display` nor any
/// log line of this crate shows it. Who logs the chain of sources does.
#[derive(Clone)]
pub struct AcquireError {
    kind: AcquireErrorKind,
    retry_at: Option<Timestamp>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl AcquireError {
    pub(crate) fn new(kind: AcquireErrorKind) -> Self {
        Self {
            kind,
            retry_at: None,
            source: None,
        }
    }

    pub(crate) fn with_retry_at(mut self, retry_at: Option<Timestamp>) -> Self {
        self.retry_at = retry_at;
        self
    }

    pub(crate) fn with_source(mut self, source: BoxError) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What the provider demands of the user's next login, if it has said so.
    pub(crate) fn challenge(&self) -> Option<Challenge> {
        if self.kind != AcquireErrorKind::ReauthenticationRequired {
            return None;
        }
        demand_in(self.source()?)
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> AcquireErrorKind {
        self.kind
    }

    /// When the provider will be asked again. Until then this error is the answer.
    pub fn retry_at(&self) -> Option<Timestamp> {
        self.retry_at
    }

    /// The acquire function's own error, when it was of this type. `None` also when another
    /// instance asked the provider: errors do not travel, only their kind does.
    pub fn downcast_ref<E: StdError + 'static>(&self) -> Option<&E> {
        self.source.as_deref()?.downcast_ref()
    }
}

/// The claims that a provider demands of the user's next login, if one of these errors says so.
pub(crate) fn demand_in(error: &(dyn StdError + 'static)) -> Option<Challenge> {
    let mut chain = successors(Some(error), |&error| error.source());
    let claims = chain.find_map(|error| error.downcast_ref::<Cause>()?.claims.clone());
    Challenge::of_claims(claims?)
}

impl fmt::Debug for AcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireError")
            .field("kind", &self.kind)
            .field("retry_at", &self.retry_at)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for AcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            AcquireErrorKind::ReauthenticationRequired => "the user has to sign in again",
            AcquireErrorKind::RetryLater => "the provider asked to be called later",
            AcquireErrorKind::Failed => "no token could be acquired",
            AcquireErrorKind::Panicked => "acquiring a token panicked",
            AcquireErrorKind::TimedOut => "acquiring a token took too long",
        })
    }
}

impl StdError for AcquireError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self.source.as_deref() {
            Some(source) => Some(source as _),
            None => Cause::of_kind(self.kind).map(|cause| cause as _),
        }
    }
}
