//! What a request needs of an acquisition, and the outcome.

use std::sync::Arc;
use std::time::Duration;

use crate::acquire::{AcquireError, AcquireErrorKind, RefreshReason, TokenSource};
use crate::error::Error;
use crate::key::TokenKey;
use crate::lookup::{CacheLevel, Durability};
use crate::time::Timestamp;
use crate::token::Token;

/// What a request demands of a token.
#[derive(Clone, Debug)]
pub(crate) struct Need {
    pub(crate) key: TokenKey,
    pub(crate) min_remaining: Duration,
    pub(crate) force: bool,
    /// The token must differ from this one.
    pub(crate) replaces: Option<Token>,
    pub(crate) claims: Option<Arc<str>>,
    /// The token is to have what the session may not have been given: a refusal says nothing of the refresh token.
    pub(crate) demanded: bool,
    pub(crate) reason: Option<RefreshReason>,
    /// The token that memory had, which may have expired: L2 does not return expired ones.
    pub(crate) last_known: Option<Token>,
}

impl Need {
    /// Whether this cached token meets the need.
    pub(crate) fn is_met_by(&self, token: &Token, now: Timestamp) -> bool {
        let lasts = token
            .expires_at()
            .is_none_or(|end| now.saturating_add(self.min_remaining) < end);
        lasts && !self.rejects(token)
    }

    /// Whether this is the token that is to be replaced.
    pub(crate) fn rejects(&self, token: &Token) -> bool {
        let replaced = self.replaces.as_ref();
        replaced.is_some_and(|old| old.access_token() == token.access_token())
    }

    /// Whether the token is acquired ahead of time, so that no request waits for it.
    pub(crate) fn is_ahead(&self) -> bool {
        self.reason == Some(RefreshReason::ProactivelyRefreshed)
    }
}

/// The token that a flight has obtained.
#[derive(Clone, Debug)]
pub(crate) struct AcquiredToken {
    pub(crate) token: Token,
    pub(crate) source: TokenSource,
    pub(crate) level: CacheLevel,
    pub(crate) reason: RefreshReason,
    pub(crate) in_http: Duration,
    pub(crate) durability: Option<Durability>,
    pub(crate) exclusive: bool,
}

/// Why a flight has obtained no token.
#[derive(Clone, Debug)]
pub(crate) enum AcquireFailure {
    /// All waiters get this error.
    Failed(Error),
    /// No call was made to its end: another instance has taken the lease over, no request waited any more, or the
    /// runtime of the request whose acquire function it was has ended. A waiter with a function of its own tries again.
    Abandoned,
}

pub(crate) type FlightEnd = Result<AcquiredToken, AcquireFailure>;

impl From<Error> for AcquireFailure {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<AcquireError> for AcquireFailure {
    fn from(error: AcquireError) -> Self {
        Self::Failed(error.into())
    }
}

/// The error for the request whose acquire function an abandoned flight has used up.
pub(crate) fn abandoned() -> Error {
    AcquireError::new(AcquireErrorKind::Failed).into()
}

/// The error if a flight has waited for too long.
pub(crate) fn timed_out() -> AcquireError {
    AcquireError::new(AcquireErrorKind::TimedOut)
}
