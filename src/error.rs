//! What can go wrong, split by what a caller does about it.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use crate::acquire::{AcquireError, AcquireErrorKind, LATER, SIGN_IN};
use crate::challenge::{Challenge, ChallengeKind, SESSION};
use crate::key::KeyError;
use crate::time::Timestamp;

type Source = Arc<dyn StdError + Send + Sync>;

/// Why an operation on [`Tokens`](crate::Tokens) or [`TokenCache`](crate::TokenCache) failed.
///
/// No message holds a token, a partition key or a token name.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The request carries no partition key, so it has no tokens: ask the user to sign in.
    NoPartition,
    /// The L2 store could not be asked or did not answer in time, and the failure policy is
    /// [`Strict`](crate::FailurePolicy::Strict). Nothing is known about the tokens.
    Unavailable(StoreError),
    /// The partition was signed out after this handle first used it, or has ended: the change was
    /// dropped, or there is no user to tell of. So is one of a handle that is older than twelve hours and has changed nothing since,
    /// where L2 no longer has what it has seen: nothing would tell of a sign-out any more.
    SignedOut,
    /// A bound is reached: on [pending changes](crate::Builder::max_pending_changes) that L2 does not
    /// take, or on [acquisitions](crate::Acquisitions::max) that wait. Nothing was changed, and
    /// the provider was not asked: try again later. (Whoever had a place in the queue and waited in
    /// vain gets [`TimedOut`](crate::AcquireErrorKind::TimedOut).)
    Overloaded,
    /// A token key is empty, too long or has control characters.
    InvalidKey(KeyError),
    /// A token set exceeds the size limit (1 MiB), a session value its own (64 KiB), the partition would exceed its own (8 MiB, with 256 bytes
    /// for each entry), or the session that lives in cookies would exceed theirs: nothing was changed, and no
    /// provider was asked. A partition is read as a whole: use one for each user, or for each tenant. Keep fewer or smaller tokens in cookies, raise the limit of the
    /// `CookieStore` if every proxy on the way allows it, or use a store on the server.
    TooLarge {
        /// Size of the rejected token set or value, or of what the partition or the cookies would hold, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The response head is on its way, and should have carried the change: a session that lives in cookies, or
    /// the id of a new session. Nothing was changed, but a sign-out in cookies counts on this instance, and the
    /// session that a sign-in was to replace may have ended.
    ResponseSent,
    /// The session has no id that could be given another here: nothing was changed.
    /// [`sign_in`](crate::Tokens::sign_in) needs a layer over a [`session::Cookie`](crate::session::Cookie) or a
    /// `CookieStore`, and [`move_to`](crate::Tokens::move_to) cannot move what lives in cookies.
    NoSessionId,
    /// The operating system has no random numbers for a session id: nothing was changed.
    Randomness,
    /// The session lives in cookies, which can be copied and sent again, so that nothing in it can be
    /// [taken](crate::Tokens::take) once only: nothing was changed. Read the [value](crate::Tokens::value), and give it a
    /// short lifetime; or keep sessions in a store on the server.
    InCookies,
    /// A [session value](crate::Tokens::put) cannot be written as JSON, or is not of the type that it is read as.
    InvalidValue,
    /// [`TokenCache::shutdown`](crate::TokenCache::shutdown) has run: nothing was changed.
    ShutDown,
    /// No token could be acquired.
    Acquire(AcquireError),
    /// An API wants more than the session has, and only the user can give it; or the provider wants it before it gives a
    /// token ([`ProviderError::claims`](crate::ProviderError::claims)). Begin a login for this challenge, as
    /// `AuthorizationCode::step_up` (feature `grants`) does. The token is kept: other requests may be content with it.
    StepUp(Challenge),
}

