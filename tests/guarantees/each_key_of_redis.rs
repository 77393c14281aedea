//! Each key that there is in Redis, deleted by hand at every moment of two sign-outs: no signed-out
//! token is served or written again, nothing hangs, and the next sign-in is one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tower_token_cache::seal::RingKey;
use tower_token_cache::{
    Clock, Durability, Error, FailurePolicy, KeyRing, PartitionKey, Prior, ProviderError,
    RedisStore, Timestamp, Token, TokenCache, TokenSet, Tokens,
};

use common::support::*;

/// Longer than any call may take.
const LONG: Duration = Duration::from_secs(15);
/// Whatever was in memory before has to be compared with L2.
const LATER: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Marker,
    /// The session of a user who is signed out.
    Linked,
    /// The session that is signed out, and then its tombstone.
    Session,
    User,
    List,
    Lease,
    Ring,
}

const KEYS: [Key; 7] = [
    Key::Marker,
    Key::Linked,
    Key::Session,
    Key::User,
    Key::List,
    Key::Lease,
    Key::Ring,
];
const MOMENTS: usize = 5;

/// Two instances of an application of its own on the server.
struct World {
    server: Arc<RedisServer>,
    store: RedisStore,
    namespace: String,
    clock: Clock,
    marker: String,
    case: (Key, usize),
    found: bool,
}

async fn soon<T>(what: &str, answer: impl Future<Output = T>) -> T {
    let answer = tokio::time::timeout(LONG, answer).await;
    answer.unwrap_or_else(|_| panic!("hangs: {what}"))
}

impl World {
    async fn new(server: &Arc<RedisServer>, store: &RedisStore, case: (Key, usize)) -> Self {
        let mut world = Self {
            server: server.clone(),
            store: store.clone(),
            namespace: format!("{:?}-{}", case.0, case.1),
            clock: Clock::manual(Timestamp::now()),
            marker: String::new(),
            case,
            found: false,
        };
        let first = world.instance().await;
        first.partition_id(&session("any")).await.unwrap();
        let mut keys = world.keys();
        keys.retain(|key| !key.ends_with(":keys"));
        world.marker = keys.pop().unwrap();
        assert_eq!(keys, [""; 0], "nothing but the marker");
        world
    }

    async fn instance(&self) -> TokenCache {
        let keys = self.store.keys(&self.namespace);
        let ring = KeyRing::open_in_store(keys, RingKey::from_bytes([7; 32]));
        let builder = TokenCache::builder(self.store.clone()).key_ring(ring.await.unwrap());
        let builder = builder.namespace(self.namespace.clone());
        builder.clock(self.clock.clone()).build().unwrap()
    }

    fn keys(&self) -> Vec<String> {
        self.server.query(&format!("KEYS {}:*", self.namespace))
    }

    async fn place_of(&self, id: &str, cache: &TokenCache) -> String {
        let id = cache.partition_id(&session(id)).await.unwrap();
        format!("{}:{{{}}}", self.namespace, id.encoded())
    }

    /// What the server calls a key, if it is there.
    async fn place(&self, key: Key, cache: &TokenCache) -> Option<String> {
        let linked = self.place_of("linked", cache).await;
        let ended = self.place_of("ended", cache).await;
        // Those that count from the time.
        let epochs = |key: &String| self.server.generation_and_version(key).0 > 1 << 40;
        let plain = |key: &String| {
            !key.contains(":l:")
                && !key.ends_with(":keys")
                && ![&self.marker, &linked, &ended].contains(&key)
        };
        let mut keys = self.keys();
        match key {
            Key::Marker => keys.retain(|key| *key == self.marker),
            Key::Linked => keys.retain(|key| *key == linked),
            Key::Session => keys.retain(|key| *key == ended),
            Key::User => keys.retain(|key| plain(key) && epochs(key)),
            Key::List => keys.retain(|key| plain(key) && !epochs(key)),
            Key::Lease => keys.retain(|key| key.contains(":l:")),
            Key::Ring => keys.retain(|key| key.ends_with(":keys")),
        }
        keys.pop()
    }

    async fn lose_at(&mut self, moment: usize, cache: &TokenCache) {
        let (key, at) = self.case;
        if moment == at
            && let Some(place) = self.place(key, cache).await
        {
            self.found = self.server.query::<u64>(&format!("DEL {place}")) == 1;
        }
    }
}

async fn sign_in(cache: &TokenCache, id: &str) -> Tokens {
    let tokens = cache.tokens(session(id));
    let set = TokenSet::from(Token::new("graph")).with_refresh_token("refresh");
    tokens.insert("graph", set).await.unwrap();
    assert_eq!(tokens.commit().await.unwrap(), Durability::Stored);
    tokens
}

