//! A partition takes 8 MiB at most. Past it a change is an error that says so, and what was there goes on.

use std::time::Duration;

use common::support::*;
use tower_token_cache::{Error, FailurePolicy, L1, MemoryStore, StoreErrorKind, TokenSet};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn too_many_values_are_an_error() {
    let cache = cache(MemoryStore::new());
    let tokens = cache.tokens(session("s"));
    let large = "x".repeat(60 << 10);
    let mut refused = None;
    for number in 0..200 {
        if let Err(error) = tokens.put(format!("v{number}"), &large, HOUR).await {
            refused = Some((number, error));
            break;
        }
    }
    let (number, error) = refused.expect("8 MiB");
    assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
    assert_stored(tokens.commit().await.unwrap());
    let last = format!("v{}", number - 1);
    assert!(tokens.take::<String>(&last).await.unwrap().is_hit());
    tokens.put(&last, &large, HOUR).await.unwrap();
    assert!(tokens.take::<String>(&last).await.unwrap().is_hit());
}

/// Each change reads the partition from L2.
#[tokio::test]
async fn they_are_without_l1_too() {
    let cache = builder(MemoryStore::new()).l1(L1::disabled());
    let cache = cache.build().unwrap();
    let large = "x".repeat(60 << 10);
    let mut refused = None;
    for number in 0..200 {
        let tokens = cache.tokens(session("s"));
        let put = tokens.put(format!("v{number}"), &large, HOUR).await;
        assert_stored(tokens.commit().await.unwrap());
        if let Err(error) = put {
            refused = Some((number, error));
            break;
        }
    }
    let (_, error) = refused.expect("8 MiB");
    assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
}

#[tokio::test]
async fn a_move_makes_no_partition_too_large() {
    let cache = cache(MemoryStore::new());
    let large = "x".repeat(60 << 10);
    let fill = async |name: &str| {
        let tokens = cache.tokens(session(name));
        for number in 0..100 {
            let value = format!("{name}{number}");
            tokens.put(value, &large, HOUR).await.unwrap();
        }
        assert_stored(tokens.commit().await.unwrap());
        tokens
    };
    let old = fill("a").await;
    fill("b").await;
    let moved = old.move_to(session("b")).await;
    assert!(
        matches!(moved, Err(Error::TooLarge { .. })),
        "{:?}",
        moved.map(drop)
    );
}

/// A store says that a commit is too large while what makes it smaller waits.
#[tokio::test]
async fn a_commit_that_is_too_large_is_no_error_of_later_changes() {
    let store = TestStore::default();
    let cache = builder(store.clone()).failure_policy(FailurePolicy::Strict);
    let cache = cache.build().unwrap();
    let tokens = cache.tokens(session("s"));
    assert_eq!(access(&tokens, "graph").await, None);
    store.set_most_values(1);
    store.hold_group(1);
    let set = TokenSet::from(token("t")).with_refresh_token("r");
    tokens.insert("graph", set).await.unwrap();
    let first = tokens.commit();
    let later = async {
        eventually("it is under way", async || store.groups() == 1).await;
        tokens.remove("graph").await.unwrap();
        let release = async { store.release_group() };
        tokio::join!(tokens.commit(), release).0
    };
    let (first, later) = tokio::join!(first, later);
    let Err(Error::Unavailable(error)) = first else {
        panic!("it is too large: {first:?}");
    };
    assert_eq!(error.kind(), StoreErrorKind::TooLarge);
    assert_stored(later.unwrap());
    assert_eq!(stored(store, "s", "graph").await, None);
}