impl Error {
    /// The HTTP status that says what a client can do about this error.
    pub fn status(&self) -> http::StatusCode {
        match self {
            Self::NoPartition | Self::SignedOut => http::StatusCode::UNAUTHORIZED,
            Self::Unavailable(_) | Self::Overloaded | Self::ShutDown => {
                http::StatusCode::SERVICE_UNAVAILABLE
            }
            Self::InvalidKey(_) => http::StatusCode::BAD_REQUEST,
            Self::TooLarge { .. } => http::StatusCode::PAYLOAD_TOO_LARGE,
            Self::ResponseSent
            | Self::NoSessionId
            | Self::Randomness
            | Self::InCookies
            | Self::InvalidValue => http::StatusCode::INTERNAL_SERVER_ERROR,
            Self::Acquire(error) => match error.kind() {
                AcquireErrorKind::ReauthenticationRequired => http::StatusCode::UNAUTHORIZED,
                AcquireErrorKind::RetryLater => http::StatusCode::SERVICE_UNAVAILABLE,
                AcquireErrorKind::TimedOut => http::StatusCode::GATEWAY_TIMEOUT,
                _ => http::StatusCode::BAD_GATEWAY,
            },
            // RFC 6750 §3.1, RFC 9470 §3.
            Self::StepUp(challenge) => match challenge.kind() {
                ChallengeKind::Scope => http::StatusCode::FORBIDDEN,
                _ => http::StatusCode::UNAUTHORIZED,
            },
        }
    }

    /// What the response asks for: its header `WWW-Authenticate`, which a 401 must have (RFC 9110 §15.5.2). Of
    /// [`StepUp`](Self::StepUp) it is the API's challenge, so that a script in the browser can begin the login. Else it is
    /// `Session`: a scheme that no browser knows, for one that it knows can open a dialog. Over a layer whose requests
    /// [bring a bearer token](crate::KeyExtractor::takes_bearer) the layer puts `Bearer` in its place.
    ///
    /// `None` where the status is no 401, and no 403 of an API.
    pub fn www_authenticate(&self) -> Option<HeaderValue> {
        match self {
            Self::StepUp(challenge) => Some(challenge.to_header()),
            _ => session_challenge(self.status()),
        }
    }

    /// After which time the same request may succeed, in whole seconds from 1 on: the header `Retry-After` (RFC 9110
    /// §10.2.3) of the response. What a provider has asked for, or the pause until it is asked again; a second where the
    /// store or this process is busy. `None` where waiting does not help: the user has to sign in, or the request is wrong.
    pub fn retry_after(&self) -> Option<Duration> {
        let second = Duration::from_secs(1);
        match self {
            Self::Unavailable(_) | Self::Overloaded | Self::ShutDown => Some(second),
            Self::Acquire(error) if error.kind() != AcquireErrorKind::ReauthenticationRequired => {
                Some(whole_seconds(error.retry_at()?.since(Timestamp::now())))
            }
            _ => None,
        }
    }

    /// A word for logs and metrics.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::NoPartition => "no_partition",
            Self::Unavailable(_) => "unavailable",
            Self::SignedOut => "signed_out",
            Self::Overloaded => "overloaded",
            Self::InvalidKey(_) => "invalid_key",
            Self::TooLarge { .. } => "too_large",
            Self::ResponseSent => "response_sent",
            Self::NoSessionId => "no_session_id",
            Self::Randomness => "randomness",
            Self::InCookies => "in_cookies",
            Self::InvalidValue => "invalid_value",
            Self::ShutDown => "shut_down",
            Self::Acquire(error) => error.kind().as_str(),
            Self::StepUp(_) => "step_up",
        }
    }

    /// L2 could not be asked, whatever the reason was.
    pub(crate) fn unavailable() -> Self {
        Self::Unavailable(StoreError::new(StoreErrorKind::Unreachable))
    }
}

/// A pause as `Retry-After` says it. Rounded up: before it is over the answer would be the same.
pub(crate) fn whole_seconds(pause: Duration) -> Duration {
    let begun = u64::from(pause.subsec_nanos() > 0);
    Duration::from_secs(pause.as_secs().saturating_add(begun).max(1))
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPartition => f.write_str("sign in first: the request has no partition key"),
            Self::Unavailable(_) => f.write_str("the token store is unavailable"),
            Self::SignedOut => f.write_str("the partition was signed out"),
            Self::Overloaded => f.write_str("too many changes or acquisitions wait"),
            Self::InvalidKey(_) => f.write_str("the token key is not valid"),
            Self::TooLarge { size, limit } => {
                write!(f, "the tokens take {size} bytes, the limit is {limit}")
            }
            Self::ResponseSent => f.write_str("the response is sent: its cookies cannot change"),
            Self::NoSessionId => {
                f.write_str("no session id can be issued here: use session::Cookie")
            }
            Self::Randomness => f.write_str("the system has no random numbers"),
            Self::InCookies => f.write_str("nothing can be taken from a session in cookies"),
            Self::InvalidValue => f.write_str("the session value is not of this type"),
            Self::ShutDown => f.write_str("the token cache is shut down"),
            Self::Acquire(_) => f.write_str("acquiring a token failed"),
            Self::StepUp(_) => f.write_str("the user has to sign in for more"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Unavailable(source) => Some(source),
            Self::InvalidKey(source) => Some(source),
            Self::Acquire(source) => Some(source),
            // An acquire function may need a token of another partition, and wrap its error.
            Self::NoPartition | Self::SignedOut | Self::StepUp(_) => Some(&SIGN_IN),
            Self::Overloaded | Self::ShutDown => Some(&LATER),
            Self::TooLarge { .. }
            | Self::ResponseSent
            | Self::NoSessionId
            | Self::Randomness
            | Self::InCookies
            | Self::InvalidValue => None,
        }
    }
}

