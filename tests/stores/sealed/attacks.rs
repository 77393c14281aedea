//! What somebody achieves who can write to Redis, and has no key: a counted miss.

use axum::Router;
use axum::routing::get;
use http_body_util::BodyExt;
use tower_token_cache::{
    Error, KeyRing, PartitionKey, RedisStore, Tokens, UnopenableReasons, key as keys,
};

use super::*;

/// Two users with two tokens each, in a Redis of their own.
struct Scene {
    server: RedisServer,
    store: RedisStore,
    ring: KeyRing,
    ada: PartitionKey,
    bob: PartitionKey,
}

/// An entry of a partition's hash: its field and what stands there.
type Field = (Vec<u8>, Vec<u8>);

impl Scene {
    async fn new() -> Self {
        let server = RedisServer::start();
        let scene = Self {
            store: redis_store(&server).await,
            server,
            ring: KeyRing::generate().unwrap(),
            ada: user("ada"),
            bob: user("bob"),
        };
        let cache = scene.cache();
        for (user, name, text) in [
            (&scene.ada, "graph", "ada's graph"),
            (&scene.ada, "mail", "ada's mail"),
            (&scene.bob, "graph", "bob's graph"),
        ] {
            store_token(&cache, user, name, text).await;
        }
        scene
    }

    fn cache(&self) -> TokenCache {
        sealed(self.store.clone(), &self.ring)
    }

    /// Where a partition stands, by the operator's API.
    async fn place(&self, user: &PartitionKey) -> String {
        let id = self.cache().partition_id(user).await.unwrap();
        format!("ttc:{{{}}}", id.encoded())
    }

    async fn fields(&self, user: &PartitionKey) -> Vec<Field> {
        let place = self.place(user).await;
        let all: Vec<Field> =
            redis::from_redis_value(self.server.command(&[b"HGETALL", place.as_bytes()])).unwrap();
        let is_entry = |(name, _): &Field| name.first() == Some(&b'e') && name.len() == 17;
        all.into_iter().filter(is_entry).collect()
    }

    /// The entry of which this is the token.
    async fn field(&self, user: &PartitionKey, name: &str) -> Field {
        let before = self.fields(user).await;
        let cache = self.cache();
        let text = hit(&cache, user, name).await.unwrap();
        store_token(&cache, user, name, &text).await;
        let changed = |field: &Field| !before.contains(field);
        self.fields(user).await.into_iter().find(changed).unwrap()
    }

    async fn set(&self, user: &PartitionKey, field: &[u8], value: &[u8]) {
        let place = self.place(user).await;
        self.server
            .command(&[b"HSET", place.as_bytes(), field, value]);
    }

    /// A request of a fresh instance finds nothing and succeeds, the miss is counted for this
    /// reason, and the next commit puts all right.
    async fn assert_miss(&self, user: &PartitionKey, reason: impl Fn(&UnopenableReasons) -> u64) {
        let cache = self.cache();
        let owner = user.clone();
        async fn read(tokens: Tokens) -> Result<&'static str, Error> {
            let found = tokens.get("graph").await?;
            Ok(match found {
                Lookup::Hit(_) => "hit",
                Lookup::Unopenable => "unopenable",
                _ => "other",
            })
        }
        let layer = tower_token_cache::TokenCacheLayer::new(cache.clone(), keys::constant(owner));
        let app = Router::new().route("/", get(read)).layer(layer);
        let response = send(&app, "x", "/").await;
        assert_eq!(response.status(), 200);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(&body[..], b"unopenable");
        let stats = cache.stats();
        assert_eq!(reason(&stats.unopenable_reasons), 1, "{stats:?}");
        assert_eq!(stats.unopenable, 1, "{stats:?}");

        store_token(&cache, user, "graph", "new").await;
        let fresh = self.cache();
        assert_eq!(hit(&fresh, user, "graph").await.as_deref(), Some("new"));
        assert_eq!(fresh.stats().unopenable, 0);
    }
}

#[tokio::test]
async fn a_value_does_not_open_for_another_user() {
    let scene = Scene::new().await;
    let (field, adas) = scene.field(&scene.ada, "graph").await;
    let (same, bobs) = scene.field(&scene.bob, "graph").await;
    assert_eq!(
        field, same,
        "the name of an entry is the same for all users"
    );
    scene.set(&scene.ada, &field, &bobs).await;
    scene.set(&scene.bob, &field, &adas).await;
    scene
        .assert_miss(&scene.ada, |reasons| reasons.tampered)
        .await;
    scene
        .assert_miss(&scene.bob, |reasons| reasons.tampered)
        .await;
}

