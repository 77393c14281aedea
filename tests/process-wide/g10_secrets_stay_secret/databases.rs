//! SQL databases: what they hold, and what their errors say when a password is wrong, tables are gone, or they die.

use std::time::Duration;

use common::mariadb::MariaDbServer;
use common::postgres::PostgresServer;
use tower_token_cache::{
    ConfigError, L1, MySqlStore, PostgresStore, Secret, StoreError, StoreErrorKind, Timeouts,
};

use super::evidence::Evidence;
use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(200);

pub(crate) async fn travel(evidence: &Evidence) {
    let mut server = PostgresServer::start();
    server.query(&format!(
        "CREATE ROLE secure LOGIN PASSWORD '{DATABASE_PASSWORD}'; GRANT CREATE ON SCHEMA public TO secure"
    ));
    let user = |password: &str| {
        server
            .url()
            .replace("tokens@", &format!("secure:{password}@"))
    };
    let (good, wrong) = (user(DATABASE_PASSWORD), user(PASSWORD));
    addresses(
        evidence,
        |url| PostgresStore::builder(url).build().map(drop),
        &good,
    );
    let builder = PostgresStore::builder(&*good);
    evidence.debug("a builder", &builder);
    let store = builder.build().unwrap();
    evidence.debug("a store", &(&store, store.statements()));
    evidence.outcome("a migration", store.migrate().await);
    let ask = async || Ok::<_, StoreError>(Secret::from(PASSWORD));
    let asking = PostgresStore::builder(&*good).credentials(ask);
    evidence.debug("a builder", &asking);
    evidence.error("a password", &asking.connect(SHORT).await.unwrap_err());
    let connected = PostgresStore::builder(&*wrong).connect(SHORT).await;
    evidence.error("a password", &connected.unwrap_err());
    let refused = PostgresStore::builder(&*wrong).build().unwrap();
    evidence.outcome("a migration", refused.migrate().await);
    use_up(evidence, refused).await;
    journey(evidence, &store, "PostgreSQL", &|| {
        server.query("SELECT encode(value, 'hex') FROM token_cache_entries")
    })
    .await;
    server.query("ALTER TABLE token_cache_entries RENAME COLUMN value TO gone");
    use_up(evidence, store.clone()).await;
    server.kill();
    use_up(evidence, store).await;

    let server = MariaDbServer::start();
    server.query_as_root(&format!(
        "CREATE USER secure@'127.0.0.1' IDENTIFIED BY '{DATABASE_PASSWORD}'; GRANT ALL ON tokens.* TO secure@'127.0.0.1'"
    ));
    let user = |password: &str| {
        server
            .url()
            .replace("tokens:local@", &format!("secure:{password}@"))
    };
    let (good, wrong) = (user(DATABASE_PASSWORD), user(PASSWORD));
    assert!(good.contains("secure"), "{good}");
    addresses(
        evidence,
        |url| MySqlStore::builder(url).build().map(drop),
        &good,
    );
    let builder = MySqlStore::builder(&*good);
    evidence.debug("a builder", &builder);
    let store = builder.build().unwrap();
    evidence.debug("a store", &(&store, store.statements()));
    evidence.outcome("a migration", store.migrate().await);
    let connected = MySqlStore::builder(&*wrong).connect(SHORT).await;
    evidence.error("a password", &connected.unwrap_err());
    use_up(evidence, MySqlStore::builder(&*wrong).build().unwrap()).await;
    journey(evidence, &store, "MariaDB", &|| {
        server.query("SELECT HEX(value) FROM token_cache_entries")
    })
    .await;
    server.query("DROP TABLE token_cache_entries");
    use_up(evidence, store.clone()).await;
    drop(server);
    use_up(evidence, store).await;
}

/// URLs with a password that cannot be used.
fn addresses(evidence: &Evidence, build: impl Fn(&str) -> Result<(), ConfigError>, good: &str) {
    let (scheme, rest) = good.split_once("://").unwrap();
    for bad in [
        format!("redis://{rest}"),
        format!("{scheme}:{rest}"),
        format!("{good}?password={DATABASE_PASSWORD}&nonsense={PASSWORD}"),
        // A password that should have been percent-encoded.
        format!("{scheme}://user:{DATABASE_PASSWORD}/{PASSWORD}@host/tokens"),
        format!("{scheme}://user:{DATABASE_PASSWORD}?{PASSWORD}@host/tokens"),
        format!("{scheme}://user:{DATABASE_PASSWORD}#{PASSWORD}@host/tokens"),
        format!("{scheme}://user:{DATABASE_PASSWORD}@[:99999/tokens"),
        format!("{scheme}://user:{DATABASE_PASSWORD}@host:{PASSWORD}/tokens"),
    ] {
        if let Err(error) = build(&bad) {
            evidence.error("an address", &error);
        }
    }
}

/// What applications do, with encryption and without.
async fn journey<S: TokenStore + Clone>(
    evidence: &Evidence,
    store: &S,
    what: &str,
    at_rest: &dyn Fn() -> Vec<String>,
) {
    for sealed in [true, false] {
        let cache = build(store.clone(), FailurePolicy::Strict, sealed).await;
        journeys::travel(evidence, &cache).await;
        cache.shutdown(PATIENCE).await;
        evidence.at_rest(what, at_rest().join("\n").as_bytes(), sealed);
    }
}

/// All operations of a store that does not work.
async fn use_up(evidence: &Evidence, store: impl TokenStore) {
    let timeouts = Timeouts::new().attempt(SHORT).operation(2 * SHORT);
    let cache = builder(store)
        .failure_policy(FailurePolicy::Strict)
        .l1(L1::disabled())
        .timeouts(timeouts)
        .build()
        .unwrap();
    let handle = cache.tokens(session(SESSION));
    evidence.outcome("get", handle.get("graph").await);
    evidence.outcome("insert", handle.insert("graph", tokens()).await);
    evidence.outcome("commit", handle.commit().await);
    evidence.outcome("link_user", handle.link_user(USER).await);
    evidence.outcome("sign_out", handle.sign_out().await);
    evidence.outcome("sign_out_user", cache.sign_out_user(USER).await);
    evidence.debug("health", &cache.check(SHORT).await);
    evidence.debug("a shutdown", &cache.shutdown(SHORT).await);
    evidence.error("an error", &StoreError::new(StoreErrorKind::Unreachable));
}
