use std::time::Duration;

use tower_token_cache::{CacheLevel, Error, Lookup, Timeouts};

use common::support::*;

/// Damages the record under a key.
type Damage = fn(&RedisServer, &str);
/// Damages the bytes of an entry.
type Rewrite = fn(Vec<u8>) -> Vec<u8>;

#[tokio::test]
async fn to_the_handler_and_in_the_counters() {
    let store = TestStore::default();
    let cache = cache(store.clone());
    let tokens = cache.tokens(session("s"));
    assert_eq!(tokens.get("graph").await.unwrap(), Lookup::Absent);
    assert_eq!(tokens.last_read(), CacheLevel::None);
    assert!(matches!(tokens.claims().await, Err(Error::SignedOut)));
    store.set_down(true);
    let other = cache.tokens(session("other"));
    assert_eq!(other.get("graph").await.unwrap(), Lookup::Unavailable);
    assert_eq!(other.last_read(), CacheLevel::Unavailable);
    assert!(other.contains("graph").await.is_err());
    assert!(other.keys().await.is_err());
    assert!(matches!(other.claims().await, Err(Error::Unavailable(_))));
    assert_eq!(cache.stats().unopenable, 0);
    assert!(cache.stats().l2_errors > 0);
}

/// Damages the only entry or record of session `s`, and returns what a read finds then, how many
/// damages were counted, and whether the next commit repaired everything.
async fn after(damage: impl Fn(&RedisServer, &str)) -> (Lookup, u64) {
    let server = RedisServer::start();
    let writer = redis_cache(&server).await.tokens(session("s"));
    writer.insert("graph", token("t")).await.unwrap();
    assert_stored(writer.commit().await.unwrap());
    damage(&server, &server.only_key());

    // What is damaged is not to be taken for what is late.
    let patience = Duration::from_secs(5);
    let patient = Timeouts::new().attempt(patience).operation(2 * patience);
    let cache = builder(redis_store(&server).await).timeouts(patient);
    let cache = cache.build().unwrap();
    let tokens = cache.tokens(session("s"));
    let lookup = tokens.get("graph").await.unwrap();
    let counted = cache.stats().unopenable;
    tokens.insert("graph", token("repaired")).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
    let store = redis_store(&server).await;
    assert_eq!(
        stored(store, "s", "graph").await.as_deref(),
        Some("repaired")
    );
    (lookup, counted)
}

/// Replaces the bytes of the entry by what `change` makes of them.
fn rewrite(server: &RedisServer, key: &str, change: impl Fn(Vec<u8>) -> Vec<u8>) {
    let fields: Vec<(Vec<u8>, Vec<u8>)> = server.query(&format!("HGETALL {key}"));
    let (name, value) = fields
        .into_iter()
        .find(|(name, _)| name[0] == b'e')
        .expect("an entry");
    server.command(&[b"HSET", key.as_bytes(), &name, &change(value)]);
}

#[tokio::test]
async fn truncated_corrupt_oversized_and_unknown_entries_are_counted_misses_and_replaced() {
    let changes: [(&str, Rewrite); 6] = [
        ("truncated", |value| value[..value.len() - 3].to_vec()),
        ("corrupt", |mut value| {
            value[20] ^= 0xff;
            value
        }),
        ("unknown version", |mut value| {
            value[17] = 99;
            value
        }),
        ("foreign", |value| {
            [&value[..16], b"{\"not\":\"ours\"}"].concat()
        }),
        ("oversized", |value| {
            [&value[..], &vec![0; 2 << 20]].concat()
        }),
        ("trailing bytes", |value| [&value[..], b"x"].concat()),
    ];
    for (what, change) in changes {
        let (lookup, counted) = after(|server, key| rewrite(server, key, change)).await;
        assert_eq!((lookup, counted), (Lookup::Unopenable, 1), "{what}");
    }
}

#[tokio::test]
async fn an_entry_in_another_entrys_place_does_not_open() {
    let server = RedisServer::start();
    let writer = redis_cache(&server).await.tokens(session("s"));
    writer.insert("a", token("a")).await.unwrap();
    writer.insert("b", token("b")).await.unwrap();
    assert_stored(writer.commit().await.unwrap());
    let key = server.only_key();
    let fields: Vec<(Vec<u8>, Vec<u8>)> = server.query(&format!("HGETALL {key}"));
    let entries: Vec<_> = fields.iter().filter(|(name, _)| name[0] == b'e').collect();
    server.command(&[b"HSET", key.as_bytes(), &entries[0].0, &entries[1].1]);
    server.command(&[b"HSET", key.as_bytes(), &entries[1].0, &entries[0].1]);
    let reader = redis_cache(&server).await.tokens(session("s"));
    assert_eq!(reader.get("a").await.unwrap(), Lookup::Unopenable);
    assert_eq!(reader.get("b").await.unwrap(), Lookup::Unopenable);
}

#[tokio::test]
async fn a_foreign_record_is_a_counted_miss_and_replaced() {
    let damages: [(&str, Damage); 7] = [
        ("wrong type", |server, key| {
            server.query::<()>(&format!("SET {key} foreign"));
        }),
        ("foreign hash", |server, key| {
            server.query::<()>(&format!("DEL {key}"));
            server.query::<()>(&format!("HSET {key} some field"));
        }),
        ("no head", |server, key| {
            server.query::<()>(&format!("HDEL {key} h"));
        }),
        ("a short head", |server, key| {
            let head: Vec<u8> = server.query(&format!("HGET {key} h"));
            server.command(&[b"HSET", key.as_bytes(), b"h", &head[..72]]);
        }),
        ("a head of another form", |server, key| {
            let mut head: Vec<u8> = server.query(&format!("HGET {key} h"));
            head[0] += 1;
            server.command(&[b"HSET", key.as_bytes(), b"h", &head]);
        }),
        ("an absurd generation", |server, key| {
            let mut head: Vec<u8> = server.query(&format!("HGET {key} h"));
            head[1] = 0xff;
            server.command(&[b"HSET", key.as_bytes(), b"h", &head]);
        }),
        ("an absurd end", |server, key| {
            let mut head: Vec<u8> = server.query(&format!("HGET {key} h"));
            head[41] = 0x70;
            server.command(&[b"HSET", key.as_bytes(), b"h", &head]);
        }),
    ];
    for (what, damage) in damages {
        let (lookup, counted) = after(damage).await;
        assert_eq!(counted, 1, "{what}");
        assert!(!lookup.is_hit(), "{what}");
    }
}
