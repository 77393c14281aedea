//! Two databases of one server, used with one namespace, have nothing to do with each other.
//!
//! A backplane is of the server, not of a database: what is announced in one is heard in the other,
//! and makes it ask its own database, which has not changed. That holds by construction where
//! instances only ask because of what they hear; how often they do is not promised.

use tower_token_cache::backplane::MemoryBackplane;
use tower_token_cache::{Durability, Error, RedisStore, TokenCache, TokenSet};

use crate::common::support::*;

struct Database {
    store: RedisStore,
    cache: TokenCache,
    channel: Option<MemoryBackplane>,
}

impl Database {
    async fn new(server: &RedisServer, number: u8, channel: Option<&MemoryBackplane>) -> Self {
        let store = RedisStore::connect(format!("{}/{number}", server.url()));
        let store = store.await.unwrap();
        Self {
            cache: instance(&store, channel).await,
            store,
            channel: channel.cloned(),
        }
    }

    async fn sign_in(&self, id: &str, text: &str) {
        let tokens = self.cache.tokens(session(id));
        let set = TokenSet::from(token(text)).with_refresh_token(format!("r-{text}"));
        tokens.insert("graph", set).await.unwrap();
        assert_eq!(tokens.commit().await.unwrap(), Durability::Stored);
        tokens.belongs_to("ada").await.unwrap();
    }

    /// What whoever has it in memory finds, and whoever has nothing.
    async fn find(&self, id: &str) -> [Option<String>; 2] {
        let fresh = instance(&self.store, self.channel.as_ref()).await;
        let known = access(&self.cache.tokens(session(id)), "graph").await;
        [known, access(&fresh.tokens(session(id)), "graph").await]
    }

    async fn assert_finds(&self, id: &str, text: Option<&str>, what: &str) {
        let text = text.map(str::to_owned);
        assert_eq!(self.find(id).await, [text.clone(), text], "{what}: {id}");
    }
}

async fn instance(store: &RedisStore, channel: Option<&MemoryBackplane>) -> TokenCache {
    let builder = builder(store.clone());
    let Some(channel) = channel else {
        return builder.build().unwrap();
    };
    let cache = builder.backplane(channel.clone()).build().unwrap();
    eventually("the backplane is alive", async || {
        cache.stats().backplane_alive == Some(true)
    })
    .await;
    cache
}

#[tokio::test]
async fn what_happens_in_one_has_no_effect_in_the_other() {
    let server = RedisServer::start();
    for channel in [None, Some(MemoryBackplane::new())] {
        let what = format!("a backplane: {}", channel.is_some());
        let _: String = server.query("FLUSHALL");
        let one = Database::new(&server, 0, channel.as_ref()).await;
        let two = Database::new(&server, 1, channel.as_ref()).await;
        for id in ["a", "b", "c", "d"] {
            one.sign_in(id, "one").await;
            two.sign_in(id, "two").await;
        }
        for id in ["a", "b", "c", "d"] {
            one.assert_finds(id, Some("one"), &what).await;
            two.assert_finds(id, Some("two"), &what).await;
        }

        // Changes, with a handle of the other that has one under way.
        let held = two.cache.tokens(session("a"));
        held.insert("mail", token("two's mail")).await.unwrap();
        let tokens = one.cache.tokens(session("a"));
        tokens.insert("graph", token("changed")).await.unwrap();
        tokens.remove("mail").await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
        one.assert_finds("a", Some("changed"), &what).await;
        two.assert_finds("a", Some("two"), &what).await;

        let ended = one.cache.tokens(session("b")).sign_out().await.unwrap();
        assert_eq!(ended, Durability::Stored);
        one.assert_finds("b", None, &what).await;
        two.assert_finds("b", Some("two"), &what).await;

        let ended = one.cache.sign_out_user("ada").await.unwrap();
        assert_eq!(ended, Durability::Stored);
        one.assert_finds("c", None, &what).await;
        two.assert_finds("c", Some("two"), &what).await;
        assert_eq!(two.cache.sessions_of("ada").await.unwrap().len(), 4);

        one.sign_in("d", "again").await;
        one.cache.revoke_all().await.unwrap();
        one.assert_finds("d", None, &what).await;
        for id in ["a", "b", "c", "d"] {
            two.assert_finds(id, Some("two"), &what).await;
        }
        // Whatever was done there, the handle goes on.
        let kept = held.commit().await;
        assert!(!matches!(kept, Err(Error::SignedOut)), "{what}");
        let mail = access(&two.cache.tokens(session("a")), "mail").await;
        assert_eq!(mail.as_deref(), Some("two's mail"), "{what}");
        two.cache.revoke_all().await.unwrap();
        two.assert_finds("a", None, &what).await;
    }
}
