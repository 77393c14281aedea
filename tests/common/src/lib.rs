//! What the integration tests share: real servers, a store that counts and fails, and waiting.

pub mod browser;
pub mod cas;
pub mod certificates;
pub mod client_key;
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

/// Lets this process have as many connections as the system allows, and the ones it starts.
pub fn many_connections() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("up to the maximum it is allowed");
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    listener.local_addr().expect("an address").port()
}

/// What was done is in the store.
#[track_caller]
pub fn assert_stored(durability: Durability) {
    assert_eq!(durability, Durability::Stored);
}
