//! Tables that are made, or looked at, while they are in use.

use std::time::Duration;

use common::store::{commit_of, load_one};
use tower_token_cache::StoreErrorKind;

use super::server::{Foreign, PATIENCE, Server, on_both, partition, reasons, send, version};

on_both! {
    tables_that_are_there_are_not_waited_for
    tables_that_are_made_hold_nobody_up_for_long
}

/// Instances call `migrate` when they start, and somebody reads all tables for hours, as a backup does.
async fn tables_that_are_there_are_not_waited_for<S: Server>() {
    let server = S::shared();
    let (store, prefix) = server.store(PATIENCE).await;
    let a = partition("a");
    version(send(&store, &commit_of(&a, [1; 8], 1, "value")).await);
    let tables = ["partitions", "entries", "leases", "keys", "schema"];
    let reads = tables.map(|table| format!("SELECT count(*) FROM {prefix}{table}"));
    let backup = Foreign::after(&*server, &format!("BEGIN; {}", reads.join("; ")));
    let starts = S::build(&server.url(), &prefix, PATIENCE).unwrap();
    let started = tokio::time::timeout(Duration::from_secs(5), S::migrate(&starts)).await;
    started.expect("it waits for nobody").unwrap();
    version(send(&store, &commit_of(&a, [2; 8], 1, "value")).await);
    // What is missing is made all the same.
    backup.end("COMMIT");
    server.query(&format!("DROP TABLE {prefix}keys"));
    S::migrate(&starts).await.unwrap();
    server.query(&format!("SELECT count(*) FROM {prefix}keys"));
}

/// Those of an earlier version, while somebody holds them: an error, and not a queue of all who come after.
async fn tables_that_are_made_hold_nobody_up_for_long<S: Server>() {
    let server = S::shared();
    let (store, prefix) = server.store(PATIENCE).await;
    let a = partition("a");
    version(send(&store, &commit_of(&a, [1; 8], 1, "value")).await);
    let id = super::server::hex(&a, &server.url());
    let hold = format!("BEGIN; UPDATE {prefix}partitions SET version = 1 WHERE id = {id}");
    server.query(&format!("UPDATE {prefix}schema SET version = 1"));
    let holder = Foreign::after(&*server, &hold);
    let starts = S::build(&server.url(), &prefix, PATIENCE).unwrap();
    let migrated = tokio::time::timeout(Duration::from_secs(8), S::migrate(&starts)).await;
    match migrated.expect("it gives up") {
        Ok(()) => {}
        Err(error) => assert_eq!(error.kind(), StoreErrorKind::Timeout, "{}", reasons(&error)),
    }
    holder.end("COMMIT");
    let later = S::build(&server.url(), &prefix, PATIENCE).unwrap();
    S::migrate(&later).await.unwrap();
    assert_eq!(load_one(&later, &a).await.unwrap().version, 1);
}
