//! Connections to the nodes of a cluster.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bb8_redis::redis::cluster::{ClusterClient, ClusterConfig};
use bb8_redis::redis::cluster_async::ClusterConnection;
use bb8_redis::redis::cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr};
use bb8_redis::redis::{Arg, Cmd, ConnectionInfo, Pipeline, RedisError, RedisResult, Value};
use futures_util::future::join_all;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::address::tcp;
use super::tls::Tls;

/// How often a command that was sent elsewhere, or met a node that fails over, goes out again
/// within its time.
const RETRIES: u32 = 5;
/// Between two of them, ms.
const RETRY_WAIT: (u64, u64) = (5, 50);
/// How often the connections are made anew while some node does not answer.
const RENEW_EVERY: Duration = Duration::from_millis(500);

/// The nodes of a cluster. One multiplexed connection to each serves everybody.
///
/// The connections follow slots that move and nodes that come back, but they keep asking a node
/// that hangs, also when another has taken its slots over. So after a timeout all of them are made
/// anew in the background, and the old ones serve until then.
#[derive(Clone)]
pub(super) struct Cluster(Arc<Inner>);

struct Inner {
    client: ClusterClient,
    timeout: Duration,
    current: Mutex<Option<Current>>,
    /// One at a time makes connections.
    connecting: Arc<Semaphore>,
}

#[derive(Clone)]
struct Current {
    connection: ClusterConnection,
    since: Instant,
}

impl Cluster {
    pub(super) fn new(
        nodes: Vec<ConnectionInfo>,
        tls: &Tls,
        timeout: Duration,
    ) -> RedisResult<Self> {
        let builder = ClusterClient::builder(nodes)
            .connection_timeout(timeout)
            .response_timeout(timeout)
            .overall_response_timeout(Some(timeout))
            .retries(RETRIES)
            .min_retry_wait(RETRY_WAIT.0)
            .max_retry_wait(RETRY_WAIT.1)
            .tcp_settings(tcp());
        #[cfg(feature = "redis-tls")]
        let builder = match tls.certificates() {
            Some(certificates) => builder.certs(certificates),
            None => builder,
        };
        #[cfg(not(feature = "redis-tls"))]
        let _ = tls;
        let cluster = Self(Arc::new(Inner {
            client: builder.build()?,
            timeout,
            current: Mutex::default(),
            connecting: Arc::new(Semaphore::new(1)),
        }));
        cluster.renew();
        Ok(cluster)
    }

    /// Sends all commands at once, each to its node.
    pub(super) async fn send(&self, pipeline: &Pipeline) -> RedisResult<Vec<RedisResult<Value>>> {
        let current = self.current().await?;
        let mut route = None;
        let commands = pipeline.cmd_iter().map(|command| {
            // A command without a key goes where the one before it went.
            route = keyed(command).or_else(|| route.take());
            let routing = route
                .clone()
                .unwrap_or(SingleNodeRoutingInfo::RandomPrimary);
            let mut connection = current.connection.clone();
            async move {
                let routing = RoutingInfo::SingleNode(routing);
                let answer = connection.route_command(command.clone(), routing).await;
                answer.and_then(Value::extract_error)
            }
        });
        let answers = join_all(commands).await;
        if answers
            .iter()
            .filter_map(|answer| answer.as_ref().err())
            .any(unanswered)
            && current.since.elapsed() >= RENEW_EVERY
        {
            self.renew();
        }
        Ok(answers)
    }

    /// The connections, once they are made.
    async fn current(&self) -> RedisResult<Current> {
        if let Some(current) = self.0.lock().clone() {
            return Ok(current);
        }
        self.renew();
        let connecting = self.0.connecting.acquire();
        if tokio::time::timeout(self.0.timeout, connecting)
            .await
            .is_err()
        {
            return Err(io::Error::from(io::ErrorKind::TimedOut).into());
        }
        let current = self.0.lock().clone();
        current.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected).into())
    }

    /// Makes the connections anew in the background, unless that is under way.
    fn renew(&self) {
        let Ok(permit) = self.0.connecting.clone().try_acquire_owned() else {
            return;
        };
        let client = self.0.client.clone();
        let weak = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            let config = ClusterConfig::new();
            match client.get_async_connection_with_config(config).await {
                Ok(connection) => {
                    let since = Instant::now();
                    if let Some(inner) = weak.upgrade() {
                        *inner.lock() = Some(Current { connection, since });
                    }
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(error, "no connection to the Redis cluster");
                }
            }
            drop(permit);
        });
    }
}

impl Inner {
    /// No code that can panic runs under the lock.
    fn lock(&self) -> MutexGuard<'_, Option<Current>> {
        self.current.lock()
    }
}

/// The master of the slot of the command's key.
fn keyed(command: &Cmd) -> Option<SingleNodeRoutingInfo> {
    let mut arguments = command.args_iter();
    let key = match arguments.next()? {
        // Before it are the script and the number of keys.
        Arg::Simple(b"EVALSHA" | b"EVAL") => arguments.nth(2)?,
        _ => arguments.next()?,
    };
    let Arg::Simple(key) = key else { return None };
    let route = Route::with_key(key, SlotAddr::Master);
    Some(SingleNodeRoutingInfo::SpecificNode(route))
}

fn unanswered(error: &RedisError) -> bool {
    error.is_timeout() || error.is_io_error() || error.is_unrecoverable_error()
}
