//! What a DBA sets for all connections: it changes nothing that is promised, or is an error.

use std::time::Duration;

use common::feed::Listener;
use common::mariadb::MariaDbServer;
use common::postgres::PostgresServer;
use common::store::{commit_of, load_one};
use tower_token_cache::seal::{KeyRecord, KeyRepository};
use tower_token_cache::store::{Change, CommitId, EntryId, Lease, LeaseState, Listed, Put};
use tower_token_cache::{Timestamp, TokenStore};

use super::server::{PATIENCE, Server, new_prefix, partition, reasons, send, version};

const MINUTE: Duration = Duration::from_secs(60);

/// The contract in short, between two instances that have connected since.
async fn holds<S: Server>(server: &S, case: &str) -> Result<(), String> {
    let prefix = new_prefix();
    let said = |error: tower_token_cache::StoreError| format!("{case}: {}", reasons(&error));
    let one = S::build(&server.url(), &prefix, PATIENCE).unwrap();
    S::migrate(&one).await.map_err(said)?;
    let other = S::build(&server.url(), &prefix, PATIENCE).unwrap();
    let ensure = |holds: bool, what: &str| holds.then_some(()).ok_or(format!("{case}: {what}"));

    let mut group: Vec<_> = (0..5)
        .map(|at| commit_of(&partition(&format!("{at}")), [1; 8], 1, "value"))
        .collect();
    for entry in 2..5 {
        let put = Put::new("value".as_bytes().to_vec(), None::<Timestamp>);
        group[0]
            .changes
            .push(Change::new(EntryId::from([entry; 16]), Some(put)));
    }
    for outcome in one.commit(&group).await {
        let outcome = outcome.map_err(said)?;
        ensure(version(Ok(outcome)) == 1, "a group is applied")?;
    }
    let ids: Vec<_> = group
        .iter()
        .map(|commit| commit.partition.clone())
        .collect();
    let mut entries = Vec::new();
    for loaded in other.load(&ids).await {
        entries.push(loaded.map_err(said)?.entries.len());
    }
    ensure(
        entries == [4, 1, 1, 1, 1],
        &format!("a group is read whole: {entries:?}"),
    )?;
    let again = send(&other, &commit_of(&ids[0], [2; 8], 1, "again"))
        .await
        .map_err(said)?;
    ensure(
        version(Ok(again)) == 2,
        "a change goes on with what is there",
    )?;

    let lease = |owner| Lease::new(ids[0].clone(), EntryId::from([1; 16]), [owner; 16]);
    let first = one.acquire_lease(&lease(1), MINUTE).await.map_err(said)?;
    ensure(first == LeaseState::Granted, "a lease is granted")?;
    let second = other.acquire_lease(&lease(2), MINUTE).await.map_err(said)?;
    ensure(matches!(second, LeaseState::Held { .. }), "and held")?;
    ensure(
        one.renew_lease(&lease(1), MINUTE).await.map_err(said)?,
        "and renewed",
    )?;
    ensure(
        one.release_lease(&lease(1)).await.map_err(said)?,
        "and given back",
    )?;
    let second = other.acquire_lease(&lease(2), MINUTE).await.map_err(said)?;
    ensure(second == LeaseState::Granted, "and taken by another")?;

    let mut listener = Listener::on(&other, "test").await;
    one.clear(&ids[1], None, CommitId([9; 8]))
        .await
        .map_err(said)?;
    ensure(
        listener.until_now().await.names(&ids[1]),
        "a sign-out is told",
    )?;
    let found = load_one(&other, &ids[1]).await.map_err(said)?;
    ensure(
        (found.generation, found.entries.len()) == (1, 0),
        "a sign-out holds",
    )?;
    let listed = other.list("test", None).await.map_err(said)?;
    ensure(listed.partitions.len() == 5, "all are listed")?;

    let keys = S::keys(&one, "ttc");
    for number in 0..3 {
        let record = KeyRecord::new(format!("key-{number}"), vec![number; 20]);
        ensure(keys.add(&record).await.unwrap(), "a key is added")?;
    }
    let listed = S::keys(&other, "ttc").list().await.unwrap();
    ensure(listed.len() == 3, "all keys are read")?;

    // What is over is freed with all that belongs to it. This store has not swept yet.
    server.query(&format!(
        "UPDATE {prefix}partitions SET purge_hour = 1 WHERE id >= ''; COMMIT"
    ));
    let late = S::build(&server.url(), &prefix, PATIENCE).unwrap();
    send(&late, &commit_of(&partition("live"), [1; 8], 1, "value"))
        .await
        .map_err(said)?;
    let count =
        |table: &str| server.query(&format!("SELECT count(*) FROM {prefix}{table}"))[0].clone();
    let freed = async || {
        while count("partitions") != "1" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let freed = tokio::time::timeout(Duration::from_secs(2), freed())
        .await
        .is_ok();
    ensure(freed, "what is over is freed")?;
    ensure(
        count("entries") == "1",
        "entries are freed with their partition",
    )
}

/// Each of these broke something once.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_dba_sets_for_all_sessions_of_mariadb_changes_nothing() {
    let server = MariaDbServer::start();
    let in_common = "sql_safe_updates = 1, GLOBAL max_join_size = 100, GLOBAL foreign_key_checks = 0, GLOBAL autocommit = 0, \
        GLOBAL sql_select_limit = 1, GLOBAL sql_mode = 'ORACLE,ANSI_QUOTES,NO_BACKSLASH_ESCAPES'";
    for (completion, isolation) in [("CHAIN", "SERIALIZABLE"), ("RELEASE", "READ-UNCOMMITTED")] {
        server.query_as_root(&format!(
            "SET GLOBAL completion_type = '{completion}', GLOBAL tx_isolation = '{isolation}', GLOBAL {in_common}"
        ));
        holds(&server, completion).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dba_sets_for_all_sessions_of_postgres_changes_nothing() {
    let server = PostgresServer::start();
    server.query("CREATE SCHEMA elsewhere");
    let all = [
        "bytea_output = 'escape'",
        "default_transaction_deferrable = on",
        "default_transaction_isolation = 'serializable'",
        "exit_on_error = on",
        "idle_in_transaction_session_timeout = 400",
        "idle_session_timeout = 400",
        "lock_timeout = 1",
        "plan_cache_mode = 'force_generic_plan'",
        "search_path = 'elsewhere', 'public'",
        "standard_conforming_strings = off",
        "statement_timeout = 500",
        "transform_null_equals = on",
    ];
    for setting in all {
        server.query(&format!("ALTER ROLE tokens SET {setting}"));
    }
    holds(&server, "all").await.unwrap();
    server.query("ALTER ROLE tokens SET session_replication_role = 'replica'");
    let refused = holds(&server, "without triggers").await.unwrap_err();
    assert!(refused.contains("session_replication_role"), "{refused}");
}

/// How many statements of one connection the server keeps prepared: it has room for 16,382 of all its clients.
#[tokio::test(flavor = "multi_thread")]
async fn few_statements_are_kept_prepared() {
    let server = MariaDbServer::start();
    let (store, _) = Server::store(&server, PATIENCE).await;
    let prepared = || -> u64 {
        let row = server.query_as_root("SHOW GLOBAL STATUS LIKE 'Prepared_stmt_count'");
        row[0].rsplit_once('|').unwrap().1.parse().unwrap()
    };
    for size in 1..40 {
        let one = |at| commit_of(&partition(&format!("{size} {at}")), [1; 8], 1, "value");
        let group: Vec<_> = (0..size).map(one).collect();
        for outcome in store.commit(&group).await {
            version(outcome);
        }
    }
    assert!((20..40).contains(&prepared()), "{}", prepared());
}
