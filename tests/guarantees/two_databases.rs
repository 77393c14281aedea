//! Two databases of one server, used with one namespace, have nothing to do with each other.
//!
//! The server's feed knows no databases: what changes in one is told in the other, and makes it ask its own
//! database, which has not changed.

use tower_token_cache::{Durability, Error, RedisStore, TokenCache, TokenSet};

use common::support::*;

struct Database {
    store: RedisStore,
    cache: TokenCache,
}

impl Database {
    async fn new(server: &RedisServer, number: u8) -> Self {
        let store = RedisStore::connect(format!("{}/{number}", server.url()));
        let store = store.await.unwrap();
        Self {
            cache: instance(&store).await,
            store,
        }
    }

    async fn sign_in(&self, id: &str, text: &str) {
        let tokens = self.cache.tokens(session(id));
        let set = TokenSet::from(token(text)).with_refresh_token(format!("r-{text}"));
        tokens.insert("graph", set).await.unwrap();
        assert_eq!(tokens.commit().await.unwrap(), Durability::Stored);
        tokens.link_user("ada").await.unwrap();
    }

    /// What whoever has it in memory finds, and whoever has nothing.
    async fn find(&self, id: &str) -> [Option<String>; 2] {
        let fresh = instance(&self.store).await;
        let known = access(&self.cache.tokens(session(id)), "graph").await;
        [known, access(&fresh.tokens(session(id)), "graph").await]
    }

    async fn assert_finds(&self, id: &str, text: Option<&str>) {
        let text = text.map(str::to_owned);
        assert_eq!(self.find(id).await, [text.clone(), text], "{id}");
    }
}

async fn instance(store: &RedisStore) -> TokenCache {
    let cache = cache(store.clone());
    hears(&cache).await;
    cache
}

#[tokio::test]
async fn what_happens_in_one_has_no_effect_in_the_other() {
    let server = RedisServer::start();
    let one = Database::new(&server, 0).await;
    let two = Database::new(&server, 1).await;
    for id in ["a", "b", "c", "d"] {
        one.sign_in(id, "one").await;
        two.sign_in(id, "two").await;
    }
    for id in ["a", "b", "c", "d"] {
        one.assert_finds(id, Some("one")).await;
        two.assert_finds(id, Some("two")).await;
    }

    // Changes, with a handle of the other that has one under way.
    let held = two.cache.tokens(session("a"));
    held.insert("mail", token("two's mail")).await.unwrap();
    let tokens = one.cache.tokens(session("a"));
    tokens.insert("graph", token("changed")).await.unwrap();
    tokens.remove("mail").await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    one.assert_finds("a", Some("changed")).await;
    two.assert_finds("a", Some("two")).await;

    let ended = one.cache.tokens(session("b")).sign_out().await.unwrap();
    assert_eq!(ended, Durability::Stored);
    one.assert_finds("b", None).await;
    two.assert_finds("b", Some("two")).await;

    let ended = one.cache.sign_out_user("ada").await.unwrap();
    assert_eq!(ended, Durability::Stored);
    one.assert_finds("c", None).await;
    two.assert_finds("c", Some("two")).await;
    assert_eq!(two.cache.sessions_of("ada").await.unwrap().len(), 4);

    one.sign_in("d", "again").await;
    one.cache.sign_out_all().await.unwrap();
    one.assert_finds("d", None).await;
    for id in ["a", "b", "c", "d"] {
        two.assert_finds(id, Some("two")).await;
    }
    // Whatever was done there, the handle goes on.
    let kept = held.commit().await;
    assert!(!matches!(kept, Err(Error::SignedOut)));
    let mail = access(&two.cache.tokens(session("a")), "mail").await;
    assert_eq!(mail.as_deref(), Some("two's mail"));
    two.cache.sign_out_all().await.unwrap();
    two.assert_finds("a", None).await;
}
