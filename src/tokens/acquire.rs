//! Tokens that are there when they are needed.

use super::Tokens;
use crate::acquire::{BoxError, Prior};
use crate::acquisition::Acquisition;
use crate::error::Error;
use crate::key::TokenKey;
use crate::token::{Token, TokenSet};

impl Tokens {
    /// A usable token under this key: from L1, from L2, or from one call to `acquire` that the
    /// whole fleet shares.
    ///
    /// For one refresh token at most one call is under way, on all instances; the others wait for its
    /// answer, which is in L2 before a request gets it. Both hold as far as L2 can be asked: while it
    /// cannot, each instance calls by itself ([`Degrade`](crate::FailurePolicy::Degrade)), and so it does
    /// under [`Bypass`](crate::FailurePolicy::Bypass). A call that has begun runs to its end even when this
    /// future is dropped; one that waits for its slot is not made when no request waits for it any more. A token that will expire soon is returned at once, and replaced in
    /// the background.
    ///
    /// The call is a task of the tokio runtime that it was made on: `acquire` finds the timers and
    /// tasks of its caller there, and one that blocks holds up nobody else's cache. If that runtime
    /// ends, those who wait make their own call. Outside of tokio it runs where the cache
    /// [works](crate::Builder::runtime), and must not block.
    ///
    /// Of a session or user that L2 does not have nothing is kept when the acquisition fails, but for
    /// a short memory of this process that cannot grow; and other instances are not kept from
    /// asking as well, for there is nothing to redeem. Ids that somebody makes up cost two
    /// reads of L2 each: limit their rate before they come here.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_token_cache::{MemoryStore, PartitionKey, Prior, ProviderError, Token, TokenCache, TokenSet};
    /// # async fn redeem(_: &str) -> Result<TokenSet, ProviderError> {
    /// #     Ok(TokenSet::from(Token::new("new").with_expires_in(Duration::from_secs(3600))))
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cache = TokenCache::builder(MemoryStore::new()).build()?;
    /// # let tokens = cache.tokens(PartitionKey::user("ada")?);
    /// # tokens.insert("other", TokenSet::from(Token::new("a")).with_refresh_token("r")).await?;
    /// let token = tokens
    ///     .get_or_acquire("graph", async |prior: Prior| {
    ///         redeem(prior.require_refresh_token()?.expose()).await
    ///     })
    ///     .await?;
    /// assert_eq!(token.access_token(), "new");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Acquire`] when `acquire` failed, for this caller or for the one whose call it
    /// shared; the provider is then left alone [for a while](crate::AcquireError::retry_at).
    /// [`Error::SignedOut`], [`Error::Overloaded`], [`Error::ShutDown`], and those of
    /// [`get`](Self::get). Under [`Strict`](crate::FailurePolicy::Strict) also [`Error::Unavailable`] when L2 did
    /// not take the new token in time; it is kept all the same, and replayed.
    pub async fn get_or_acquire<K, F, Fut, E>(&self, key: K, acquire: F) -> Result<Token, Error>
    where
        K: TryInto<TokenKey>,
        Error: From<K::Error>,
        F: FnOnce(Prior) -> Fut + Send + 'static,
        Fut: Future<Output = Result<TokenSet, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let acquisition = self.acquire(key)?;
        match acquisition.hit() {
            Some((token, false)) => Ok(token),
            // Of a session in cookies, what is acquired after the head is lost.
            Some(_) if self.is_in_cookies() => Ok(acquisition.with(acquire).await?.token),
            Some((token, true)) => {
                acquisition.refresh_ahead(&token, acquire);
                Ok(token)
            }
            None => Ok(acquisition.with(acquire).await?.token),
        }
    }

    /// The same with more to say: how long the token has to last, which claims it needs, that it
    /// has to be new; and with the [metadata](crate::Metadata) of how it was come by.
    ///
    /// # Errors
    /// [`Error::InvalidKey`].
    pub fn acquire<K>(&self, key: K) -> Result<Acquisition<'_>, Error>
    where
        K: TryInto<TokenKey>,
        Error: From<K::Error>,
    {
        Ok(Acquisition::new(self, key.try_into()?))
    }

    /// Another token than this one, which a service has just rejected (401): L2's if it has
    /// another, else one that is acquired, once for everybody who had it rejected.
    ///
    /// # Errors
    /// As for [`get_or_acquire`](Self::get_or_acquire).
    pub async fn rejected<K, F, Fut, E>(
        &self,
        key: K,
        token: &Token,
        acquire: F,
    ) -> Result<Token, Error>
    where
        K: TryInto<TokenKey>,
        Error: From<K::Error>,
        F: FnOnce(Prior) -> Fut + Send + 'static,
        Fut: Future<Output = Result<TokenSet, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let acquisition = self.acquire(key)?.rejected(token);
        Ok(acquisition.with(acquire).await?.token)
    }
}
