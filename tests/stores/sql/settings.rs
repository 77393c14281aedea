//! Tables, users, passwords and URLs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::feed::Listener;
use common::mariadb::MariaDbServer;
use common::postgres::PostgresServer;
use common::store::{commit_of, load_one};
use common::topologies::Certificates;
use tower_token_cache::seal::KeyRepository;
use tower_token_cache::store::conformance::{self, Harness};
use tower_token_cache::{
    ConfigError, KeyRing, MySqlStore, PostgresStore, Secret, StoreError, StoreErrorKind, TokenStore,
};

use crate::sealed::key;

use super::server::{PATIENCE, Server, new_prefix, on_both, partition, reasons, send, version};

on_both! {
    tables_must_be_there_and_of_this_version
    a_dba_can_make_the_tables
    instances_can_make_the_tables_at_the_same_time
    what_cannot_be_named_is_an_error
}

const SECOND: Duration = Duration::from_secs(1);

async fn tables_must_be_there_and_of_this_version<S: Server>() {
    let server = S::shared();
    let prefix = new_prefix();
    let missing = S::connect(&server.url(), &prefix, PATIENCE)
        .await
        .err()
        .unwrap();
    assert_eq!(missing.option(), "url");
    assert!(
        reasons(&missing).contains("call `migrate`"),
        "{}",
        reasons(&missing)
    );
    let store = S::build(&server.url(), &prefix, PATIENCE).unwrap();
    let refused = load_one(&store, &partition("a")).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Refused);
    S::migrate(&store).await.unwrap();
    load_one(&store, &partition("a")).await.unwrap();
    server.query(&format!("UPDATE {prefix}schema SET version = 7"));
    let other = S::connect(&server.url(), &prefix, PATIENCE)
        .await
        .err()
        .unwrap();
    assert!(
        reasons(&other).contains("of version 7, and not 2"),
        "{}",
        reasons(&other)
    );
}

async fn a_dba_can_make_the_tables<S: Server>() {
    let server = S::shared();
    let prefix = new_prefix();
    let store = S::build(&server.url(), &prefix, PATIENCE).unwrap();
    for _ in 0..2 {
        for statement in S::statements(&store) {
            server.query(&statement);
        }
    }
    let store = S::connect(&server.url(), &prefix, PATIENCE).await.unwrap();
    send(&store, &commit_of(&partition("a"), [1; 8], 1, "value"))
        .await
        .unwrap();
    // What is there stays.
    S::migrate(&store).await.unwrap();
    assert_eq!(load_one(&store, &partition("a")).await.unwrap().version, 1);
}

async fn instances_can_make_the_tables_at_the_same_time<S: Server>() {
    let server = S::shared();
    let prefix = new_prefix();
    let all = (0..6).map(|_| {
        let store = S::build(&server.url(), &prefix, PATIENCE).unwrap();
        tokio::spawn(async move { S::migrate(&store).await })
    });
    for task in all.collect::<Vec<_>>() {
        task.await.unwrap().unwrap();
    }
    S::connect(&server.url(), &prefix, PATIENCE).await.unwrap();
}

async fn what_cannot_be_named_is_an_error<S: Server>() {
    let server = S::shared();
    let url = server.url();
    let option = |url: &str, prefix: &str, timeout| -> &'static str {
        S::build(url, prefix, timeout)
            .err()
            .expect("an error")
            .option()
    };
    for prefix in ["", "Tokens", "1_", "a b", "a\"", "a`", "ä", &"a".repeat(33)] {
        assert_eq!(option(&url, prefix, SECOND), "table_prefix", "{prefix}");
    }
    assert_eq!(option(&url, "a_", Duration::ZERO), "response_timeout");
    let bad = [
        "redis://localhost/tokens".into(),
        "tokens".into(),
        format!("{url}?sslmoed=verify-full"),
        format!("{url}?sslmode=perhaps"),
    ];
    for url in bad {
        assert_eq!(option(&url, "a_", SECOND), "url", "{url}");
    }
    // An unknown host and an unknown database are told by the source.
    let port = url.rsplit_once(':').unwrap().1;
    let nowhere = url.replace("127.0.0.1", "nowhere.invalid");
    for (url, reason) in [(nowhere, "lookup"), (format!("{}x", &url), "tokensx")] {
        let failed = S::connect(&url, "a_", SECOND / 10)
            .await
            .err()
            .expect("an error");
        let reasons = reasons(&failed);
        assert!(
            reasons.contains(reason) && !reasons.contains("local:"),
            "{port}: {reasons}"
        );
    }
}