#[tokio::test]
async fn a_value_does_not_open_for_another_entry() {
    let scene = Scene::new().await;
    let (graph, of_graph) = scene.field(&scene.ada, "graph").await;
    let (mail, of_mail) = scene.field(&scene.ada, "mail").await;
    scene.set(&scene.ada, &graph, &of_mail).await;
    scene.set(&scene.ada, &mail, &of_graph).await;
    let cache = scene.cache();
    for name in ["graph", "mail"] {
        let found = found(&cache, &scene.ada, name).await;
        assert!(matches!(found, Lookup::Unopenable), "{name}");
    }
    store_token(&cache, &scene.ada, "mail", "new").await;
    scene
        .assert_miss(&scene.ada, |reasons| reasons.tampered)
        .await;
}

#[tokio::test]
async fn a_value_from_before_a_sign_out_does_not_open() {
    let scene = Scene::new().await;
    let (field, value) = scene.field(&scene.ada, "graph").await;
    let cache = scene.cache();
    assert_stored(cache.tokens(scene.ada.clone()).sign_out().await.unwrap());
    store_token(&cache, &scene.ada, "graph", "of the next session").await;
    scene.set(&scene.ada, &field, &value).await;
    scene
        .assert_miss(&scene.ada, |reasons| reasons.tampered)
        .await;
}

#[tokio::test]
async fn a_value_does_not_open_under_another_generation() {
    let scene = Scene::new().await;
    let cache = scene.cache();
    assert_stored(cache.tokens(scene.bob.clone()).sign_out().await.unwrap());
    store_token(&cache, &scene.bob, "graph", "bob's graph").await;
    let place = scene.place(&scene.bob).await;
    let mut head: Vec<u8> = scene.server.query(&format!("HGET {place} h"));
    assert_eq!(head[1..9], 1_u64.to_be_bytes());
    head[1..9].fill(0);
    scene.set(&scene.bob, b"h", &head).await;
    scene
        .assert_miss(&scene.bob, |reasons| reasons.tampered)
        .await;
}

/// What sealing cannot do, and says so: a record that is put back as a whole is a sound one. Who
/// remembers the sign-out does not take it; who does not, does.
#[tokio::test]
async fn a_whole_record_from_before_a_sign_out_can_be_put_back() {
    let scene = Scene::new().await;
    let place = scene.place(&scene.ada).await;
    let dump = scene.server.command(&[b"DUMP", place.as_bytes()]);
    let dump: Vec<u8> = redis::from_redis_value(dump).unwrap();
    let there = builder(scene.store.clone()).key_ring(scene.ring.clone());
    let there = there.build().unwrap();
    assert_stored(there.tokens(scene.ada.clone()).sign_out().await.unwrap());
    let restore = [b"RESTORE", place.as_bytes(), b"0", &dump[..], b"REPLACE"];
    scene.server.command(&restore);
    assert_eq!(hit(&there, &scene.ada, "graph").await, None);
    let elsewhere = hit(&scene.cache(), &scene.ada, "graph").await;
    assert_eq!(elsewhere.as_deref(), Some("ada's graph"));
}

#[tokio::test]
async fn without_its_head_a_record_is_damaged() {
    let scene = Scene::new().await;
    let place = scene.place(&scene.ada).await;
    scene.server.command(&[b"HDEL", place.as_bytes(), b"h"]);
    let cache = scene.cache();
    assert_eq!(hit(&cache, &scene.ada, "graph").await, None);
    let stats = cache.stats();
    assert_eq!((stats.unopenable, stats.unopenable_reasons.damaged), (1, 1));
    store_token(&cache, &scene.ada, "graph", "new").await;
    let fresh = scene.cache();
    assert_eq!(
        hit(&fresh, &scene.ada, "graph").await.as_deref(),
        Some("new")
    );
    assert_eq!(fresh.stats().unopenable, 0);
}

