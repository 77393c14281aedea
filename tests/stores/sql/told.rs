//! The change feed where what it depends on is gone: triggers, tables, an open way, room for what it tells.

use std::time::{Duration, Instant};

use common::feed::Listener;
use common::postgres::PostgresServer;
use common::proxy::{Mode, Proxy};
use common::store::{commit_of, load_one};
use common::support::{access, builder, drained, eventually, hears, session, token};
use tower_token_cache::{Durability, StoreErrorKind};

use super::server::{PATIENCE, Server, on_both, partition, reasons, send, version};
use crate::log::Log;

on_both! {
    tables_that_are_made_anew_are_told
    a_way_that_is_half_open_proves_nothing
}

const SECOND: Duration = Duration::from_secs(1);

/// Changes of which nobody is told make memory no less fresh than it is believed to be.
#[tokio::test]
async fn a_table_whose_triggers_are_off_is_not_believed() {
    let (log, _guard) = Log::begin();
    let server = PostgresServer::shared();
    let (store, prefix) = Server::store(&*server, PATIENCE).await;
    let alter = |what: &str| format!("ALTER TABLE {prefix}partitions {what} TRIGGER USER");
    let drop = format!("DROP TRIGGER {prefix}tell_update ON {prefix}partitions");
    let mut listener = Listener::on(&store, "test").await;
    for (lines, (off, on)) in [
        (alter("DISABLE"), alter("ENABLE")),
        (drop, store.statements().join(";")),
    ]
    .into_iter()
    .enumerate()
    {
        server.query(&off);
        listener.until_lost().await;
        listener.proves_nothing(SECOND).await;
        assert_eq!(log.lines("no trigger tells").len(), lines + 1);
        server.query(&on);
        assert!(listener.until_now().await.everything);
    }
}

/// As where a backup was brought back.
async fn tables_that_are_made_anew_are_told<S: Server>() {
    let server = S::shared();
    let (store, prefix) = server.store(PATIENCE).await;
    let a = partition("a");
    version(send(&store, &commit_of(&a, [1; 8], 1, "value")).await);
    let mut listener = Listener::on(&store, "test").await;
    let drop = ["entries", "partitions", "changes"]
        .map(|table| format!("DROP TABLE IF EXISTS {prefix}{table}"));
    let make = S::statements(&store);
    server.query(&[&drop[..], &make[..]].concat().join(";"));
    assert!(listener.until_now().await.everything);
    assert_eq!(load_one(&store, &a).await.unwrap().version, 0);
}

async fn a_way_that_is_half_open_proves_nothing<S: Server>() {
    let server = S::shared();
    let (direct, prefix) = server.store(PATIENCE).await;
    let (proxy, url) = Proxy::before(&server.url()).await;
    let store = S::build(&url, &prefix, SECOND).unwrap();
    let mut listener = Listener::on(&store, "test").await;
    let a = partition("a");
    for (number, mode) in [Mode::BlackHole, Mode::BlackHoleAnswers]
        .into_iter()
        .enumerate()
    {
        proxy.set(mode);
        let (start, id) = (Instant::now(), [number as u8 + 1; 8]);
        version(send(&direct, &commit_of(&a, id, 1, "value")).await);
        assert!(!listener.until_lost().await.names(&a));
        // The bound, and some room for a busy machine.
        assert!(start.elapsed() < 5 * SECOND, "{:?}", start.elapsed());
        proxy.set(Mode::Pass);
        assert!(listener.until_now().await.everything);
    }
}

/// As where PostgreSQL's queue of notifications is full: what cannot be told is not done, and waits.
#[tokio::test]
async fn what_cannot_be_told_is_not_done_and_is_said() {
    let (log, _guard) = Log::begin();
    let server = PostgresServer::shared();
    let (store, prefix) = Server::store(&*server, PATIENCE).await;
    let instance = || builder(store.clone()).build().unwrap();
    let (one, other) = (instance(), instance());
    hears(&one).await;
    hears(&other).await;
    let (here, there) = (one.tokens(session("s")), other.tokens(session("s")));
    here.insert("graph", token("t")).await.unwrap();
    common::assert_stored(here.commit().await.unwrap());
    assert!(access(&there, "graph").await.is_some());
    server.query(&format!(
        "CREATE OR REPLACE FUNCTION {prefix}tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         RAISE EXCEPTION 'too many notifications in the NOTIFY queue' USING ERRCODE = '54000'; END $$"
    ));
    let refused = send(&store, &commit_of(&partition("a"), [1; 8], 1, "value")).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Refused);
    assert!(reasons(&refused).contains("NOTIFY queue"));
    assert_eq!(here.sign_out().await.unwrap(), Durability::Pending);
    assert!(!log.lines("NOTIFY queue").is_empty());
    server.query(&store.statements().join(";"));
    drained(&one).await;
    let there = async || access(&other.tokens(session("s")), "graph").await.is_none();
    eventually("it is told", there).await;
}
