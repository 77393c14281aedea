//! What only PostgreSQL does.

use std::net::Ipv4Addr;
use std::time::Duration;

use common::feed::Listener;
use common::postgres::PostgresServer;
use common::proxy::Proxy;
use common::store::{commit_of, load_one};
use tower_token_cache::store::CommitId;
use tower_token_cache::store::conformance::{self, Harness};
use tower_token_cache::{PostgresStore, StoreErrorKind, TokenStore};

use super::server::{PATIENCE, Server, hex, partition, reasons, send, version};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn postgres_store_conforms() {
    let server = PostgresServer::shared();
    let (store, _) = Server::store(&*server, PATIENCE).await;
    conformance::all(&Harness::real_time(store)).await;
}

/// All commits of a group are one transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_one_transaction() {
    let server = PostgresServer::start();
    let (store, _) = Server::store(&server, PATIENCE).await;
    send(&store, &commit_of(&partition("first"), [1; 8], 1, "value"))
        .await
        .unwrap();
    let transaction = || -> u64 {
        let id = server.query("SELECT pg_current_xact_id()");
        id[0].parse().unwrap()
    };
    for number in [1_u8, 2] {
        // The sweep has a transaction of its own.
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let before = transaction();
            let group: Vec<_> = (0..64)
                .map(|at| commit_of(&partition(&format!("{at}")), [number; 8], 1, "value"))
                .collect();
            for outcome in store.commit(&group).await {
                assert!(version(outcome) >= 1);
            }
            if transaction() - before == 2 {
                break;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "more than one transaction"
            );
        }
    }
}

/// Whoever changes a row: all are told.
#[tokio::test(flavor = "multi_thread")]
async fn changes_by_hand_are_told() {
    let server = PostgresServer::shared();
    let (store, prefix) = Server::store(&*server, PATIENCE).await;
    let one = partition("one");
    send(&store, &commit_of(&one, [1; 8], 1, "value"))
        .await
        .unwrap();
    let mut listener = Listener::on(&store, "test").await;
    store
        .touch(std::slice::from_ref(&one))
        .await
        .remove(0)
        .unwrap();
    assert!(
        !listener.until_now().await.names(&one),
        "a touch is no change"
    );
    let id = hex(&one, "postgres");
    server.query(&format!(
        "UPDATE {prefix}partitions SET version = version + 1 WHERE id = {id}"
    ));
    assert!(listener.until_now().await.names(&one));
    server.query(&format!("DELETE FROM {prefix}partitions WHERE id = {id}"));
    assert!(listener.until_now().await.names(&one));
    let left = server.query(&format!("SELECT count(*) FROM {prefix}entries"));
    assert_eq!(left, ["0"], "a partition is deleted with its entries");
    server.query(&format!("TRUNCATE {prefix}partitions CASCADE"));
    assert!(listener.until_now().await.everything);
}

/// More than fit into a payload are told by name, and far more as a whole.
#[tokio::test(flavor = "multi_thread")]
async fn any_number_of_changes_is_told() {
    let server = PostgresServer::shared();
    let (store, prefix) = Server::store(&*server, PATIENCE).await;
    let mut listener = Listener::on(&store, "test").await;
    let insert = |from: u32, to: u32| {
        server.query(&format!(
            "INSERT INTO {prefix}partitions SELECT sha256(i::text::bytea), 1, 0, 1, 0, NULL, NULL, NULL, NULL, NULL, \
             '', NULL FROM generate_series({from}, {to}) i"
        ))
    };
    insert(1, 10_000);
    let told = listener.until_now().await;
    assert_eq!((told.changed.len(), told.everything), (10_000, false));
    insert(10_001, 20_001);
    assert!(listener.until_now().await.everything);
}

