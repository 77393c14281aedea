//! Three processes on real servers. Each reaches a single one through two proxies of its own: one for
//! the store, one for the backplane. The nodes of a cluster name each other, so that there only the
//! backplane, which stays with one of them, goes through a proxy; and so do sentinels.

use super::common::playground::{PLAYGROUNDS, Playground};
use super::common::provider::{CLIENT_ID, CLIENT_SECRET, Provider};
use super::common::proxy::{Mode, Proxy};
use super::servers::Servers;

pub(crate) const PROCESSES: usize = 3;
/// How long a process may keep others from the provider, in seconds.
const LEASE: &str = "10";

pub(crate) struct Process {
    pub(crate) playground: Playground,
    /// Between it and its store.
    pub(crate) store: Option<Proxy>,
    /// Between it and its backplane.
    pub(crate) plane: Option<Proxy>,
}

impl Process {
    /// Process number `number`; which framework serves it depends on that.
    pub(crate) async fn start(
        number: usize,
        servers: &Servers,
        provider: &Provider,
        variables: &[(&str, &str)],
    ) -> Self {
        let url = servers.url();
        let (store, store_url, plane, plane_url) = match servers {
            Servers::One(_) => {
                let (store, store_url) = Proxy::before(&url).await;
                let (plane, plane_url) = Proxy::before(&url).await;
                (Some(store), store_url, Some(plane), plane_url)
            }
            Servers::Cluster(cluster) => {
                // At first a replica: nodes tell each other what is published.
                let node = &cluster.nodes[PROCESSES + number];
                let node = format!("redis+cluster://127.0.0.1:{}", node.port);
                let (plane, plane_url) = Proxy::before(&node).await;
                (None, url, Some(plane), plane_url)
            }
            Servers::Sentinel(_) => (None, url, None, "on".to_owned()),
        };
        let issuer = provider.issuer(&number.to_string());
        let options = [
            ["--store", &store_url],
            ["--backplane", &plane_url],
            ["--lease", LEASE],
            ["--issuer", &issuer],
            ["--client-id", CLIENT_ID],
            ["--client-secret", CLIENT_SECRET],
        ];
        let example = PLAYGROUNDS[number % PLAYGROUNDS.len()];
        let playground = Playground::start_with(example, options.as_flattened(), variables);
        Self {
            playground,
            store,
            plane,
        }
    }

    /// Ends what the proxies do; connections that lead nowhere are replaced.
    pub(crate) async fn heal(&self) {
        for proxy in [&self.store, &self.plane].into_iter().flatten() {
            proxy.set(Mode::Pass);
            proxy.reset().await;
        }
    }

    /// Whether nothing is left of an outage: L2 is asked, others are heard of, nothing waits.
    pub(crate) async fn has_recovered(&self) -> bool {
        // Somebody has to ask L2, or nobody notices that it is back.
        self.playground.get("nobody", "/tokens/probe").await;
        let Some(status) = self.playground.try_status().await else {
            return false;
        };
        status["l2_state"] == "closed"
            && status["backplane_alive"] == true
            && status["pending_changes"] == 0
    }
}
