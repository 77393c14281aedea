//! What the integration tests share: real servers, a store that counts and fails, and waiting.

pub mod browser;
pub mod cas;
pub mod certificates;
pub mod client_key;
pub mod disk;
pub mod dropped;
pub mod far;
pub mod feed;
pub mod http_client;
pub mod issuer;
pub mod leaks;
pub mod mariadb;
pub mod memcached;
pub mod oidc;
pub mod own_process;
pub mod playground;
pub mod postgres;
pub mod process;
pub mod provider;
pub mod proxy;
pub mod random;
pub mod redis;
pub mod stepping;
pub mod store;
pub mod support;
pub mod topologies;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tower_token_cache::Durability;

/// Waits until `check` holds. For things that happen outside of this process's control; fails
/// loudly after ten seconds.
pub async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !check().await {
        assert!(Instant::now() < deadline, "did not happen: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What `future` comes to. For what comes from another task or process, and stays away where that has failed: without a
/// limit the test would hang, and not fail. Fails loudly after half a minute.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    let soon = tokio::time::timeout(Duration::from_secs(30), future).await;
    soon.unwrap_or_else(|_| panic!("did not happen: {what}"))
}

/// Lets this process have as many connections as the system allows, and the ones it starts.
pub fn many_connections() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("up to the maximum it is allowed");
}

/// A port that was free a moment ago. This process is given it once, and the system gives it to no connection: a
/// server that comes back finds it free.
pub fn free_port() -> u16 {
    /// Below the ports of connections; a node of a Redis cluster takes the one 10,000 above, too.
    const PORTS: std::ops::Range<u16> = 10_000..20_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Processes begin far from each other.
    let begin = std::process::id().wrapping_mul(2_654_435_761) >> 8;
    let count = u32::from(PORTS.end - PORTS.start);
    (0..count)
        .map(|_| GIVEN.fetch_add(1, Ordering::Relaxed))
        .map(|given| PORTS.start + (begin.wrapping_add(given) % count) as u16)
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

/// What was done is in the store.
#[track_caller]
pub fn assert_stored(durability: Durability) {
    assert_eq!(durability, Durability::Stored);
}