/// A server that takes no writes says so, and answers reads.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_read_only_refuses_changes() {
    let server = PostgresServer::start();
    let (store, prefix) = Server::store(&server, PATIENCE).await;
    send(&store, &commit_of(&partition("a"), [1; 8], 1, "value"))
        .await
        .unwrap();
    server.query("ALTER DATABASE tokens SET default_transaction_read_only = on");
    let url = server.url();
    let store = <PostgresServer as Server>::connect(&url, &prefix, PATIENCE)
        .await
        .unwrap();
    let refused = send(&store, &commit_of(&partition("a"), [2; 8], 1, "value"))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Refused);
    assert!(
        reasons(&refused).contains("read-only"),
        "{}",
        reasons(&refused)
    );
    assert_eq!(load_one(&store, &partition("a")).await.unwrap().version, 1);
    server.query(
        "BEGIN READ WRITE; ALTER DATABASE tokens RESET default_transaction_read_only; COMMIT",
    );
    // Connections of before are found out one by one.
    let commit = commit_of(&partition("a"), [3; 8], 1, "value");
    common::eventually("it writes", async || send(&store, &commit).await.is_ok()).await;
}

/// Also by plans that were made while the tables were empty.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_found_by_an_index() {
    const CHANGES: u64 = 100;
    let server = PostgresServer::shared();
    let (store, prefix) = Server::store(&*server, PATIENCE).await;
    for number in 0..CHANGES {
        let partition = partition(&number.to_string());
        let commit = commit_of(&partition, [1; 8], 1, "value");
        send(&store, &commit).await.unwrap();
        load_one(&store, &partition).await.unwrap();
    }
    // The server counts what a connection has done when that ends.
    drop(store);
    let scans = |kind: &str| -> u64 {
        let tables = format!("relname IN ('{prefix}partitions', '{prefix}entries')");
        let count = format!("SELECT sum({kind}) FROM pg_stat_user_tables WHERE {tables}");
        server.query(&count).concat().parse().unwrap()
    };
    common::eventually("it is counted", async || scans("idx_scan") >= CHANGES).await;
    let whole = scans("seq_scan");
    assert!(whole < CHANGES / 2, "tables were read whole {whole} times");
}

/// The server compiles no statement before it runs it, which takes longer than a sweep may.
#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_takes_no_longer_than_its_answer_may() {
    let server = PostgresServer::start();
    server.query("ALTER ROLE tokens SET jit = on");
    let (store, prefix) = Server::store(&server, PATIENCE).await;
    let over = commit_of(&partition("over"), [1; 8], 1, "value");
    version(send(&store, &over).await);
    let sweeps = async |number: u32| {
        let url = server.url();
        let hurried = <PostgresServer as Server>::build(&url, &prefix, SECOND / 4).unwrap();
        let live = commit_of(&partition(&format!("{number}")), [1; 8], 1, "value");
        send(&hurried, &live).await.is_ok()
    };
    server.query(&format!("UPDATE {prefix}partitions SET purge_hour = 1"));
    let left = format!("SELECT count(*) FROM {prefix}partitions WHERE purge_hour = 1");
    let mut number = 0;
    common::eventually("it is freed", async || {
        number += 1;
        sweeps(number).await;
        tokio::time::sleep(SECOND / 4).await;
        server.query(&left) == ["0"]
    })
    .await;
}

/// The primary is killed, and the standby takes over.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_takes_over_is_found() {
    let mut primary = PostgresServer::start();
    let standby = primary.standby();
    let (road, url) = Proxy::before(&primary.url()).await;
    let store = PostgresStore::builder(&url).build().unwrap();
    store.migrate().await.unwrap();
    let refused = PostgresStore::builder(standby.url())
        .connect(PATIENCE)
        .await
        .unwrap_err();
    assert!(
        reasons(&refused).contains("standby"),
        "{}",
        reasons(&refused)
    );

    let mut listener = Listener::on(&store, "test").await;
    let (kept, ended) = (partition("kept"), partition("ended"));
    for partition in [&kept, &ended] {
        send(&store, &commit_of(partition, [1; 8], 1, "value"))
            .await
            .unwrap();
    }
    store.clear(&ended, None, CommitId([2; 8])).await.unwrap();
    primary.kill();
    standby.promote();
    road.lead_to((Ipv4Addr::LOCALHOST, standby.port()).into());
    listener.begins_again().await;
    common::eventually("the store finds it", async || {
        load_one(&store, &kept).await.is_ok()
    })
    .await;
    let commit = commit_of(&kept, [3; 8], 1, "after");
    assert_eq!(version(send(&store, &commit).await), 2);
    let ended = load_one(&store, &ended).await.unwrap();
    assert_eq!(
        (ended.generation, ended.entries.len()),
        (1, 0),
        "a sign-out outlives a failover"
    );
    assert!(listener.until_now().await.names(&kept));
}
