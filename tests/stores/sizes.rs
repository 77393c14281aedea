//! What users take in L1 and in each store, beside what `Estimate` says.

use common::mariadb::MariaDbServer;
use common::memcached::MemcachedServer;
use common::postgres::PostgresServer;
use common::redis::RedisServer;
use common::support::{cache, session};
use tower_token_cache::{
    Estimate, MemcachedStore, MemoryStore, MySqlStore, PostgresStore, RedisStore, SqliteStore,
    Token, TokenCache, TokenSet, TokenStore,
};

/// Enough for what a store has of its own not to count.
const USERS: u64 = 1500;

async fn fill(store: impl TokenStore, resources: u64) -> TokenCache {
    let cache = cache(store);
    let [access, other] = [4096, 2048].map(|bytes| "x".repeat(bytes));
    for user in 0..USERS {
        let tokens = cache.tokens(session(&format!("{user:032}")));
        for resource in 0..resources {
            let token = Token::new(access.as_str());
            let set = TokenSet::from(token)
                .with_refresh_token(other.as_str())
                .with_id_token(other.as_str());
            tokens
                .insert(format!("resource {resource}"), set)
                .await
                .unwrap();
        }
        if user % 100 == 99 {
            // Not so many at once that changes would have to wait for room.
            let _ = tokens.commit().await.unwrap();
        }
    }
    common::eventually("all is stored", async || cache.stats().pending_changes == 0).await;
    cache
}

fn is_about(what: &str, resources: u64, measured: u64, estimated: u64) {
    let ratio = measured as f64 / estimated as f64;
    println!(
        "{what}, {resources}: {} a user, {ratio:.2}",
        measured / USERS
    );
    assert!(
        (0.85..=1.15).contains(&ratio),
        "{what}, {resources}: {ratio:.2}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn estimates_are_what_is_measured() {
    for resources in [1, 3] {
        let estimate = Estimate::users(USERS, resources);
        let l1 = fill(MemoryStore::new(), resources).await;
        is_about("L1", resources, l1.stats().l1_bytes, estimate.l1);
        drop(l1);

        let server = RedisServer::start();
        let used = || -> u64 {
            let info: String = server.query("INFO memory");
            let line = info
                .lines()
                .find_map(|line| line.strip_prefix("used_memory_dataset:"));
            line.and_then(|bytes| bytes.trim().parse().ok())
                .expect("bytes")
        };
        let before = used();
        let store = RedisStore::connect(server.url()).await.unwrap();
        drop(fill(store, resources).await);
        is_about("Redis", resources, used() - before, estimate.redis);

        let server = PostgresServer::start();
        let store = PostgresStore::builder(server.url()).build().unwrap();
        store.migrate().await.unwrap();
        drop(fill(store, resources).await);
        let sizes = "SELECT sum(pg_total_relation_size(oid)) FROM pg_class \
                     WHERE relname IN ('token_cache_partitions', 'token_cache_entries')";
        let bytes = server.query(sizes).concat().parse().unwrap();
        is_about("PostgreSQL", resources, bytes, estimate.postgres);

        let server = MariaDbServer::start();
        let store = MySqlStore::builder(server.url()).build().unwrap();
        store.migrate().await.unwrap();
        drop(fill(store, resources).await);
        let sizes = "SELECT SUM(FILE_SIZE) FROM information_schema.INNODB_SYS_TABLESPACES \
                     WHERE NAME IN ('tokens/token_cache_partitions', 'tokens/token_cache_entries')";
        let bytes = server.query_as_root(sizes).concat().parse().unwrap();
        is_about("MariaDB", resources, bytes, estimate.mysql);

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens.db");
        let cache = fill(SqliteStore::open(&path).await.unwrap(), resources).await;
        cache.shutdown(std::time::Duration::from_secs(5)).await;
        drop(cache);
        let pages = || std::fs::metadata(&path).unwrap().len();
        let wal = path.with_extension("db-wal");
        common::eventually("the log is in the file", async || {
            !wal.exists() || std::fs::metadata(&wal).unwrap().len() < pages() / 2
        })
        .await;
        is_about("SQLite", resources, pages(), estimate.sqlite);

        let server = MemcachedServer::start();
        let store = MemcachedStore::connect(&server.url()).await.unwrap();
        drop(fill(store, resources).await);
        is_about(
            "Memcached",
            resources,
            server.stat("bytes"),
            estimate.memcached,
        );
    }
}
