//! What passes between the cache and the code that asks a provider for tokens.

mod classify;

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::classify::classify;
use crate::key::TokenKey;
use crate::lookup::{CacheLevel, Durability, Lookup};
use crate::secret::Secret;
use crate::time::Timestamp;
use crate::token::{Token, TokenSet};

/// An error of the caller's own, as an acquisition returns it.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// What [`Acquire::acquire`] returns.
pub type AcquireFuture = Pin<Box<dyn Future<Output = Result<TokenSet, BoxError>> + Send>>;

/// Asks a provider for tokens, again and again: one of the ready-made `grant`s, or a closure.
///
/// ```
/// use tower_token_cache::{Acquire, BoxError, Prior, Token, TokenSet};
///
/// fn source() -> impl Acquire {
///     async |prior: Prior| -> Result<TokenSet, BoxError> {
///         let spent = prior.refresh_token().ok_or("sign in first")?;
///         // … redeem it …
///         # let _ = spent;
///         Ok(Token::new("new").into())
///     }
/// }
/// # let _ = source();
/// ```
pub trait Acquire: Send + Sync + 'static {
    /// Asks for the tokens of `prior.key()`. Runs while no other instance does the same, to its
    /// end even when everyone who waited for it has gone.
    fn acquire(&self, prior: Prior) -> AcquireFuture;
}

impl<F, Fut, E> Acquire for F
where
    F: Fn(Prior) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<TokenSet, E>> + Send + 'static,
    E: Into<BoxError>,
{
    fn acquire(&self, prior: Prior) -> AcquireFuture {
        let answer = self(prior);
        Box::pin(async { answer.await.map_err(Into::into) })
    }
}

/// What is known when tokens have to be acquired, read after every other instance was kept from
/// doing the same.
#[derive(Clone, Debug)]
pub struct Prior {
    pub(crate) key: TokenKey,
    pub(crate) reason: RefreshReason,
    pub(crate) token: Option<Token>,
    pub(crate) refresh_token: Lookup<Secret>,
    pub(crate) id_token: Lookup<Secret>,
    pub(crate) claims: Option<Arc<str>>,
}

impl Prior {
    /// Which token is asked for. [`TokenKey::scopes`] says with which scopes.
    pub fn key(&self) -> &TokenKey {
        &self.key
    }

    /// Why.
    pub fn reason(&self) -> RefreshReason {
        self.reason
    }

    /// The token to be replaced, expired or not, if this process still knows it.
    pub fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// The partition's refresh token.
    pub fn refresh_token(&self) -> Option<&Secret> {
        hit(&self.refresh_token)
    }

    /// The partition's id token.
    pub fn id_token(&self) -> Option<&Secret> {
        hit(&self.id_token)
    }

    /// Whether the refresh token is known, or known to be absent. `false` when L2 could not be
    /// asked: a user who seems to have none may have one.
    pub fn is_known(&self) -> bool {
        !matches!(self.refresh_token, Lookup::Unavailable)
    }

    /// The claims that the new token has to have (OpenID Connect Core §5.5), as
    /// [`Acquisition::claims`](crate::Acquisition::claims) got them.
    pub fn claims(&self) -> Option<&str> {
        self.claims.as_deref()
    }
}

fn hit<T>(lookup: &Lookup<T>) -> Option<&T> {
    match lookup {
        Lookup::Hit(value) => Some(value),
        _ => None,
    }
}

/// Why a token was, or is to be, asked of the provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefreshReason {
    /// It was not: the cache had it.
    #[default]
    NotApplicable,
    /// The caller demanded a new one, needs other claims, or had the old one rejected.
    ForceRefreshOrClaims,
    /// There was none.
    NoCachedAccessToken,
    /// The one there was has expired, or has less left than was asked for.
    Expired,
    /// The one there is will expire soon; it is served while the new one is asked for.
    ProactivelyRefreshed,
}

impl RefreshReason {
    /// The value of `cache_refresh_reason` in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotApplicable => "not_applicable",
            Self::ForceRefreshOrClaims => "force_refresh_or_claims",
            Self::NoCachedAccessToken => "no_cached_access_token",
            Self::Expired => "expired",
            Self::ProactivelyRefreshed => "proactively_refreshed",
        }
    }
}

/// Where a token came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TokenSource {
    /// L1 or L2.
    #[default]
    Cache,
    /// The provider was asked, by this process, for this call or for one that ran meanwhile.
    IdentityProvider,
}

impl TokenSource {
    /// The value of `token_source` in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::IdentityProvider => "identity_provider",
        }
    }
}

/// A token and how it was come by.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Acquired {
    /// The token. It has not expired.
    pub token: Token,
    /// How it was come by.
    pub metadata: Metadata,
}

