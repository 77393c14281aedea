//! Both stores have a number of the namespace: each was used alone.

use std::time::Duration;

use common::support::{access, builder, session, token};
use tower_token_cache::store::MigratingStore;
use tower_token_cache::{Lookup, MemoryStore, TokenCache, TokenStore};

use crate::log::Log;

const SECOND: Duration = Duration::from_secs(1);
const REASON: &str = "both stores have a number of the namespace";

fn cache(store: impl TokenStore) -> TokenCache {
    builder(store).namespace("site").build().unwrap()
}

async fn sign_in(cache: &TokenCache, id: &str) {
    let tokens = cache.tokens(session(id));
    tokens.insert("graph", token(id)).await.unwrap();
    common::assert_stored(tokens.commit().await.unwrap());
}

async fn finds(cache: &TokenCache, id: &str) -> Option<String> {
    access(&cache.tokens(session(id)), "graph").await
}

fn steps(old: &MemoryStore, new: &MemoryStore) -> [MigratingStore<MemoryStore, MemoryStore>; 2] {
    [
        MigratingStore::following(old.clone(), new.clone()),
        MigratingStore::moving(old.clone(), new.clone()),
    ]
}

/// Nobody is signed out by it: it is refused, and works once the new store is emptied.
#[tokio::test]
async fn a_new_store_that_was_used_alone_is_refused() {
    for later in ["new", "old"] {
        let (log, _guard) = Log::begin();
        let (old, new) = (MemoryStore::new(), MemoryStore::new());
        let (first, second) = if later == "new" {
            (&old, &new)
        } else {
            (&new, &old)
        };
        sign_in(&cache(first.clone()), "ada").await;
        sign_in(&cache(second.clone()), "ada").await;
        for store in steps(&old, &new) {
            let cache = cache(store);
            let found = cache.tokens(session("ada")).get("graph").await.unwrap();
            assert!(matches!(found, Lookup::Unavailable), "{later}: {found:?}");
            let health = cache.check(SECOND).await;
            assert!(!health.is_ready(), "{health:?}");
            assert!(cache.sign_out_all().await.is_err());
        }
        assert!(!log.lines(REASON).is_empty(), "{later}");
        for store in steps(&old, &MemoryStore::new()) {
            assert_eq!(finds(&cache(store), "ada").await.as_deref(), Some("ada"));
        }
    }
}

/// Somebody still runs on the old store alone, long after the number has moved. That stops nobody but those who start.
#[tokio::test]
async fn an_instance_on_the_old_store_alone_stops_no_other() {
    let (log, _guard) = Log::begin();
    let (old, new, clock) = super::conformance_stores();
    sign_in(&cache(old.clone()), "ada").await;
    let instance = cache(MigratingStore::moving(old.clone(), new.clone()));
    assert_eq!(finds(&instance, "ada").await.as_deref(), Some("ada"));
    assert!(instance.sign_out_all().await.is_ok());
    sign_in(&instance, "eve").await;
    // The fence of the number is over after a day.
    clock.advance(Duration::from_secs(25 * 3600));
    sign_in(&cache(old.clone()), "bob").await;
    for expected in [1, 1] {
        assert!(instance.sign_out_all().await.is_ok());
        sign_in(&instance, "eve").await;
        assert_eq!(log.lines(REASON).len(), expected);
    }
    for store in steps(&old, &new) {
        let found = cache(store)
            .tokens(session("eve"))
            .get("graph")
            .await
            .unwrap();
        assert!(matches!(found, Lookup::Unavailable), "{found:?}");
    }
}
