//! What only MySQL and MariaDB do.

use common::feed::Listener;
use common::mariadb::MariaDbServer;
use common::store::{commit_of, load_one};
use tower_token_cache::store::conformance::{self, Harness};
use tower_token_cache::{StoreErrorKind, TokenStore};

use super::server::{Foreign, PATIENCE, Server, hex, partition, send, version};

#[tokio::test(flavor = "multi_thread")]
async fn mysql_store_conforms() {
    let server = MariaDbServer::shared();
    let (store, _) = Server::store(&*server, PATIENCE).await;
    conformance::all(&Harness::real_time(store)).await;
}

/// A group is one transaction, and its round-trips do not depend on its size.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_one_transaction() {
    let server = MariaDbServer::start();
    let (store, _) = Server::store(&server, PATIENCE).await;
    send(&store, &commit_of(&partition("first"), [1; 8], 1, "value"))
        .await
        .unwrap();
    let count = |name: &str| -> u64 {
        let row = server.query_as_root(&format!("SHOW GLOBAL STATUS LIKE '{name}'"));
        row[0].rsplit_once('|').unwrap().1.parse().unwrap()
    };
    let mut executions = Vec::new();
    for size in [2, 64] {
        for id in [[1; 8], [2; 8]] {
            let group: Vec<_> = (0..size)
                .map(|at| commit_of(&partition(&format!("{size} {at}")), id, 1, "value"))
                .collect();
            let before = (count("Com_commit"), count("Com_stmt_execute"));
            for outcome in store.commit(&group).await {
                version(outcome);
            }
            let after = (count("Com_commit"), count("Com_stmt_execute"));
            assert_eq!(after.0 - before.0, 1);
            executions.push(after.1 - before.1);
        }
    }
    // The groups that begin partitions, and those that change them.
    assert_eq!(
        (executions[0], executions[1]),
        (executions[2], executions[3])
    );
    assert!(executions.iter().all(|count| *count <= 4), "{executions:?}");
}

/// What commits late, under a number that others have passed, is told all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_late_is_told() {
    let server = MariaDbServer::shared();
    let (store, prefix) = Server::store(&*server, PATIENCE).await;
    let (late, other) = (partition("late"), partition("other"));
    let mut listener = Listener::on(&store, "test").await;
    let id = hex(&late, "mariadb");
    let slow = format!("BEGIN; INSERT INTO {prefix}changes (partition_id) VALUES ({id})");
    let slow = Foreign::after(&*server, &slow);
    send(&store, &commit_of(&other, [1; 8], 1, "value"))
        .await
        .unwrap();
    let told = listener.until_now().await;
    assert!(told.names(&other) && !told.names(&late));
    slow.end("COMMIT");
    assert!(listener.until_now().await.names(&late));
}

/// As on a node of a Galera cluster: the numbers of changes have gaps, in which nothing is still to come.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_leaves_gaps_between_numbers_is_heard() {
    let server = MariaDbServer::start();
    server.query_as_root(
        "SET GLOBAL auto_increment_increment = 7; SET GLOBAL auto_increment_offset = 3",
    );
    let (store, _) = Server::store(&server, PATIENCE).await;
    let mut listener = Listener::on(&store, "test").await;
    for round in 0..40 {
        let group: Vec<_> = (0..64)
            .map(|at| commit_of(&partition(&format!("{round} {at}")), [1; 8], 1, "value"))
            .collect();
        for outcome in store.commit(&group).await {
            version(outcome);
        }
        let told = listener.until_now().await;
        assert_eq!((told.changed.len(), told.lost), (64, false), "{round}");
    }
}

/// What the documentation says is to be done after a change by hand.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_by_hand_can_be_told() {
    let server = MariaDbServer::shared();
    let (store, prefix) = Server::store(&*server, PATIENCE).await;
    let mut listener = Listener::on(&store, "test").await;
    server.query(&format!(
        "INSERT INTO {prefix}changes (partition_id) VALUES ('')"
    ));
    assert!(listener.until_now().await.everything);
}

/// A value that no packet holds is refused, and the others of its group are stored.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_packet_holds_is_too_large() {
    let server = MariaDbServer::start();
    server.query_as_root("SET GLOBAL max_allowed_packet = 1048576");
    let (store, _) = Server::store(&server, PATIENCE).await;
    let group = [
        commit_of(&partition("large"), [1; 8], 1, vec![7; 1 << 20]),
        commit_of(&partition("small"), [1; 8], 1, vec![7; 600 << 10]),
        commit_of(&partition("other"), [1; 8], 1, vec![7; 600 << 10]),
    ];
    let mut answers = store.commit(&group).await.into_iter();
    let refused = answers.next().unwrap().unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::TooLarge);
    answers.for_each(|answer| assert_eq!(version(answer), 1));
    let loaded = load_one(&store, &partition("other")).await.unwrap();
    assert_eq!(loaded.entries[0].value.len(), 600 << 10);
}

/// It may have become a replica: nothing is read from it any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_becomes_read_only_is_not_believed() {
    let server = MariaDbServer::start();
    let (store, _) = Server::store(&server, PATIENCE).await;
    let a = partition("a");
    send(&store, &commit_of(&a, [1; 8], 1, "value"))
        .await
        .unwrap();
    let mut listener = Listener::on(&store, "test").await;
    server.query_as_root("SET GLOBAL read_only = 1");
    let refused = load_one(&store, &a).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Refused);
    let refused = send(&store, &commit_of(&a, [2; 8], 1, "value"))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Refused);
    listener.until_lost().await;
    server.query_as_root("SET GLOBAL read_only = 0");
    assert_eq!(load_one(&store, &a).await.unwrap().version, 1);
    assert!(listener.until_now().await.everything);
}
