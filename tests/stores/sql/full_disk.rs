//! A disk that is full: a change is refused, what was acknowledged is there, reads go on, and all works again when
//! there is room.

use std::path::PathBuf;
use std::time::Duration;

use common::disk::SmallDisk;
use common::mariadb::MariaDbServer;
use common::postgres::PostgresServer;
use common::store::{commit_of, load_one};
use common::support::{access, cache, drained, session, stored, token};
use common::{assert_stored, eventually};
use tower_token_cache::store::{Change, Commit, CommitId, PartitionId, Put};
use tower_token_cache::{Durability, SqliteStore, StoreError, StoreErrorKind, TokenStore, Tokens};

use super::server::{PATIENCE, Server, on_both, partition, reasons, send, version};

on_both! {
    a_full_disk_costs_changes_alone
}

/// As large as a token.
const SMALL: usize = 2000;
/// Has pages of its own in each database.
const LARGE: usize = 20_000;

async fn a_full_disk_costs_changes_alone<S: Server>() {
    let disk = SmallDisk::of(128);
    let mut server = S::start_on(&disk);
    let (store, _) = server.store(PATIENCE).await;
    let kept = outlives_a_full_disk(&store, &disk).await;
    server.kill();
    server.restart();
    assert_whole(&store, kept, SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_sqlite_a_full_disk_costs_changes_alone() {
    let disk = SmallDisk::of(8);
    let open = async || {
        let path: PathBuf = disk.path().join("tokens.db");
        SqliteStore::open(path).await.unwrap()
    };
    let kept = outlives_a_full_disk(&open().await, &disk).await;
    assert_whole(&open().await, kept, SMALL).await;
}

/// A large value that does not fit ends MariaDB: InnoDB cannot undo what it has begun.
#[tokio::test(flavor = "multi_thread")]
async fn mariadb_loses_nothing_when_a_full_disk_ends_it() {
    let disk = SmallDisk::of(128);
    let server = MariaDbServer::start_on(&disk);
    loses_nothing(server, &disk).await;
}

/// PostgreSQL may go on, or end.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_loses_nothing_where_its_log_has_no_room() {
    let disk = SmallDisk::of(64);
    let server = PostgresServer::start_with_log_on(&disk);
    loses_nothing(server, &disk).await;
}

/// There is room, and the server starts again.
async fn loses_nothing<S: Server>(mut server: S, disk: &SmallDisk) {
    let (store, _) = server.store(PATIENCE).await;
    disk.fill();
    let (kept, failed) = commit_until_it_fails(&store, LARGE).await;
    let kinds = [StoreErrorKind::Refused, StoreErrorKind::Unreachable];
    assert!(kinds.contains(&failed.kind()), "{failed:?}");
    server.kill();
    disk.free();
    server.restart();
    assert_whole(&store, kept, LARGE).await;
    // The one that was not acknowledged may have been made, too.
    let last = load_one(&store, &numbered(kept)).await.unwrap();
    assert!([0, 2].contains(&last.entries.len()));
    version(send(&store, &commit(kept, LARGE)).await);
}

/// How many partitions there are in the end.
async fn outlives_a_full_disk(store: &(impl TokenStore + Clone), disk: &SmallDisk) -> u32 {
    let cache = cache(store.clone());
    let handle = |id: &str| cache.tokens(session(id));
    for id in ["read", "ended"] {
        assert_stored(insert(&handle(id), "before").await);
    }
    disk.fill();
    let (kept, failed) = commit_until_it_fails(store, SMALL).await;
    assert_eq!(failed.kind(), StoreErrorKind::Refused, "{failed:?}");
    let reasons = reasons(&failed);
    assert!(
        reasons.contains("full") || reasons.contains("No space"),
        "it is said why: {reasons}"
    );
    assert_whole(store, kept, SMALL).await;
    let refused = load_one(store, &numbered(kept)).await.unwrap();
    assert_eq!((refused.version, refused.entries.len()), (0, 0));

    // What a cache could not write waits, and so does what it could not end. Some may still fit in where there is
    // room on a page.
    let mut late = 0;
    let text = "late".repeat(SMALL / 4);
    while insert(&handle(&format!("late {late}")), &text).await == Durability::Stored {
        late += 1;
        assert!(late < 1000, "the disk is full");
    }
    let late = format!("late {late}");
    assert_eq!(access(&handle(&late), "graph").await, Some(text.clone()));
    let _ = handle("ended").sign_out().await.unwrap();
    assert_eq!(access(&handle("ended"), "graph").await, None);
    let found = stored(store.clone(), "read", "graph").await;
    assert_eq!(found.as_deref(), Some("before"), "reads go on");

    disk.free();
    drained(&cache).await;
    assert_eq!(stored(store.clone(), &late, "graph").await, Some(text));
    eventually("it is over for all", async || {
        stored(store.clone(), "ended", "graph").await.is_none()
    })
    .await;
    for number in kept..kept + 20 {
        assert_eq!(version(send(store, &commit(number, SMALL)).await), 1);
    }
    assert_whole(store, kept + 20, SMALL).await;
    cache.shutdown(Duration::from_secs(5)).await;
    kept + 20
}

fn numbered(number: u32) -> PartitionId {
    partition(&format!("{number}"))
}

async fn insert(tokens: &Tokens, text: &str) -> Durability {
    tokens.insert("graph", token(text)).await.unwrap();
    tokens.commit().await.unwrap()
}

/// How many were acknowledged, and why the next one was not.
async fn commit_until_it_fails(store: &impl TokenStore, size: usize) -> (u32, StoreError) {
    for number in 0..5000 {
        if let Err(error) = send(store, &commit(number, size)).await {
            return (number, error);
        }
    }
    panic!("the disk is full");
}

/// Two entries, which are there together.
fn commit(number: u32, size: usize) -> Commit {
    let value = vec![number as u8; size];
    let mut commit = commit_of(&numbered(number), [1; 8], 1, value.clone());
    let other = Change::new([2; 16].into(), Some(Put::new(value, None)));
    commit.changes.push(other);
    commit
}

async fn assert_whole(store: &impl TokenStore, kept: u32, size: usize) {
    for number in 0..kept {
        let loaded = load_one(store, &numbered(number)).await.unwrap();
        assert_eq!(loaded.commit, Some(CommitId([1; 8])), "{number} is lost");
        let values = loaded.entries.iter().map(|entry| &entry.value);
        let whole = values.filter(|value| ***value == vec![number as u8; size]);
        assert_eq!(whole.count(), 2, "{number} is half written");
    }
}
