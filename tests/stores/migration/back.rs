//! A site that moves back, or on: fences of an earlier move are no obstacle.

use common::redis::RedisServer;
use tower_token_cache::{RedisStore, SqliteStore};

use super::*;

/// Users 0 to 2 have these values, and 3 and 4 are signed out.
async fn has_all(store: &impl TokenStore, values: [&str; 3]) {
    for (user, expected) in values.into_iter().enumerate() {
        let found = value(store, &format!("user {user}")).await;
        assert_eq!(found.as_deref(), Some(expected), "user {user}");
    }
    for user in 3..5 {
        let loaded = load(store, &format!("user {user}")).await;
        assert_eq!((loaded.generation, loaded.entries.len()), (1, 0));
    }
}

/// To the other store, back, there again, and back again.
async fn goes_there_and_back<O, N>(one: O, other: N)
where
    O: Movable + Listed + Clone,
    N: Movable + Listed + Clone,
{
    for user in 0..5 {
        put(&one, &format!("user {user}"), 1, "first").await;
    }
    let signed_out = CommitId([9; 8]);
    one.clear(&id("user 4"), Some(0), signed_out).await.unwrap();
    assert!(
        move_all(&MigratingStore::moving(one.clone(), other.clone()))
            .await
            .done
    );
    put(&other, "user 0", 2, "second").await;
    other
        .clear(&id("user 3"), Some(0), signed_out)
        .await
        .unwrap();

    let following = MigratingStore::following(other.clone(), one.clone());
    has_all(&following, ["second", "first", "first"]).await;
    let back = MigratingStore::moving(other.clone(), one.clone());
    let outcome = put(&back, "user 1", 3, "third").await;
    assert!(
        matches!(outcome, Outcome::Committed { version: 2, .. }),
        "the same life goes on: {outcome:?}"
    );
    assert!(move_all(&back).await.done);
    has_all(&one, ["second", "third", "first"]).await;
    has_all(&following, ["second", "third", "first"]).await;

    assert!(
        move_all(&MigratingStore::moving(one.clone(), other.clone()))
            .await
            .done
    );
    has_all(&other, ["second", "third", "first"]).await;

    // It ends, without a trace, and begins anew.
    let last = other.export(&id("user 2")).await.unwrap().unwrap().recent;
    assert!(
        other
            .remove(&id("user 2"), *last.last().unwrap())
            .await
            .unwrap()
    );
    assert_eq!(load(&following, "user 2").await.generation, 0);
    for store in [&following, &back] {
        let outcome = put(store, "user 2", 9, "new").await;
        assert!(
            matches!(outcome, Outcome::Committed { version: 1, .. }),
            "{outcome:?}"
        );
    }
    has_all(&back, ["second", "third", "new"]).await;
}

#[tokio::test]
async fn a_site_in_memory_moves_back() {
    goes_there_and_back(MemoryStore::new(), MemoryStore::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_moves_from_redis_to_sqlite_and_back() {
    let server = RedisServer::start();
    let redis = RedisStore::connect(server.url()).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let sqlite = SqliteStore::open(directory.path().join("tokens.db")).await;
    goes_there_and_back(redis, sqlite.unwrap()).await;
}

/// The position that a mover from another store has left means nothing to this one.
#[tokio::test(flavor = "multi_thread")]
async fn a_mover_begins_anew_where_its_position_is_of_another_store() {
    let (first, new) = (MemoryStore::new(), MemoryStore::new());
    for user in 0..1000 {
        put(&first, &format!("user {user}"), user, "x").await;
    }
    let stopped = MigratingStore::moving(first, new.clone());
    let run = stopped.mover(NAMESPACE).per_second(1_000_000).run();
    futures_util::pin_mut!(run);
    assert!(!run.try_next().await.unwrap().unwrap().done);

    let server = RedisServer::start();
    let redis = RedisStore::connect(server.url()).await.unwrap();
    put(&redis, "ada", 1, "ada's").await;
    assert!(
        move_all(&MigratingStore::moving(redis, new.clone()))
            .await
            .done
    );
    assert_eq!(value(&new, "ada").await.as_deref(), Some("ada's"));
}
