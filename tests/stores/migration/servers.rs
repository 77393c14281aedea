//! Between real servers and files.

use common::memcached::MemcachedServer;
use common::proxy::Proxy;
use common::redis::RedisServer;
use common::support::{cache, session, token};
use tempfile::TempDir;
use tower_token_cache::{Durability, MemcachedStore, RedisStore, SqliteStore};

use super::*;
use crate::sql::server::{PATIENCE, Server, on_both};

on_both! {
    it_is_movable
    a_fleet_between_redis_and_it_conforms
    a_fleet_between_it_and_redis_conforms
    everything_moves_from_redis_to_it
    everything_moves_from_it_to_sqlite
}

async fn redis() -> (RedisServer, RedisStore) {
    let server = RedisServer::start();
    let store = RedisStore::connect(server.url()).await.unwrap();
    (server, store)
}

async fn sqlite() -> (TempDir, SqliteStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path().join("tokens.db")).await;
    (directory, store.unwrap())
}

async fn memcached() -> (MemcachedServer, MemcachedStore) {
    let server = MemcachedServer::start();
    let store = MemcachedStore::connect(&server.url()).await.unwrap();
    (server, store)
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_movable() {
    let (_server, store) = redis().await;
    conformance::movable(&Harness::real_time(store)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memcached_is_movable() {
    let (_server, store) = memcached().await;
    conformance::movable(&Harness::real_time(store)).await;
}

async fn it_is_movable<S: Server>() {
    let server = S::shared();
    let (store, _) = server.store(PATIENCE).await;
    conformance::movable(&Harness::real_time(store)).await;
}

/// Of instances of both steps.
async fn conforms(old: impl Movable + Clone, new: impl Movable + Clone) {
    let harness = Harness::real_time(Fleet::new(old, new));
    conformance::all(&harness.without_counting_raises()).await;
}

async fn a_fleet_between_redis_and_it_conforms<S: Server>() {
    let (server, (_redis, redis)) = (S::shared(), redis().await);
    let (store, _) = server.store(PATIENCE).await;
    conforms(redis, store).await;
}

async fn a_fleet_between_it_and_redis_conforms<S: Server>() {
    let (server, (_redis, redis)) = (S::shared(), redis().await);
    let (store, _) = server.store(PATIENCE).await;
    conforms(store, redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_between_redis_and_sqlite_conforms() {
    let ((_server, redis), (_directory, sqlite)) = (redis().await, sqlite().await);
    conforms(redis, sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_between_sqlite_and_redis_conforms() {
    let ((_server, redis), (_directory, sqlite)) = (redis().await, sqlite().await);
    conforms(sqlite, redis).await;
}

async fn moves_everything<O, N>(old: O, new: N)
where
    O: Movable + Listed,
    N: Movable + Clone,
{
    for user in 0..1200 {
        put(
            &old,
            &format!("user {user}"),
            user,
            &format!("token {user}"),
        )
        .await;
    }
    old.clear(&id("user 7"), Some(0), CommitId([7; 8]))
        .await
        .unwrap();
    old.raise(&id("epoch"), Raise::Begin(9), None)
        .await
        .unwrap();
    put(&old, "large", 5000, &"x".repeat(300_000)).await;
    let epoch = load(&old, "epoch").await;
    let store = MigratingStore::moving(old, new.clone());
    let progress = move_all(&store).await;
    assert!(progress.done);
    assert_eq!(progress.moved, 1202);
    for user in 0..1200 {
        let expected = (user != 7).then(|| format!("token {user}"));
        assert_eq!(value(&new, &format!("user {user}")).await, expected);
    }
    assert_eq!(load(&new, "user 7").await.generation, 1);
    assert_eq!(load(&new, "epoch").await.revision(), epoch.revision());
    assert_eq!(value(&new, "large").await.map(|it| it.len()), Some(300_000));
    let again = move_all(&store).await;
    assert_eq!((again.moved, again.done, again.passes), (0, true, 1));
}

async fn everything_moves_from_redis_to_it<S: Server>() {
    let (server, (_redis, redis)) = (S::shared(), redis().await);
    let (store, _) = server.store(PATIENCE).await;
    moves_everything(redis, store).await;
}

async fn everything_moves_from_it_to_sqlite<S: Server>() {
    let (server, (_directory, sqlite)) = (S::shared(), sqlite().await);
    let (store, _) = server.store(PATIENCE).await;
    moves_everything(store, sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_moves_from_postgres_to_mariadb() {
    let (old, new) = (
        common::postgres::PostgresServer::shared(),
        common::mariadb::MariaDbServer::shared(),
    );
    let (old, _) = Server::store(&*old, PATIENCE).await;
    let (new, _) = Server::store(&*new, PATIENCE).await;
    moves_everything(old, new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_moves_from_redis_to_sqlite() {
    let ((_server, redis), (_directory, sqlite)) = (redis().await, sqlite().await);
    moves_everything(redis, sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_moves_from_sqlite_to_redis() {
    let ((_server, redis), (_directory, sqlite)) = (redis().await, sqlite().await);
    moves_everything(sqlite, redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_moves_from_redis_to_memcached() {
    let ((_server, redis), (_other, memcached)) = (redis().await, memcached().await);
    let memcached = Arc::new(memcached);
    moves_everything(redis, memcached).await;
}

/// Nothing of a namespace that is not asked for is listed, nor a lease.
#[tokio::test(flavor = "multi_thread")]
async fn redis_lists_the_partitions_of_a_namespace() {
    let (server, store) = redis().await;
    for user in 0..700 {
        put(&store, &format!("user {user}"), user, "x").await;
    }
    let other = PartitionId::for_tests("test:other", "ada");
    let commit = commit_of(&other, [1; 8], 1, "x".to_owned());
    store.commit(&[commit]).await.remove(0).unwrap();
    let lease = Lease::new(id("user 1"), [1; 16].into(), [1; 16]);
    let ttl = Duration::from_secs(60);
    store.acquire_lease(&lease, ttl).await.unwrap();
    server.query::<()>("SET test:{strange} x");
    let mut found = std::collections::HashSet::new();
    let mut cursor = None;
    loop {
        let page = store.list(NAMESPACE, cursor.as_deref()).await.unwrap();
        found.extend(page.partitions.into_iter().map(|id| *id.digest()));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(found.len(), 700);
    assert!(found.contains(id("user 699").digest()));
}

/// A session moves in nine round-trips, each of a quarter of what an attempt may take.
#[tokio::test(flavor = "multi_thread")]
async fn stores_that_are_far_away_are_moved_between() {
    let ((one, near), (other, _)) = (redis().await, redis().await);
    {
        let before = cache(near);
        let tokens = before.tokens(session("ada"));
        tokens.insert("graph", token("before")).await.unwrap();
        common::assert_stored(tokens.commit().await.unwrap());
    }
    let mut lines = Vec::new();
    let mut far = Vec::new();
    for server in [&one, &other] {
        let (line, url) = Proxy::before(&server.url()).await;
        line.delay(60);
        lines.push(line);
        far.push(RedisStore::connect(url).await.unwrap());
    }
    let moving = MigratingStore::moving(far.remove(0), far.remove(0));
    let cache = cache(moving);
    let (ada, bob) = (session("ada"), session("bob"));
    for id in [&ada, &bob] {
        let tokens = cache.tokens(id.clone());
        tokens.insert("graph", token("after")).await.unwrap();
        common::eventually("it is stored", async || {
            tokens.commit().await.unwrap() == Durability::Stored
        })
        .await;
    }
}

/// One that the new store has no room for holds up none of the others.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_for_the_new_store_stays_in_the_old_one() {
    let ((_server, redis), (_other, memcached)) = (redis().await, memcached().await);
    put(&redis, "large", 5000, &"x".repeat(2 << 20)).await;
    for user in 0..1200 {
        put(&redis, &format!("user {user}"), user, "x").await;
    }
    let memcached = Arc::new(memcached);
    let moving = MigratingStore::moving(redis, memcached.clone());
    for _ in 0..2 {
        let run = moving.mover(NAMESPACE).per_second(1_000_000).run();
        let refused = run.try_collect::<Vec<_>>().await.unwrap_err();
        assert_eq!(refused.kind(), StoreErrorKind::TooLarge);
        for user in 0..1200 {
            assert!(value(&*memcached, &format!("user {user}")).await.is_some());
        }
    }
    let large = value(&moving, "large").await;
    assert_eq!(large.map(|it| it.len()), Some(2 << 20));
}
