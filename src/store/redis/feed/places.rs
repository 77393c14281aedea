//! Which servers have to be listened to: all masters.

use std::time::Duration;

use bb8_redis::redis::aio::MultiplexedConnection;
use bb8_redis::redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, ProtocolVersion, RedisError, RedisResult,
};

use crate::error::ConfigError;
use crate::store::redis::access::Opened;
#[cfg(feature = "redis-cluster")]
use crate::store::redis::address::located;
#[cfg(feature = "redis-cluster")]
use crate::store::redis::cluster;
#[cfg(feature = "redis-cluster")]
use crate::store::redis::failure::no_connection;
#[cfg(feature = "redis-sentinel")]
use crate::store::redis::sentinel::{self, Sentinels};
use crate::store::redis::serving::Serving;
use crate::store::redis::{Access, Address, bad_url};

/// How long a connection may take to be made, and a command to be answered. Nobody waits for it.
pub(super) const TIMEOUT: Duration = Duration::from_secs(1);

/// The servers of a URL.
pub(super) struct Places {
    kind: Kind,
    access: Access,
}

enum Kind {
    Server(Box<Client>),
    #[cfg(feature = "redis-sentinel")]
    Sentinels(std::sync::Arc<Sentinels>),
    #[cfg(feature = "redis-cluster")]
    Cluster(Vec<ConnectionInfo>),
}

/// The masters that there are now, and what says that they still are.
#[derive(Clone)]
pub(super) enum Masters {
    /// The one of the URL.
    One,
    /// The one that the sentinels name.
    #[cfg(feature = "redis-sentinel")]
    Named(std::sync::Arc<Sentinels>, sentinel::Place),
    /// Those that keep the slots of a cluster, sorted, and the node that was asked for them.
    #[cfg(feature = "redis-cluster")]
    Cluster(Vec<cluster::Place>, Box<ConnectionInfo>),
}

impl Places {
    /// The errors never hold the URL, which may hold a password.
    pub(super) fn new(access: &Access) -> Result<Self, ConfigError> {
        let bad = |error: RedisError| bad_url().with_source(error);
        let kind = match access.address()? {
            Address::Server(info) => {
                Kind::Server(access.open(with_pushes(*info)).map_err(bad)?.into())
            }
            #[cfg(feature = "redis-cluster")]
            Address::Cluster(nodes) => Kind::Cluster(nodes.into_iter().map(with_pushes).collect()),
            #[cfg(feature = "redis-sentinel")]
            Address::Sentinel {
                sentinels,
                service,
                master,
            } => {
                let master = with_pushes(*master);
                let sentinels = Sentinels::new(sentinels, service, master, access, TIMEOUT);
                Kind::Sentinels(sentinels.map_err(bad)?.into())
            }
        };
        Ok(Self {
            kind,
            access: access.clone(),
        })
    }

    /// Where the store's commands go.
    pub(super) fn serving(&self) -> &Serving {
        &self.access.serving
    }

    /// Connects to one of them.
    pub(super) async fn connect(
        &self,
        client: &Client,
        config: AsyncConnectionConfig,
    ) -> RedisResult<Opened> {
        self.access.connect(client, &config).await
    }

    /// The masters, and a client for each.
    pub(super) async fn masters(&self) -> RedisResult<(Masters, Vec<Client>)> {
        match &self.kind {
            Kind::Server(client) => Ok((Masters::One, vec![Client::clone(client)])),
            #[cfg(feature = "redis-sentinel")]
            Kind::Sentinels(sentinels) => {
                sentinels.watch();
                let master = sentinels.connect().await?;
                let named = Masters::Named(sentinels.clone(), master.place);
                Ok((named, vec![master.client]))
            }
            #[cfg(feature = "redis-cluster")]
            Kind::Cluster(seeds) => {
                let access = &self.access;
                let (masters, seed) = cluster_masters(seeds, access).await?;
                let client = |(host, port): &cluster::Place| {
                    access.open(located(&seed, host.to_string(), *port))
                };
                let clients = masters.iter().map(client).collect::<RedisResult<_>>()?;
                Ok((Masters::Cluster(masters, seed.into()), clients))
            }
        }
    }
}

/// The masters of a cluster, by the first of its seeds that answers.
#[cfg(feature = "redis-cluster")]
async fn cluster_masters(
    seeds: &[ConnectionInfo],
    access: &Access,
) -> RedisResult<(Vec<cluster::Place>, ConnectionInfo)> {
    let mut failure = no_connection();
    for seed in seeds {
        let asked = async {
            let opened = access.connect(&access.open(seed.clone())?, &config()).await;
            cluster::masters(&mut opened?.connection, seed).await
        };
        match asked.await {
            Ok(masters) => return Ok((masters, seed.clone())),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

impl Masters {
    /// Whether these are the masters still, as far as this server knows.
    pub(super) async fn are_still(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<()> {
        #[cfg(not(feature = "redis-cluster"))]
        let _ = connection;
        let replaced = match self {
            Self::One => false,
            #[cfg(feature = "redis-sentinel")]
            Self::Named(sentinels, place) => sentinels.name_another(place),
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(known, seed) => cluster::masters(connection, seed).await? != *known,
        };
        match replaced {
            true => Err(another()),
            false => Ok(()),
        }
    }
}

/// Another server is a master by now.
pub(super) fn another() -> RedisError {
    std::io::Error::other("another server is the master").into()
}

pub(super) fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(TIMEOUT))
        .set_response_timeout(Some(TIMEOUT))
}

/// What is told comes in RESP3 only.
fn with_pushes(info: ConnectionInfo) -> ConnectionInfo {
    let settings = info.redis_settings().clone();
    info.set_redis_settings(settings.set_protocol(ProtocolVersion::RESP3))
}
