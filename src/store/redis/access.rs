//! How the servers are reached: what the store and its feed share.

use bb8_redis::redis::aio::MultiplexedConnection;
use bb8_redis::redis::{AsyncConnectionConfig, Client, ConnectionInfo, RedisResult};

use super::address::Address;
use super::credentials::{Login, Provider};
use super::serving::Serving;
use super::tls::Tls;
use crate::error::ConfigError;

/// A connection to a server that keeps partitions.
pub(crate) struct Opened {
    pub(super) connection: MultiplexedConnection,
    pub(super) login: Option<Login>,
}

/// A URL and what it does not hold. Neither is to be shown.
#[derive(Clone)]
pub(crate) struct Access {
    url: String,
    tls: Tls,
    pub(super) serving: Serving,
    pub(super) credentials: Option<Provider>,
    #[cfg(feature = "redis-sentinel")]
    sentinel_credentials: Option<(String, String)>,
}

impl Access {
    pub(crate) fn new(url: String) -> Self {
        Self {
            url,
            tls: Tls::default(),
            serving: Serving::default(),
            credentials: None,
            #[cfg(feature = "redis-sentinel")]
            sentinel_credentials: None,
        }
    }

    #[cfg(feature = "redis-tls")]
    pub(crate) fn root_certificates(&mut self, pem: Vec<u8>) {
        self.tls.root = Some(pem);
    }

    #[cfg(feature = "redis-tls")]
    pub(crate) fn client_certificate(&mut self, certificate: Vec<u8>, key: Vec<u8>) {
        self.tls.client = Some(bb8_redis::redis::ClientTlsConfig {
            client_cert: certificate,
            client_key: key,
        });
    }

    #[cfg(feature = "redis-sentinel")]
    pub(crate) fn sentinel_credentials(&mut self, user: String, password: String) {
        self.sentinel_credentials = Some((user, password));
    }

    /// What the URL names, once all of the settings are found to be of use.
    pub(crate) fn address(&self) -> Result<Address, ConfigError> {
        let (address, tls) = Address::parse(&self.url)?;
        #[cfg(feature = "redis-tls")]
        self.tls.check(tls)?;
        #[cfg(not(feature = "redis-tls"))]
        let _ = tls;
        #[cfg(feature = "redis-sentinel")]
        if self.sentinel_credentials.is_some() && !matches!(address, Address::Sentinel { .. }) {
            let reason = "needs a URL of redis+sentinel://";
            return Err(ConfigError::new("sentinel_credentials", reason));
        }
        Ok(address)
    }

    /// Where the servers are, for [`TokenStore::identity`](crate::TokenStore::identity).
    pub(super) fn hash_place(&self, hasher: &mut impl std::hash::Hasher) {
        std::hash::Hash::hash(&self.url, hasher);
    }

    /// A client for this server.
    pub(crate) fn open(&self, info: ConnectionInfo) -> RedisResult<Client> {
        self.tls.open(info)
    }

    /// Connects to a server that keeps partitions, with the credentials of now.
    pub(super) async fn connect(
        &self,
        client: &Client,
        config: &AsyncConnectionConfig,
    ) -> RedisResult<Opened> {
        let (client, login) = match &self.credentials {
            None => (client.clone(), None),
            Some(provider) => {
                let (info, login) = provider.login(client.get_connection_info()).await?;
                (self.open(info)?, Some(login))
            }
        };
        let connection = client.get_multiplexed_async_connection_with_config(config);
        let connection = connection.await?;
        Ok(Opened { connection, login })
    }

    /// A client for this sentinel.
    #[cfg(feature = "redis-sentinel")]
    pub(super) fn open_sentinel(&self, info: ConnectionInfo) -> RedisResult<Client> {
        let settings = info.redis_settings().clone();
        let settings = match &self.sentinel_credentials {
            Some((user, password)) if user.is_empty() => settings.set_password(password),
            Some((user, password)) => settings.set_username(user).set_password(password),
            None => settings,
        };
        self.open(info.set_redis_settings(settings))
    }
}