#[test]
fn neither_urls_nor_passwords_are_shown() {
    let builder = PostgresStore::builder("postgres://tokens:hush@localhost/tokens");
    assert!(!format!("{builder:?}").contains("hush"));
    let store = builder.build().unwrap();
    assert!(!format!("{store:?}").contains("hush"));
    let none = MySqlStore::builder("mysql://tokens:hush@localhost").build();
    let error = none.unwrap_err();
    assert_eq!(error.option(), "url");
    assert!(!format!("{error:?}").contains("hush"));
    let none = MySqlStore::builder("mysql://localhost/tokens")
        .connections(0)
        .build();
    assert_eq!(none.unwrap_err().option(), "connections");
    let none = MySqlStore::builder("mysql://localhost/tokens")
        .schema("A")
        .build();
    assert_eq!(none.unwrap_err().option(), "schema");
}

/// What the documentation says are the least rights, and a password that changes while it runs.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_needs_no_more_rights_than_those() {
    let server = PostgresServer::start();
    server.query("CREATE SCHEMA auth; CREATE ROLE secure LOGIN PASSWORD 'first'");
    let owner = PostgresStore::builder(server.url())
        .schema("auth")
        .build()
        .unwrap();
    owner.migrate().await.unwrap();
    server.query(
        "GRANT USAGE ON SCHEMA auth TO secure; GRANT SELECT ON auth.token_cache_schema TO secure; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON auth.token_cache_partitions, auth.token_cache_entries, \
         auth.token_cache_leases TO secure; GRANT SELECT, INSERT ON auth.token_cache_keys TO secure",
    );
    let url = server.url().replace("tokens@", "secure:wrong@");
    let wrong = PostgresStore::builder(&url)
        .schema("auth")
        .connect(PATIENCE)
        .await;
    denied(wrong.map(drop));
    let passwords: [&'static str; 2] = ["first", "second"];
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let source = move || async move {
        let asked = ASKED.fetch_add(1, Ordering::SeqCst);
        Ok::<_, StoreError>(Secret::from(passwords[asked.min(1)].to_string()))
    };
    let builder = PostgresStore::builder(&url).schema("auth").connections(1);
    let store = builder.credentials(source).build().unwrap();
    conformance::values_come_back_as_they_were(&Harness::real_time(store.clone())).await;
    keeps_keys(store.keys("ttc")).await;
    server.query("ALTER ROLE secure PASSWORD 'second'");
    server.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'secure'");
    works(&store).await;
    assert_eq!(ASKED.load(Ordering::SeqCst), 2);
    server.query("ALTER ROLE secure CONNECTION LIMIT 1");
    works(&store).await;
    let other = PostgresStore::builder(server.url().replace("tokens@", "secure:second@"));
    let full = other.schema("auth").build().unwrap();
    let full = load_one(&full, &partition("a")).await.unwrap_err();
    assert_eq!(full.kind(), StoreErrorKind::Unreachable);
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_needs_no_more_rights_than_those() {
    let server = MariaDbServer::start();
    MySqlStore::builder(server.url())
        .build()
        .unwrap()
        .migrate()
        .await
        .unwrap();
    let mut grants = String::from("CREATE USER secure@'127.0.0.1' IDENTIFIED BY 'first';");
    for (rights, table) in [
        ("SELECT", "schema"),
        ("SELECT, INSERT, UPDATE, DELETE", "partitions"),
        ("SELECT, INSERT, UPDATE, DELETE", "entries"),
        ("SELECT, INSERT, UPDATE, DELETE", "leases"),
        ("SELECT, INSERT, DELETE", "changes"),
        ("SELECT, INSERT", "keys"),
    ] {
        grants += &format!("GRANT {rights} ON tokens.token_cache_{table} TO secure@'127.0.0.1';");
    }
    server.query_as_root(&grants);
    let url = |password: &str| {
        server
            .url()
            .replace("tokens:local@", &format!("secure:{password}@"))
    };
    let wrong = MySqlStore::builder(url("wrong")).connect(PATIENCE).await;
    denied(wrong.map(drop));
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let source = async || {
        let passwords = ["first", "second"];
        let asked = ASKED.fetch_add(1, Ordering::SeqCst);
        Ok::<_, StoreError>(Secret::from(passwords[asked.min(1)].to_string()))
    };
    let builder = MySqlStore::builder(url("wrong")).connections(1);
    let store = builder.credentials(source).build().unwrap();
    works(&store).await;
    keeps_keys(store.keys("ttc")).await;
    server.query_as_root("ALTER USER secure@'127.0.0.1' IDENTIFIED BY 'second'");
    let sessions = "SELECT id FROM information_schema.processlist WHERE user = 'secure'";
    let end_all = async || {
        for id in server.query_as_root(sessions) {
            server.query_as_root(&format!("KILL {id}"));
        }
        common::eventually("they end", async || {
            server.query_as_root(sessions).is_empty()
        })
        .await;
    };
    end_all().await;
    works(&store).await;
    assert_eq!(ASKED.load(Ordering::SeqCst), 2);
    server.query_as_root("ALTER USER secure@'127.0.0.1' WITH MAX_USER_CONNECTIONS 1");
    // Sessions of before do not count.
    end_all().await;
    works(&store).await;
    let full = MySqlStore::builder(url("second")).build().unwrap();
    let full = load_one(&full, &partition("a")).await.unwrap_err();
    assert_eq!(full.kind(), StoreErrorKind::Unreachable);
}

fn denied(connected: Result<(), ConfigError>) {
    let error = connected.unwrap_err();
    assert_eq!(error.option(), "url");
    let reasons = reasons(&error).to_lowercase();
    let is_told =
        reasons.contains("password authentication failed") || reasons.contains("access denied");
    assert!(is_told && !reasons.contains("wrong"), "{reasons}");
}

async fn works(store: &impl TokenStore) {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::SeqCst) as u64;
    let name = partition(&format!("works {number}"));
    let commit = commit_of(&name, number.to_be_bytes(), 1, "value");
    assert_eq!(version(send(store, &commit).await), 1);
    store
        .clear(&name, None, tower_token_cache::store::CommitId([9; 8]))
        .await
        .unwrap();
}

