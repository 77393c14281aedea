//! Session values on each store, in the clear and sealed: each is taken once, on any instance.
//! `web::cookie::values` has those of sessions in cookies.

use std::time::Duration;

use futures_util::future::join_all;
use tower_token_cache::{
    KeyRing, Lookup, MemoryStore, SqliteStore, Timeouts, TokenCache, TokenStore, Tokens,
};

use common::support::*;

const MINUTE: Duration = Duration::from_secs(60);

async fn put(tokens: &Tokens, name: &str, text: &str) {
    tokens.put(name, text, MINUTE).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
}

async fn take(tokens: &Tokens, name: &str) -> Lookup<String> {
    tokens.take(name).await.unwrap()
}

/// Two instances on this store keep every promise.
async fn all(store: impl TokenStore + Clone) {
    let ring = KeyRing::generate().unwrap();
    // A disk that all tests share is slow at times.
    let timeouts = Timeouts::new().operation(MINUTE).attempt(MINUTE);
    let patient = || builder(store.clone()).timeouts(timeouts.clone());
    let plain = || patient().namespace("plain");
    let sealed = || patient().key_ring(ring.clone());
    for [one, other] in [[plain(), plain()], [sealed(), sealed()]] {
        each(&one.build().unwrap(), &other.build().unwrap()).await;
    }
}

async fn each(one: &TokenCache, other: &TokenCache) {
    let [here, there] = [one, other].map(|cache| cache.tokens(session("s")));
    here.insert("graph", token("t")).await.unwrap();
    put(&here, "read", "r").await;
    put(&here, "taken", "first").await;
    let read = there.value::<String>("read").await.unwrap();
    assert_eq!(read, Lookup::Hit("r".into()));
    assert_eq!(take(&there, "taken").await, Lookup::Hit("first".into()));
    for tokens in [&there, &here] {
        assert_eq!(take(tokens, "taken").await, Lookup::Absent);
    }
    put(&there, "taken", "second").await;
    assert_eq!(take(&here, "taken").await, Lookup::Hit("second".into()));
    assert_eq!(take(&there, "taken").await, Lookup::Absent);
    for round in 0..10 {
        let name = round.to_string();
        put(&here, &name, "v").await;
        let takes = (0..50).map(|number| {
            let tokens = if number % 2 == 0 { &here } else { &there };
            take(tokens, &name)
        });
        let taken = join_all(takes).await;
        let given = taken.iter().filter(|it| it.is_hit()).count();
        assert_eq!(given, 1, "{taken:?}");
    }
    here.put("short", "v", Duration::from_millis(50))
        .await
        .unwrap();
    assert_stored(here.commit().await.unwrap());
    eventually("it expires", async || {
        take(&there, "short").await == Lookup::Absent
    })
    .await;
    let moved = here.move_to(session("moved")).await.unwrap();
    assert_eq!(take(&moved, "taken").await, Lookup::Absent);
    assert_eq!(take(&moved, "read").await, Lookup::Hit("r".into()));
    put(&moved, "last", "v").await;
    let elsewhere = other.tokens(session("moved"));
    assert_stored(elsewhere.sign_out().await.unwrap());
    for cache in [one, other] {
        assert_eq!(
            take(&cache.tokens(session("moved")), "last").await,
            Lookup::Absent
        );
        assert_eq!(
            take(&cache.tokens(session("s")), "read").await,
            Lookup::Absent
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_gives_a_value_once() {
    all(MemoryStore::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_gives_a_value_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("tokens.db")).await;
    all(store.unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_gives_a_value_once() {
    let server = RedisServer::start();
    all(redis_store(&server).await).await;
}
