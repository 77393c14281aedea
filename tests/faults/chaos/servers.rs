//! What stands behind the processes: a server, a cluster or a set with sentinels.

use std::time::{Duration, Instant};

use super::random::Random;
use common::redis::RedisServer;
use common::topologies::{Cluster, Node, SentinelSet};

/// Each write is in the system's hands before it is acknowledged: a server that is killed and comes
/// back at once has lost nothing.
const PERSISTENT: &str = "appendonly yes\nappendfsync everysec";
/// How long servers may take to follow each other again, until a fault is left out.
const IN_STEP_WITHIN: Duration = Duration::from_secs(10);

/// How the servers are set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topology {
    Server,
    Cluster,
    Sentinel,
}

pub(crate) enum Servers {
    One(RedisServer),
    Cluster(Cluster),
    Sentinel(SentinelSet),
}

impl Servers {
    pub(crate) async fn start(topology: Topology) -> Self {
        match topology {
            Topology::Server => Self::One(RedisServer::start_persistent()),
            Topology::Cluster => Self::Cluster(Cluster::start_with(PERSISTENT).await),
            Topology::Sentinel => Self::Sentinel(SentinelSet::start_with("", PERSISTENT).await),
        }
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::One(redis) => redis.url(),
            Self::Cluster(cluster) => cluster.url(),
            Self::Sentinel(set) => format!("redis+sentinel://{}/tokens", set.hosts()),
        }
    }

    /// The servers that replicate each other.
    pub(crate) fn nodes(&mut self) -> &mut [Node] {
        match self {
            Self::One(_) => &mut [],
            Self::Cluster(cluster) => &mut cluster.nodes,
            Self::Sentinel(set) => &mut set.servers,
        }
    }

    /// One of the masters.
    pub(crate) fn master(&mut self, random: &Random) -> Option<usize> {
        let nodes = self.nodes();
        let masters = (0..nodes.len()).filter(|at| nodes[*at].is_master());
        let masters: Vec<_> = masters.collect();
        (!masters.is_empty()).then(|| random.one_of(&masters))
    }

    /// Waits until each server follows its master, or is followed, and all agree on who has what.
    /// Otherwise the next failover would lose everything, and no client could help it.
    pub(crate) async fn in_step(&mut self) -> bool {
        let since = Instant::now();
        while since.elapsed() < IN_STEP_WITHIN {
            let in_step = tokio::task::block_in_place(|| {
                let agreed = !matches!(self, Self::Cluster(cluster) if !cluster.is_agreed());
                agreed && self.nodes().iter().all(Node::is_in_step)
            });
            if in_step {
                return true;
            }
            self.lead_back();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        false
    }

    /// Has an old master follow the one that the sentinels name, which they would see to after some
    /// ten seconds.
    fn lead_back(&self) {
        let Self::Sentinel(set) = self else { return };
        let ask = "SENTINEL GET-MASTER-ADDR-BY-NAME tokens";
        let named = |sentinel: &Node| sentinel.query::<(String, u16)>(ask).ok();
        let named: Vec<_> = set.sentinels.iter().filter_map(named).collect();
        let [(_, port), rest @ ..] = &named[..] else {
            return;
        };
        if rest.len() < 2 || rest.iter().any(|(_, other)| other != port) {
            return;
        }
        for server in set.servers.iter().filter(|server| server.port != *port) {
            let _ = server.query::<()>(&format!("REPLICAOF 127.0.0.1 {port}"));
        }
    }

    /// Who the masters are, as far as they answer.
    pub(crate) fn masters(&mut self) -> Vec<bool> {
        self.nodes().iter().map(Node::is_master).collect()
    }
}
