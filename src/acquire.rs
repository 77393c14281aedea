//! What passes between the cache and the code that asks a provider for tokens.

mod cause;
pub(crate) mod codes;
mod error;
mod failure_record;
mod kind;
mod metadata;
mod provider_error;

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

#[cfg(feature = "grants")]
pub(crate) use self::cause::UNASKED;
pub(crate) use self::cause::{Cause, LATER, Meaning, SIGN_IN};
pub use self::error::AcquireError;
pub(crate) use self::error::demand_in;
pub(crate) use self::failure_record::{FailureRecord, UnstoredFailure};
pub use self::kind::AcquireErrorKind;
pub use self::metadata::{Acquired, Metadata, RefreshReason, TokenSource};
pub use self::provider_error::ProviderError;
#[cfg(feature = "grants")]
pub(crate) use self::provider_error::is_code;
use crate::key::TokenKey;
use crate::lookup::Lookup;
use crate::secret::Secret;
use crate::token::{Token, TokenSet};

/// An error of the caller's own, as an acquisition returns it.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// What [`Acquire::acquire`] returns.
pub type AcquireFuture = Pin<Box<dyn Future<Output = Result<TokenSet, BoxError>> + Send>>;

/// Asks a provider for tokens, again and again: one of the ready-made `grant`s, or a closure.
///
/// ```
/// use tower_token_cache::{Acquire, Prior, ProviderError, Token, TokenSet};
///
/// fn source() -> impl Acquire {
///     async |prior: Prior| {
///         let spent = prior.require_refresh_token()?;
///         // … redeem it …
///         # let _ = spent;
///         Ok::<_, ProviderError>(TokenSet::from(Token::new("new")))
///     }
/// }
/// # let _ = source();
/// ```
///
/// The future is boxed, so that a source can be chosen at run time and held as `Arc<dyn Acquire>`. A closure
/// is boxed by the crate.
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
    pub(crate) client: Option<Box<str>>,
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

    /// Which [client](crate::Tokens::client) it belongs to; `None` for the default client.
    pub fn client(&self) -> Option<&str> {
        self.client.as_deref()
    }

    /// Why.
    pub fn reason(&self) -> RefreshReason {
        self.reason
    }

    /// The token to be replaced, expired or not, if this process still knows it.
    pub fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// The client's refresh token.
    pub fn refresh_token(&self) -> Option<&Secret> {
        hit(&self.refresh_token)
    }

    /// The client's refresh token, for an acquire function that cannot do without.
    ///
    /// ```
    /// use tower_token_cache::{Prior, ProviderError, TokenSet};
    ///
    /// # async fn redeem(_: &str) -> Result<TokenSet, ProviderError> { unimplemented!() }
    /// async fn acquire(prior: Prior) -> Result<TokenSet, ProviderError> {
    ///     redeem(prior.require_refresh_token()?.expose()).await
    /// }
    /// # let _ = acquire;
    /// ```
    ///
    /// # Errors
    /// A user who has none has to sign in: the code `login_required`, which becomes a 401. If L2 could
    /// not say whether there is one ([`is_known`](Self::is_known)), the error may pass, and becomes a 502.
    pub fn require_refresh_token(&self) -> Result<&Secret, ProviderError> {
        match self.refresh_token() {
            Some(token) => Ok(token),
            None if self.is_known() => Err(ProviderError::refused("login_required")),
            None => Err(ProviderError::unreachable(Unknown)),
        }
    }

    /// The client's id token.
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

/// L2 could not be asked for the refresh token.
#[derive(Debug)]
struct Unknown;

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the token store could not be asked for the refresh token")
    }
}

impl StdError for Unknown {}
