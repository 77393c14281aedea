//! What commands go over: the connections to one server, or to the nodes of a cluster.

#[cfg(feature = "redis-sentinel")]
use std::sync::Arc;
use std::time::Duration;

use bb8_redis::redis::{Pipeline, RedisError, RedisResult, Value};

use super::access::Access;
use super::address::{Address, bad_url};
#[cfg(feature = "redis-cluster")]
use super::cluster::Cluster;
use super::pool::{Pool, Target};
#[cfg(feature = "redis-sentinel")]
use super::sentinel::Sentinels;
use crate::error::ConfigError;
use crate::store::PartitionId;

/// Clones share the connections.
#[derive(Clone)]
pub(super) enum Link {
    /// One server: the one of the URL, or the master that the sentinels name.
    Server(Pool),
    #[cfg(feature = "redis-cluster")]
    Cluster(Cluster),
}

impl Link {
    /// Whether a link can be made, and then whether to a cluster.
    pub(super) fn check(address: Address, access: &Access) -> Result<bool, ConfigError> {
        let bad = |error: RedisError| bad_url().with_source(error);
        match address {
            Address::Server(info) => access.open(*info).map(|_| false).map_err(bad),
            #[cfg(feature = "redis-cluster")]
            Address::Cluster(nodes) => match nodes.is_empty() {
                true => Err(bad_url()),
                false => Ok(true),
            },
            #[cfg(feature = "redis-sentinel")]
            Address::Sentinel {
                sentinels,
                service,
                master,
            } => Sentinels::new(sentinels, service, *master, access, Duration::ZERO)
                .map(|_| false)
                .map_err(bad),
        }
    }

    /// Connects in the background.
    pub(super) fn new(
        address: Address,
        access: &Access,
        timeout: Duration,
    ) -> Result<Self, ConfigError> {
        let bad = |error: RedisError| bad_url().with_source(error);
        Ok(match address {
            Address::Server(info) => {
                let client = access.open(*info).map_err(bad)?;
                Self::Server(Pool::new(Target::Server(Box::new(client)), access, timeout))
            }
            #[cfg(feature = "redis-cluster")]
            Address::Cluster(nodes) => {
                Self::Cluster(Cluster::new(nodes, access, timeout).map_err(bad)?)
            }
            #[cfg(feature = "redis-sentinel")]
            Address::Sentinel {
                sentinels,
                service,
                master,
            } => {
                let sentinels = Sentinels::new(sentinels, service, *master, access, timeout);
                let sentinels = Arc::new(sentinels.map_err(bad)?);
                sentinels.watch();
                let target = Target::Sentinels(sentinels);
                Self::Server(Pool::new(target, access, timeout))
            }
        })
    }

    /// Sends the commands at once. Each has an answer of its own.
    pub(super) async fn send(&self, pipeline: &Pipeline) -> RedisResult<Vec<RedisResult<Value>>> {
        match self {
            Self::Server(pool) => pool.send(pipeline).await,
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(cluster) => cluster.send(pipeline).await,
        }
    }

    /// Which server keeps a partition.
    pub(super) fn server(&self, id: &PartitionId) -> usize {
        #[cfg(not(feature = "redis-cluster"))]
        let _ = id;
        match self {
            Self::Server(_) => 0,
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(cluster) => cluster.server(id.encoded().as_bytes()),
        }
    }
}
