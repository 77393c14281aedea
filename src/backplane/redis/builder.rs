//! Sets up a `RedisBackplane`.

use std::fmt;
use std::sync::Arc;

use super::RedisBackplane;
use super::servers::Servers;
use crate::backplane::KeepAlive;
use crate::error::ConfigError;
use crate::store::redis::Access;

/// Sets up a [`RedisBackplane`].
#[derive(Clone)]
pub struct RedisBackplaneBuilder {
    access: Access,
    keep_alive: KeepAlive,
}

impl RedisBackplaneBuilder {
    pub(super) fn new(url: String) -> Self {
        Self {
            access: Access::new(url),
            keep_alive: KeepAlive::default(),
        }
    }

    /// How the channel is kept under watch. Defaults to [`KeepAlive::default`].
    pub fn keep_alive(mut self, keep_alive: KeepAlive) -> Self {
        self.keep_alive = keep_alive;
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

    /// The backplane.
    ///
    /// # Errors
    /// [`ConfigError`] for a URL that cannot be used, or not without another feature of this
    /// crate, for certificates that cannot be read, for settings that this URL has no use for, or
    /// a [`KeepAlive`] that does not hold together.
    pub fn build(self) -> Result<RedisBackplane, ConfigError> {
        Ok(RedisBackplane {
            servers: Arc::new(Servers::new(&self.access)?),
            keep_alive: self.keep_alive.validate()?,
        })
    }
}

/// Without the URL, which may hold a password, and without a key.
impl fmt::Debug for RedisBackplaneBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBackplaneBuilder")
            .field("keep_alive", &self.keep_alive)
            .finish_non_exhaustive()
    }
}