#[tokio::test]
async fn plaintext_is_refused() {
    let scene = Scene::new().await;
    let (field, value) = scene.field(&scene.ada, "graph").await;
    // The same token, as an instance without a ring writes it.
    let plain = builder(scene.store.clone()).build().unwrap();
    store_token(&plain, &user("eve"), "graph", "eve's token").await;
    let eve = format!(
        "ttc:{{{}}}",
        plain.partition_id(&user("eve")).await.unwrap().encoded()
    );
    let all = scene.server.command(&[b"HGETALL", eve.as_bytes()]);
    let all: Vec<Field> = redis::from_redis_value(all).unwrap();
    let planted = all
        .iter()
        .find(|(name, _)| name[0] == b'e' && name.len() == 17);
    let planted = [&value[..16], &planted.unwrap().1[16..]].concat();
    assert!(planted.windows(5).any(|window| window == b"eve's"));
    scene.set(&scene.ada, &field, &planted).await;
    scene
        .assert_miss(&scene.ada, |reasons| reasons.plaintext)
        .await;
}

#[tokio::test]
async fn a_value_that_was_cut_off_does_not_open() {
    let scene = Scene::new().await;
    let (field, value) = scene.field(&scene.ada, "graph").await;
    for length in [
        value.len() - 1,
        value.len() - 16,
        16 + 23 + 15,
        16 + 11,
        16 + 5,
        16 + 3,
    ] {
        scene.set(&scene.ada, &field, &value[..length]).await;
        scene
            .assert_miss(&scene.ada, |reasons| reasons.tampered)
            .await;
    }
    for length in [16, 18] {
        scene.set(&scene.ada, &field, &value[..length]).await;
        scene
            .assert_miss(&scene.ada, |reasons| reasons.foreign)
            .await;
    }
}

/// The first 16 bytes are the store's: the entry's version and expiry. Who changes them can hide a
/// token, as by removing it, and not show another one.
#[tokio::test]
async fn every_bit_counts() {
    let scene = Scene::new().await;
    let (field, value) = scene.field(&scene.ada, "graph").await;
    let cache = scene.cache();
    // The mark; the format's version and protection; the key's id; all else. It is read again where the
    // store tells of the change while it is being read.
    let kinds = || {
        let reasons = cache.stats().unopenable_reasons;
        let versions = reasons.unknown_version + reasons.damaged + reasons.plaintext;
        [
            reasons.foreign,
            versions,
            reasons.unknown_key,
            reasons.tampered,
        ]
    };
    let mut found_by = [0; 4];
    for bit in 0..8 * value.len() {
        let mut flipped = value.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        scene.set(&scene.ada, &field, &flipped).await;
        let before = kinds();
        match found(&cache, &scene.ada, "graph").await {
            Lookup::Unopenable => {
                let after = kinds();
                let grown: Vec<_> = (0..4).filter(|kind| after[*kind] > before[*kind]).collect();
                assert_eq!(grown.len(), 1, "bit {bit}: {before:?}, {after:?}");
                found_by[grown[0]] += 1;
            }
            Lookup::Hit(token) if bit < 128 => assert_eq!(token.access_token(), "ada's graph"),
            Lookup::Absent if bit < 128 => {}
            other => panic!("bit {bit}: {other:?}"),
        }
    }
    assert_eq!(found_by, [8, 16, 64, 8 * (value.len() - 16 - 11)]);
    store_token(&cache, &scene.ada, "graph", "new").await;
    assert_eq!(
        hit(&scene.cache(), &scene.ada, "graph").await.as_deref(),
        Some("new")
    );
}

#[tokio::test]
async fn another_ring_finds_nothing_and_disturbs_nothing() {
    let scene = Scene::new().await;
    let stranger = sealed(scene.store.clone(), &KeyRing::generate().unwrap());
    assert_eq!(hit(&stranger, &scene.ada, "graph").await, None);
    store_token(&stranger, &scene.ada, "graph", "the stranger's").await;
    let ours = hit(&scene.cache(), &scene.ada, "graph").await;
    assert_eq!(ours.as_deref(), Some("ada's graph"));
    // The same names, and another key.
    let (names, active) = (key(1), key(2));
    let one = KeyRing::from_keys_named_by(names.clone(), active, []);
    let other = KeyRing::from_keys_named_by(names, key(3), []);
    let eve = user("eve");
    store_token(&sealed(scene.store.clone(), &one), &eve, "graph", "t").await;
    let cache = sealed(scene.store.clone(), &other);
    assert!(matches!(
        found(&cache, &eve, "graph").await,
        Lookup::Unopenable
    ));
    assert_eq!(cache.stats().unopenable_reasons.unknown_key, 1);
    // Nor does an instance without any ring take it for a token.
    let plain = builder(scene.store.clone()).build().unwrap();
    assert_eq!(hit(&plain, &eve, "graph").await, None);
}
