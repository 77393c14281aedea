//! Which server a link is made to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bb8_redis::redis::aio::MultiplexedConnection;
use bb8_redis::redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, ProtocolVersion, RedisError,
    RedisResult,
};

use crate::backplane::BackplaneFuture;
use crate::error::ConfigError;
use crate::store::redis::{Access, Address, bad_url};
#[cfg(feature = "redis-sentinel")]
use crate::store::redis::{Master, Sentinels};

/// How long a connection may take to be made, and a command to be answered. More than the store
/// allows, as nobody waits for it.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The servers of a URL.
pub(super) enum Servers {
    /// Each is as good as the others: the one of the URL, or the nodes of a cluster, which tell
    /// each other what is published.
    Nodes {
        clients: Vec<Client>,
        /// The one to begin with at the next join.
        next: AtomicUsize,
    },
    #[cfg(feature = "redis-sentinel")]
    Sentinels(std::sync::Arc<Sentinels>),
}

/// One that has answered.
pub(super) struct Server {
    pub(super) connection: MultiplexedConnection,
    /// For more connections to it.
    pub(super) client: Client,
    /// Ready once another one is to be used instead.
    pub(super) replaced: BackplaneFuture<'static, ()>,
}

impl Servers {
    /// The errors never hold the URL, which may hold a password.
    pub(super) fn new(access: &Access) -> Result<Self, ConfigError> {
        let bad = |error: RedisError| bad_url().with_source(error);
        let nodes = match access.address()? {
            Address::Server(info) => vec![*info],
            #[cfg(feature = "redis-cluster")]
            Address::Cluster(nodes) => nodes,
            #[cfg(feature = "redis-sentinel")]
            Address::Sentinel {
                sentinels,
                service,
                master,
            } => {
                let master = with_pushes(*master);
                let sentinels = Sentinels::new(sentinels, service, master, access, TIMEOUT);
                return Ok(Self::Sentinels(std::sync::Arc::new(
                    sentinels.map_err(bad)?,
                )));
            }
        };
        let open = |info| access.open(with_pushes(info));
        let clients = nodes.into_iter().map(open).collect::<RedisResult<_>>();
        Ok(Self::Nodes {
            clients: clients.map_err(bad)?,
            next: AtomicUsize::default(),
        })
    }

    /// Connects to one that answers.
    pub(super) async fn connect(&self) -> RedisResult<Server> {
        match self {
            Self::Nodes { clients, next } => {
                let nobody = (ErrorKind::InvalidClientConfig, "the URL names no server");
                let mut last_error = RedisError::from(nobody);
                for _ in clients {
                    // Whatever becomes of this one, also if it takes longer than joining may: the
                    // next attempt is another's.
                    let at = next.fetch_add(1, Ordering::Relaxed) % clients.len();
                    match connection(&clients[at], config()).await {
                        Ok(connection) => {
                            return Ok(Server {
                                connection,
                                client: clients[at].clone(),
                                replaced: Box::pin(std::future::pending()),
                            });
                        }
                        Err(error) => last_error = error,
                    }
                }
                Err(last_error)
            }
            #[cfg(feature = "redis-sentinel")]
            Self::Sentinels(sentinels) => {
                let Master {
                    connection,
                    client,
                    place,
                } = sentinels.connect().await?;
                let sentinels = sentinels.clone();
                Ok(Server {
                    connection,
                    client,
                    replaced: Box::pin(async move { sentinels.replaced(&place).await }),
                })
            }
        }
    }
}

pub(super) fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(TIMEOUT))
        .set_response_timeout(Some(TIMEOUT))
}

pub(super) async fn connection(
    client: &Client,
    config: AsyncConnectionConfig,
) -> RedisResult<MultiplexedConnection> {
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

/// Messages come over a multiplexed connection in RESP3 only.
fn with_pushes(info: ConnectionInfo) -> ConnectionInfo {
    let settings = info.redis_settings().clone();
    info.set_redis_settings(settings.set_protocol(ProtocolVersion::RESP3))
}
