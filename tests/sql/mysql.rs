//! `MySqlStore` on MariaDB.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::mariadb::MariaDbServer;
use tower_token_cache::MySqlStore;
use tower_token_cache::store::conformance::{self, Harness};

const PATIENCE: Duration = Duration::from_secs(20);

/// A store with tables of its own, in the server that all share.
async fn store() -> (Arc<MariaDbServer>, MySqlStore) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let server = MariaDbServer::shared();
    let prefix = format!("t{}_", NUMBER.fetch_add(1, Ordering::Relaxed));
    let builder = || MySqlStore::builder(server.url()).table_prefix(&prefix);
    builder().build().unwrap().migrate().await.unwrap();
    let store = builder().connect(PATIENCE).await.unwrap();
    (server, store)
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_store_conforms() {
    let (_server, store) = store().await;
    conformance::all(&Harness::real_time(store)).await;
}