/// Signs in, and again where both instances have just told L2 of the sign-out: what began between the two
/// clears is refused.
async fn signs_in_again(cache: &TokenCache) {
    loop {
        let tokens = cache.tokens(session("linked"));
        let set = TokenSet::from(Token::new("graph")).with_refresh_token("refresh");
        let signed_in = async {
            tokens.insert("graph", set).await?;
            assert_stored(tokens.commit().await?);
            tokens.link_user("ada").await
        };
        match signed_in.await {
            Ok(()) => return,
            Err(error) => assert!(matches!(error, Error::SignedOut), "{error:?}"),
        }
    }
}

async fn has_anything(cache: &TokenCache, key: PartitionKey) -> bool {
    let tokens = cache.tokens(key);
    // What memory says while a busy machine answers late is another guarantee's.
    tokens.set_failure_policy(FailurePolicy::Strict);
    loop {
        match finds_anything(&tokens).await {
            Ok(found) => return found,
            Err(Error::Unavailable(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error:?}"),
        }
    }
}

async fn finds_anything(tokens: &Tokens) -> Result<bool, Error> {
    let mut found = tokens.refresh_token().await?.is_hit();
    for name in ["graph", "mail", "late"] {
        found |= tokens.get(name).await?.is_hit();
    }
    Ok(found)
}

/// Whether there was such a key then.
async fn lose(mut world: World) -> ((Key, usize), bool) {
    let what = format!("{:?} lost at moment {}", world.case.0, world.case.1);
    let (one, other) = (world.instance().await, world.instance().await);
    sign_in(&one, "linked")
        .await
        .link_user("ada")
        .await
        .unwrap();
    sign_in(&one, "ended").await;
    let late = ["linked", "ended"].map(|id| one.tokens(session(id)));
    for tokens in &late {
        tokens.insert("late", Token::new("before")).await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
    }
    let (asked, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let acquiring = {
        let (tokens, asked, go_on) = (late[0].clone(), asked.clone(), go_on.clone());
        let provider = async move |_: Prior| {
            asked.notify_one();
            go_on.notified().await;
            let set = TokenSet::from(Token::new("mail")).with_refresh_token("next");
            Ok::<_, ProviderError>(set)
        };
        tokio::spawn(async move { tokens.get_or_acquire("mail", provider).await })
    };
    soon(&what, asked.notified()).await;
    world.lose_at(1, &one).await;
    for id in ["linked", "ended"] {
        let _ = soon(&what, other.tokens(session(id)).get("graph")).await;
    }
    world.lose_at(2, &one).await;
    let ended = soon(&what, other.tokens(session("ended")).sign_out()).await;
    assert_eq!(ended.unwrap(), Durability::Stored, "{what}");
    let ended = soon(&what, other.sign_out_user("ada")).await;
    assert_eq!(ended.unwrap(), Durability::Stored, "{what}");
    world.lose_at(3, &one).await;
    for tokens in &late {
        let _ = soon(&what, tokens.insert("late", Token::new("late"))).await;
    }
    go_on.notify_one();
    // Signed out, or a token that nobody else gets.
    let _ = soon(&what, acquiring).await.unwrap();
    world.lose_at(4, &one).await;
    for tokens in &late {
        let _ = soon(&what, tokens.commit()).await;
    }
    let written = async {
        while one.stats().pending_changes > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    soon(&what, written).await;
    world.lose_at(5, &one).await;
    world.clock.advance(LATER);
    // A number that has been begun elsewhere is found within ten seconds.
    tokio::time::sleep(Duration::from_secs(11)).await;
    let fresh = world.instance().await;
    for _ in 0..2 {
        for (name, cache) in [("one", &one), ("other", &other), ("fresh", &fresh)] {
            for id in ["linked", "ended"] {
                let found = soon(&what, has_anything(cache, session(id))).await;
                assert!(!found, "{what}: {id} on {name}");
            }
        }
        // A handle from before writes nothing that anybody finds.
        for tokens in &late {
            if soon(&what, tokens.insert("late", Token::new("later")))
                .await
                .is_ok()
            {
                let _ = soon(&what, tokens.commit()).await;
            }
        }
    }
    // The next sign-in is one, for whoever has the same keys.
    soon(&what, signs_in_again(&other)).await;
    let found = soon(&what, has_anything(&other, session("linked"))).await;
    assert!(found, "{what}: the next sign-in");
    (world.case, world.found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_deleted_brings_no_signed_out_token_back() {
    let server = Arc::new(RedisServer::start());
    let store = redis_store(&server).await;
    let mut cases = JoinSet::new();
    for key in KEYS {
        for moment in 1..=MOMENTS {
            let world = World::new(&server, &store, (key, moment)).await;
            cases.spawn(lose(world));
        }
    }
    let cases = cases.join_all().await;
    for key in KEYS {
        let mut found = cases.iter().filter(|(case, found)| case.0 == key && *found);
        assert!(found.next().is_some(), "{key:?} was never there");
    }
}
