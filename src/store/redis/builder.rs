//! Sets up a `RedisStore`.

use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::RedisStore;
use super::access::Access;
use super::credentials::{Provider, RedisCredentials};
use super::links::Links;
use crate::acquire::BoxError;
use crate::error::{ConfigError, StoreError};
use crate::time::setting;

/// Between two attempts of [`RedisStoreBuilder::connect`].
const PAUSE: Duration = Duration::from_millis(50);

fn unanswered(error: StoreError) -> ConfigError {
    ConfigError::new("url", "no server that it names has given a good answer").with_source(error)
}

/// Sets up a [`RedisStore`].
#[must_use = "there is no store until `build`"]
pub struct RedisStoreBuilder {
    access: Access,
    response_timeout: Duration,
}

impl RedisStoreBuilder {
    pub(super) fn new(url: String) -> Self {
        Self {
            access: Access::new(url),
            response_timeout: Duration::from_millis(200),
        }
    }

    /// How long to wait for a connection, and for an answer, before the connection is given up.
    /// Defaults to 200 ms; keep it below the cache's
    /// [`Timeouts::attempt`](crate::Timeouts::attempt), so that a dead connection is noticed.
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = timeout;
        self
    }

    /// Names the user and the password of the servers, where they change: a password that is rotated, or a token of a
    /// cloud provider. It is asked for each new connection, and again when credentials are
    /// [about to end](RedisCredentials::good_for). What the URL holds is then of no use. Defaults to the URL.
    ///
    /// Keep what is valid in memory: an answer that takes longer than the
    /// [response timeout](Self::response_timeout) keeps requests waiting. An error, a panic, or no answer within ten seconds
    /// is one of the connection, and it is asked again with the next one. Sentinels have
    /// credentials of their own.
    ///
    /// ```no_run
    /// use tower_token_cache::{RedisCredentials, RedisStore};
    ///
    /// # fn store() -> Result<RedisStore, tower_token_cache::ConfigError> {
    /// let store = RedisStore::builder("rediss://redis.internal").credentials(async || {
    ///     let password = tokio::fs::read_to_string("/run/secrets/redis").await?;
    ///     Ok(RedisCredentials::new("tokens", password.trim_end()))
    /// });
    /// let store = store.build()?;
    /// # Ok(store)
    /// # }
    /// ```
    pub fn credentials<F>(mut self, ask: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<RedisCredentials, BoxError>> + Send + 'static,
    {
        self.access.credentials = Some(Provider::new(ask));
        self
    }

    /// The certificates, in PEM, of those who vouch for the servers. Defaults to those that the
    /// system trusts, which are not asked once some are given. For `rediss://` and the like.
    #[cfg(feature = "redis-tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis-tls")))]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.access.root_certificates(pem.into());
        self
    }

    /// The certificate and its private key, both in PEM, by which the servers know this client.
    /// Defaults to none. For `rediss://` and the like.
    #[cfg(feature = "redis-tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis-tls")))]
    pub fn client_certificate(
        mut self,
        certificate: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        self.access
            .client_certificate(certificate.into(), key.into());
        self
    }

    /// How to sign in to the sentinels; an empty user is the default user. Defaults to not at all:
    /// what the URL of `redis+sentinel://` holds is for the servers.
    #[cfg(feature = "redis-sentinel")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis-sentinel")))]
    pub fn sentinel_credentials(
        mut self,
        user: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        self.access
            .sentinel_credentials(user.into(), password.into());
        self
    }

    /// The store. It connects when it is first used, on the runtime that uses it; [`connect`](Self::connect) waits
    /// for that.
    ///
    /// # Errors
    /// [`ConfigError`] for a URL that cannot be used, or not without another feature of this
    /// crate, for certificates that cannot be read, for settings that this URL has no use for, or
    /// a timeout of zero.
    pub fn build(self) -> Result<RedisStore, ConfigError> {
        if self.response_timeout.is_zero() {
            return Err(ConfigError::new("response_timeout", "must be above 0"));
        }
        if self.access.address()?.is_in_the_clear() {
            tracing::warn!("the connection to Redis is not encrypted, use rediss://");
        }
        Ok(RedisStore {
            links: Links::new(self.access, setting(self.response_timeout))?,
        })
    }

    /// The store, once a server has answered a `PING`: for an application that is not to start without it. It is
    /// tried again and again for as long as `patience`, and at least once. Of a cluster one master is asked.
    ///
    /// # Errors
    /// As for [`build`](Self::build). [`ConfigError`] of `url` when there was no good answer; its sources say why:
    /// no such host, a password that is wrong, a database that the server does not have.
    pub async fn connect(self, patience: Duration) -> Result<RedisStore, ConfigError> {
        let store = self.build()?;
        let deadline = Instant::now() + setting(patience);
        // The cache will use the store on a runtime of its own: these connections end here.
        let apart = RedisStore {
            links: store.links.apart()?,
        };
        while let Err(error) = apart.ping().await {
            if Instant::now() + PAUSE > deadline {
                return Err(unanswered(error));
            }
            sleep(PAUSE).await;
        }
        Ok(store)
    }
}

/// Shows neither the URL nor a key.
impl fmt::Debug for RedisStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStoreBuilder")
            .field("response_timeout", &self.response_timeout)
            .finish_non_exhaustive()
    }
}
