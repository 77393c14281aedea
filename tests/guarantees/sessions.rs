//! Signing a user out everywhere.

use tower_token_cache::{Durability, Error, PartitionKind};

use crate::common::support::*;

#[tokio::test]
async fn every_session_of_a_user_is_signed_out_and_no_other() {
    let store = TestStore::default();
    let (one, other) = (cache(store.clone()), cache(store.clone()));
    for (cache, id, user) in [(&one, "a", "ada"), (&other, "b", "ada"), (&one, "c", "bob")] {
        let tokens = cache.tokens(session(id));
        tokens.insert("graph", token(id)).await.unwrap();
        tokens.commit().await.unwrap();
        tokens.belongs_to(user).await.unwrap();
    }
    let sessions = other.sessions_of("ada").await.unwrap();
    assert_eq!(sessions.len(), 2);
    assert!(
        sessions
            .iter()
            .all(|key| key.kind() == PartitionKind::Session)
    );
    assert!(sessions.contains(&session("a")) && sessions.contains(&session("b")));
    assert_eq!(one.sign_out_user("ada").await.unwrap(), Durability::Stored);
    for (id, found) in [("a", None), ("b", None), ("c", Some("c"))] {
        assert_eq!(stored(store.clone(), id, "graph").await.as_deref(), found);
    }
    assert!(other.sessions_of("ada").await.unwrap().is_empty());
    assert_eq!(other.sessions_of("bob").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_user_without_sessions_is_no_error_and_a_dead_l2_is_one() {
    let store = TestStore::default();
    let cache = cache(store.clone());
    assert!(cache.sessions_of("nobody").await.unwrap().is_empty());
    assert_eq!(
        cache.sign_out_user("nobody").await.unwrap(),
        Durability::Stored
    );
    assert!(matches!(
        cache.sign_out_user("").await,
        Err(Error::InvalidKey(_))
    ));
    store.set_down(true);
    let unknown = cache.sign_out_user("ada").await;
    assert!(matches!(unknown, Err(Error::Unavailable(_))));
}