/// How the answer of a read or an acquisition was come by.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Metadata {
    /// How long the call took.
    pub duration_total: Duration,
    /// The part of it spent in the cache: memory, L2, and waiting for other instances.
    pub duration_in_cache: Duration,
    /// The part of it spent in the acquire function.
    pub duration_in_http: Duration,
    /// Who gave the token.
    pub token_source: TokenSource,
    /// The level that answered; [`CacheLevel::None`] when the provider did.
    pub cache_level: CacheLevel,
    /// Why the provider was asked.
    pub refresh_reason: RefreshReason,
    /// When the token expires.
    pub expires_at: Option<Timestamp>,
    /// When a new token will be asked for in the background; `None` is never.
    pub refresh_at: Option<Timestamp>,
    /// Whether L2 has the token.
    pub durability: Option<Durability>,
    /// Whether L2 kept other instances from asking the provider at the same time. `false` when it
    /// could not be asked: then only this process was kept from it.
    pub exclusive: bool,
}

/// Why a token could not be acquired. Shared by everyone who waited for it.
#[derive(Clone, Debug)]
pub struct AcquireError {
    kind: AcquireErrorKind,
    retry_at: Option<Timestamp>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// What a caller can do about an [`AcquireError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AcquireErrorKind {
    /// The refresh token is spent, revoked or missing (`invalid_grant`): the user has to sign in
    /// again.
    ReauthenticationRequired,
    /// The provider asked to be left alone for a while (429, `Retry-After`).
    RetryLater,
    /// The provider could not be asked, or answered with another error.
    Failed,
    /// The acquire function panicked.
    Panicked,
    /// The acquire function took longer than [`acquire_timeout`](crate::Builder::acquire_timeout).
    TimedOut,
}

impl AcquireErrorKind {
    /// A word for logs and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::ReauthenticationRequired => "reauthentication_required",
            Self::RetryLater => "retry_later",
            Self::Failed => "failed",
            Self::Panicked => "panicked",
            Self::TimedOut => "timed_out",
        }
    }

    /// The kind of this word; [`Failed`](Self::Failed) for one from a newer release.
    pub(crate) fn from_name(name: &str) -> Self {
        let kinds = [
            Self::ReauthenticationRequired,
            Self::RetryLater,
            Self::Panicked,
            Self::TimedOut,
        ];
        let known = kinds.into_iter().find(|kind| kind.as_str() == name);
        known.unwrap_or(Self::Failed)
    }
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
        self.source.as_deref().map(|source| source as _)
    }
}

/// What a provider answered instead of tokens, in terms that the cache understands.
///
/// An acquire function that returns it, or an error of its own that has it as a
/// [source](StdError::source), is told apart: a refused grant is remembered until the user signs
/// in again, and a provider that asks for time gets it. With feature `oauth2` the errors of the
/// `oauth2` crate are understood as they come from its `reqwest` client; those of its other clients
/// and of `openidconnect` convert into this type by `From`. Anything else counts as a failure that
/// may pass.
#[derive(Debug)]
pub struct ProviderError {
    kind: AcquireErrorKind,
    code: Box<str>,
    retry_after: Option<Duration>,
    source: Option<BoxError>,
}

impl ProviderError {
    /// An error code of RFC 6749 §5.2, OpenID Connect Core §3.1.2.6 or the provider's own.
    /// `invalid_grant`, `interaction_required`, `login_required` and `consent_required` say that
    /// the user has to sign in again; `temporarily_unavailable` and `slow_down` ask for time.
    pub fn refused(code: impl Into<Box<str>>) -> Self {
        let code = code.into();
        let kind = match &*code {
            "invalid_grant" | "interaction_required" | "login_required" | "consent_required" => {
                AcquireErrorKind::ReauthenticationRequired
            }
            "temporarily_unavailable" | "slow_down" => AcquireErrorKind::RetryLater,
            _ => AcquireErrorKind::Failed,
        };
        Self {
            kind,
            code,
            retry_after: None,
            source: None,
        }
    }

    /// A status that is no token and no error code: 429 and 503 ask for time.
    pub fn status(status: http::StatusCode) -> Self {
        let kind = match status {
            http::StatusCode::TOO_MANY_REQUESTS | http::StatusCode::SERVICE_UNAVAILABLE => {
                AcquireErrorKind::RetryLater
            }
            _ => AcquireErrorKind::Failed,
        };
        Self {
            kind,
            code: status.as_str().into(),
            retry_after: None,
            source: None,
        }
    }

    /// The answer did not come, or could not be read.
    pub fn unreachable(source: impl Into<BoxError>) -> Self {
        Self {
            kind: AcquireErrorKind::Failed,
            code: "unreachable".into(),
            retry_after: None,
            source: Some(source.into()),
        }
    }

    /// The provider asked to be left alone for so long (`Retry-After`).
    pub fn with_retry_after(mut self, pause: Duration) -> Self {
        self.retry_after = Some(pause);
        self
    }

    /// Whether the provider has answered with an error code that says nothing about time.
    pub(crate) fn is_refusal(&self) -> bool {
        self.source.is_none() && self.code.parse::<u16>().is_err()
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> AcquireErrorKind {
        self.kind
    }

    /// The error code, or the status.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// For how long the provider asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The one in this chain of sources, if any.
    pub(crate) fn find<'a>(mut error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        loop {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            error = error.source()?;
        }
    }
}

impl fmt::Display for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the provider gave no token: {}", self.code)
    }
}

impl StdError for ProviderError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