async fn keeps_keys(repository: impl KeyRepository) {
    let ring = KeyRing::open_in_store(repository, key(1)).await.unwrap();
    ring.rotate().await.unwrap();
    ring.refresh().await.unwrap();
    assert_eq!(ring.keys().len(), 2);
}

/// Encrypted, to a server that is known by its certificate, and to no other.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_reached_over_tls() {
    let (ours, other) = (Certificates::make(), Certificates::make());
    let server = PostgresServer::start_encrypted(&ours);
    let url = |authority: &Certificates| {
        let url = server.url().replace("127.0.0.1", "localhost");
        let file = authority.path("ca.pem");
        format!("{url}?sslmode=verify-full&sslrootcert={}", file.display())
    };
    let store = PostgresStore::builder(url(&ours)).build().unwrap();
    store.migrate().await.unwrap();
    works(&store).await;
    Listener::on(&store, "test").await;
    let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE application_name = 'tower-token-cache'";
    assert_eq!(server.query(encrypted), ["t"]);
    for url in [url(&other), server.url() + "?sslmode=verify-full"] {
        let refused = PostgresStore::builder(url)
            .connect(SECOND)
            .await
            .unwrap_err();
        assert!(
            reasons(&refused).contains("certificate"),
            "{}",
            reasons(&refused)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_is_reached_over_tls() {
    let (ours, other) = (Certificates::make(), Certificates::make());
    let server = MariaDbServer::start_encrypted(&ours);
    server.query_as_root("ALTER USER tokens@'127.0.0.1' REQUIRE SSL");
    let url = |authority: &Certificates| {
        let url = server.url().replace("127.0.0.1", "localhost");
        let file = authority.path("ca.pem");
        format!("{url}?ssl-mode=verify_identity&ssl-ca={}", file.display())
    };
    let store = MySqlStore::builder(url(&ours)).build().unwrap();
    store.migrate().await.unwrap();
    works(&store).await;
    Listener::on(&store, "test").await;
    for url in [url(&other), server.url() + "?ssl-mode=verify_identity"] {
        let refused = MySqlStore::builder(url).connect(SECOND).await.unwrap_err();
        assert!(
            reasons(&refused).contains("certificate"),
            "{}",
            reasons(&refused)
        );
    }
    let plain = MySqlStore::builder(server.url() + "?ssl-mode=disabled");
    denied(plain.connect(SECOND).await.map(drop));
}
