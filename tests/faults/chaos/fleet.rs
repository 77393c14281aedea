//! Three processes on real servers. Each reaches a single one through a proxy of its own. The nodes of a
//! cluster name each other, and so do sentinels: there is none before them.

use super::servers::Servers;
use common::playground::{PLAYGROUNDS, Playground};
use common::provider::{CLIENT_ID, CLIENT_SECRET, Provider};
use common::proxy::{Mode, Proxy};

pub(crate) const PROCESSES: usize = 3;
/// How long a process may keep others from the provider, in seconds.
const LEASE: &str = "10";

pub(crate) struct Process {
    pub(crate) playground: Playground,
    /// Between it and its store.
    pub(crate) store: Option<Proxy>,
}

impl Process {
    /// Process number `number`; which framework serves it depends on that.
    pub(crate) async fn start(number: usize, servers: &Servers, provider: &Provider) -> Self {
        let url = servers.url();
        let (store, store_url) = match servers {
            Servers::One(_) => {
                let (store, store_url) = Proxy::before(&url).await;
                (Some(store), store_url)
            }
            Servers::Cluster(_) | Servers::Sentinel(_) => (None, url),
        };
        let issuer = provider.issuer(&number.to_string());
        let options = [
            ["--store", &store_url],
            ["--lease", LEASE],
            ["--issuer", &issuer],
            ["--client-id", CLIENT_ID],
            ["--client-secret", CLIENT_SECRET],
        ];
        let example = PLAYGROUNDS[number % PLAYGROUNDS.len()];
        let playground = Playground::start(example, options.as_flattened());
        Self { playground, store }
    }

    /// Ends what the proxies do; connections that lead nowhere are replaced.
    pub(crate) async fn heal(&self) {
        if let Some(proxy) = &self.store {
            proxy.set(Mode::Pass);
            proxy.reset().await;
        }
    }

    /// Whether nothing is left of an outage: L2 is asked, what changes is told, nothing waits.
    pub(crate) async fn has_recovered(&self) -> bool {
        // Somebody has to ask L2, or nobody notices that it is back.
        self.playground.get("nobody", "/tokens/probe").await;
        let Some(status) = self.playground.try_status().await else {
            return false;
        };
        status["l2_state"] == "closed"
            && status["feed_alive"] == true
            && status["pending_changes"] == 0
    }
}
