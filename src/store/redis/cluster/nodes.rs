//! Connections to the nodes of a cluster.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bb8_redis::redis::{AsyncConnectionConfig, ConnectionInfo, Pipeline, RedisResult, Value};
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::slots::Place;
use crate::reasons::Reasons;
use crate::store::redis::access::Access;
use crate::store::redis::address::located;
use crate::store::redis::eviction::Eviction;
use crate::store::redis::failure::{is_unanswered, not_connected};
use crate::store::redis::multiplexed::Multiplexed;

/// Nodes that connections are kept to: as many as a cluster can sensibly have.
const MAX_NODES: usize = 1000;

/// One multiplexed connection to each node that was asked. It serves everybody, and is replaced
/// when it fails.
pub(super) struct Nodes {
    /// How to sign in. It names some node.
    like: ConnectionInfo,
    access: Access,
    timeout: Duration,
    config: AsyncConnectionConfig,
    connections: Mutex<HashMap<Place, Arc<Node>>>,
    /// Of those that could not be connected to.
    reasons: Mutex<HashMap<Place, Reasons>>,
    eviction: Eviction,
}

/// Whoever comes first connects, and the others wait for it.
type Node = OnceCell<Multiplexed>;

impl Nodes {
    pub(super) fn new(like: ConnectionInfo, access: Access, timeout: Duration) -> Self {
        Self {
            like,
            access,
            timeout,
            config: AsyncConnectionConfig::new()
                .set_connection_timeout(Some(timeout))
                .set_response_timeout(Some(timeout)),
            connections: Mutex::default(),
            reasons: Mutex::default(),
            eviction: Eviction::default(),
        }
    }

    /// Sends all commands of a pipeline to a node, in one message. Each has an answer of its own.
    pub(super) async fn send(&self, place: &Place, pipeline: &Pipeline) -> RedisResult<Vec<Value>> {
        let node = self.node(place);
        let mut suspect = Suspect {
            nodes: self,
            place,
            node: &node,
            since: Instant::now(),
            failed: None,
        };
        let connection = node.get_or_try_init(|| self.connect(place)).await;
        suspect.failed = Some(connection.is_err());
        let mut connection = connection?.clone();
        suspect.failed = None;
        let answers = connection.send(pipeline).await;
        suspect.failed = Some(answers.as_ref().is_err_and(is_unanswered));
        answers
    }

    fn node(&self, place: &Place) -> Arc<Node> {
        let mut connections = self.connections.lock();
        if let Some(node) = connections.get(place) {
            return node.clone();
        }
        if connections.len() >= MAX_NODES {
            connections.clear();
        }
        let node = Arc::default();
        connections.insert(place.clone(), Arc::clone(&node));
        node
    }

    async fn connect(&self, place: &Place) -> RedisResult<Multiplexed> {
        let (host, port) = place;
        let info = located(&self.like, host.to_string(), *port);
        let client = self.access.open(info)?;
        let connecting = self.access.connect(&client, &self.config);
        match connecting.await {
            Ok(opened) => {
                if self
                    .reasons
                    .lock()
                    .get(place)
                    .is_some_and(Reasons::recovered)
                {
                    tracing::info!(%host, port, "connected to a node of the Redis cluster again");
                }
                let place = || format!("{host}:{port}");
                self.eviction.look(place, &opened.connection);
                Ok(Multiplexed::new(opened))
            }
            Err(error) => {
                let error = not_connected(error);
                let mut reasons = self.reasons.lock();
                if reasons.len() >= MAX_NODES && !reasons.contains_key(place) {
                    reasons.clear();
                }
                // One line for each node and reason, not for each attempt.
                let news = reasons.entry(place.clone()).or_default().is_news(&error);
                drop(reasons);
                let source = &error as &dyn std::error::Error;
                match news {
                    true => tracing::warn!(
                        %host,
                        port,
                        error = source,
                        "a node of the Redis cluster cannot be connected to"
                    ),
                    false => tracing::debug!(
                        %host,
                        port,
                        error = source,
                        "a node of the Redis cluster still cannot be connected to"
                    ),
                }
                Err(error)
            }
        }
    }
}

/// A connection that has not answered yet. Who gives up after a fair time waiting for it, has the next
/// one try another.
struct Suspect<'a> {
    nodes: &'a Nodes,
    place: &'a Place,
    node: &'a Arc<Node>,
    since: Instant,
    /// Whether it is to blame, once that is known.
    failed: Option<bool>,
}

impl Drop for Suspect<'_> {
    fn drop(&mut self) {
        let waited = || self.since.elapsed() >= self.nodes.timeout / 2;
        if self.failed.unwrap_or_else(waited) {
            let mut connections = self.nodes.connections.lock();
            let current = connections.get(self.place);
            if current.is_some_and(|current| Arc::ptr_eq(current, self.node)) {
                connections.remove(self.place);
            }
        }
    }
}
