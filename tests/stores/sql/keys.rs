//! The keys of a ring in the database whose tables they seal.

use common::proxy::{Mode, Proxy};
use common::store::load_one;
use tower_token_cache::seal::{KeyRecord, KeyRepository, KeyRingErrorKind};
use tower_token_cache::{KeyRing, StoreErrorKind};

use super::server::{PATIENCE, Server, on_both, partition, reasons};
use crate::sealed::key;
use crate::sealed::repositories::{assert_agree, name, opened};

on_both! {
    twenty_instances_agree
    what_was_lost_is_put_back
    a_database_that_is_away_is_an_error_and_changes_nothing
    a_record_is_added_once_whatever_is_lost
    keys_in_the_clear_are_refused
    tables_of_the_version_before_are_brought_up_to_date
}

async fn twenty_instances_agree<S: Server>() {
    let server = S::shared();
    let (store, _) = server.store(PATIENCE).await;
    assert_agree(&opened(S::keys(&store, "ttc")).await).await;
    let open = async |namespace| {
        let ring = KeyRing::open_in_store(S::keys(&store, namespace), key(1)).await;
        ring.unwrap()
    };
    // Another application in the same tables has keys of its own.
    assert_ne!(open("other").await.active(), open("ttc").await.active());
}

async fn what_was_lost_is_put_back<S: Server>() {
    let server = S::shared();
    let (store, prefix) = server.store(PATIENCE).await;
    let open = || KeyRing::open_in_store(S::keys(&store, "ttc"), key(1));
    let ring = open().await.unwrap();
    let revoked = ring.active();
    ring.revoke(revoked).await.unwrap();
    server.query(&format!("DELETE FROM {prefix}keys"));
    ring.refresh().await.unwrap();
    let other = open().await.unwrap();
    assert_eq!(other.keys(), ring.keys());
    let is_revoked = |key: &tower_token_cache::seal::KeyInfo| key.id == revoked && key.revoked;
    assert!(other.keys().iter().any(is_revoked));
    assert_eq!(name(&other).await, name(&ring).await);
}

async fn a_database_that_is_away_is_an_error_and_changes_nothing<S: Server>() {
    let mut server = S::start();
    let (store, _) = server.store(PATIENCE).await;
    let open = || KeyRing::open_in_store(S::keys(&store, "ttc"), key(1));
    let ring = open().await.unwrap();
    ring.rotate().await.unwrap();
    let before = ring.keys();
    server.kill();
    let away = ring.refresh().await.unwrap_err();
    assert_eq!(away.kind(), KeyRingErrorKind::Unreachable);
    assert_eq!(ring.keys(), before);
    let away = open().await.unwrap_err();
    assert_eq!(away.kind(), KeyRingErrorKind::Unreachable);
    server.restart();
    assert_eq!(open().await.unwrap().keys(), before, "keys outlive a crash");
}

async fn a_record_is_added_once_whatever_is_lost<S: Server>() {
    let server = S::shared();
    let (proxy, url) = Proxy::before(&server.url()).await;
    let (direct, prefix) = server.store(PATIENCE).await;
    let store = S::build(&url, &prefix, PATIENCE).unwrap();
    let (keys, direct) = (S::keys(&store, "ttc"), S::keys(&direct, "ttc"));
    let record = |number: u8, content: &str| {
        KeyRecord::new(format!("key-{number}"), content.as_bytes().to_vec())
    };
    keys.list().await.unwrap();
    for number in 10..50 {
        let cut = Mode::CutAnswerAfter(4 * usize::from(number) - 39);
        proxy.set(cut);
        assert!(keys.add(&record(number, "first")).await.unwrap());
        proxy.set(cut);
        assert!(!keys.add(&record(number, "second")).await.unwrap());
        proxy.set(Mode::Pass);
        assert!(!direct.add(&record(number, "third")).await.unwrap());
    }
    let mut records = direct.list().await.unwrap();
    records.sort_by(|one, other| one.name.cmp(&other.name));
    let expected: Vec<_> = (10..50).map(|number| record(number, "first")).collect();
    assert_eq!(records, expected);
}

async fn keys_in_the_clear_are_refused<S: Server>() {
    let server = S::shared();
    let (store, prefix) = server.store(PATIENCE).await;
    let refused = KeyRing::builder(S::keys(&store, "ttc")).open().await;
    assert_eq!(refused.unwrap_err().kind(), KeyRingErrorKind::NoProtector);
    let rows = server.query(&format!("SELECT count(*) FROM {prefix}keys"));
    assert_eq!(rows, ["0"]);
}

/// Version 1 had no table of keys.
async fn tables_of_the_version_before_are_brought_up_to_date<S: Server>() {
    let server = S::shared();
    let (store, prefix) = server.store(PATIENCE).await;
    let commit = common::store::commit_of(&partition("a"), [1; 8], 1, "value");
    super::server::version(super::server::send(&store, &commit).await);
    server.query(&format!(
        "DROP TABLE {prefix}keys; UPDATE {prefix}schema SET version = 1"
    ));
    let store = S::build(&server.url(), &prefix, PATIENCE).unwrap();
    let refused = load_one(&store, &partition("a")).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Refused);
    let reasons = reasons(&refused);
    let told = "of version 1, and 2 is needed: call `migrate`";
    assert!(reasons.contains(told), "{reasons}");
    S::migrate(&store).await.unwrap();
    assert_eq!(load_one(&store, &partition("a")).await.unwrap().version, 1);
    KeyRing::open_in_store(S::keys(&store, "ttc"), key(1))
        .await
        .unwrap();
}

/// The table was emptied, and an instance has started before another could put its keys back.
#[tokio::test]
async fn a_ring_that_another_takes_the_place_of_says_so() {
    let (log, _guard) = crate::log::Log::begin();
    let server = common::postgres::PostgresServer::shared();
    let (store, prefix) = Server::store(&*server, PATIENCE).await;
    let open = || KeyRing::open_in_store(store.keys("ttc"), key(1));
    let ring = open().await.unwrap();
    let before = name(&ring).await;
    server.query(&format!("DELETE FROM {prefix}keys"));
    let other = open().await.unwrap();
    ring.refresh().await.unwrap();
    assert_ne!(name(&ring).await, before);
    assert_eq!(name(&ring).await, name(&other).await);
    assert_eq!(log.lines("another key ring").len(), 1);
}