/// What a 401 asks for where a session has to be signed in.
pub(crate) fn session_challenge(status: http::StatusCode) -> Option<HeaderValue> {
    (status == http::StatusCode::UNAUTHORIZED).then_some(HeaderValue::from_static(SESSION))
}

impl From<AcquireError> for Error {
    fn from(error: AcquireError) -> Self {
        Self::Acquire(error)
    }
}

impl From<KeyError> for Error {
    fn from(error: KeyError) -> Self {
        Self::InvalidKey(error)
    }
}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

/// A failure of the L2 store. Cloning shares the source.
#[derive(Clone, Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    source: Option<Source>,
}

/// What kind of failure a [`StoreError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// No connection, or the connection broke.
    Unreachable,
    /// No answer within the timeout. A write may have been applied.
    Timeout,
    /// The store answered with an error (read-only replica, out of memory, a full disk, loading, a right that
    /// is missing, …). It opens no circuit breaker.
    Refused,
    /// The partition would become larger than the store takes, and nothing was changed. It opens no circuit
    /// breaker. Changes are kept, and written once later ones have made the partition smaller.
    TooLarge,
    /// The circuit breaker is open: the store was not asked.
    CircuitOpen,
}

impl StoreErrorKind {
    /// The value of `outcome` in metrics and spans.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::TooLarge => "too_large",
            Self::CircuitOpen => "circuit_open",
        }
    }
}

impl StoreError {
    /// An error of this kind without a source.
    pub fn new(kind: StoreErrorKind) -> Self {
        Self { kind, source: None }
    }

    /// An error of this kind that keeps what caused it.
    ///
    /// The source's message must hold no stored value, key or credential.
    pub fn with_source(
        kind: StoreErrorKind,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            source: Some(source.into().into()),
        }
    }

    /// Whether the store may have done what it was asked for, and its answer was lost.
    pub(crate) fn may_be_applied(&self) -> bool {
        matches!(
            self.kind,
            StoreErrorKind::Timeout | StoreErrorKind::Unreachable
        )
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            StoreErrorKind::Unreachable => "the store cannot be reached",
            StoreErrorKind::Timeout => "the store did not answer in time",
            StoreErrorKind::Refused => "the store refused the operation",
            StoreErrorKind::TooLarge => "the partition is too large for the store",
            StoreErrorKind::CircuitOpen => "the store is not asked while it recovers",
        })
    }
}

impl StdError for StoreError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// An option that [`build`](crate::Builder::build) or a store's `connect` cannot accept.
#[derive(Clone, Debug)]
pub struct ConfigError {
    option: &'static str,
    reason: Cow<'static, str>,
    source: Option<Source>,
}

impl ConfigError {
    /// An error that names the option and says what it must be.
    pub fn new(option: &'static str, reason: &'static str) -> Self {
        Self {
            option,
            reason: Cow::Borrowed(reason),
            source: None,
        }
    }

    /// An error whose reason holds what was given. It must be fit to be shown.
    #[cfg(any(feature = "redis", feature = "postgres", feature = "mysql"))]
    pub(crate) fn because(option: &'static str, reason: String) -> Self {
        Self {
            reason: Cow::Owned(reason),
            ..Self::new(option, "")
        }
    }

    /// The same with the error that caused it.
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into().into());
        self
    }

    /// The option at fault, as it is called in code.
    pub fn option(&self) -> &'static str {
        self.option
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid option `{}`: {}", self.option, self.reason)
    }
}

impl StdError for ConfigError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
