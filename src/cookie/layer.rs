//! The layer of sessions in cookies.

use super::store::CookieStore;
use crate::cache::{Builder, L1, TokenCache};
use crate::error::ConfigError;
use crate::layer::TokenCacheLayer;

impl CookieStore {
    /// The layer that gives requests their sessions, with a cache of its own:
    /// [`TokenCacheLayer::cache`] has it.
    ///
    /// # Errors
    /// As for [`Builder::build`].
    pub fn layer(&self) -> Result<TokenCacheLayer, ConfigError> {
        self.layer_with(|builder| builder)
    }

    /// The same with other settings of the cache. L1 stays off, and a [`Builder::key_ring`] of its
    /// own would only make the cookies larger. [`Lifetimes::absolute`](crate::Lifetimes::absolute) is
    /// [`CookieStore::MAX_SESSION_AGE`] unless it is set here, if to `None`.
    ///
    /// # Errors
    /// As for [`Builder::build`].
    pub fn layer_with(
        &self,
        adjust: impl FnOnce(Builder) -> Builder,
    ) -> Result<TokenCacheLayer, ConfigError> {
        let builder = TokenCache::builder(self.clone())
            .clock(self.0.clock.clone())
            .brought_by_requests(Self::MAX_SESSION_AGE);
        let cache = adjust(builder).l1(L1::disabled()).build()?;
        cache.keep_fresh(self.0.sealer.ring());
        Ok(TokenCacheLayer::from_source(cache, self.clone().into()))
    }
}
