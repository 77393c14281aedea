//! Sessions of other crates, as those write them.

use std::collections::HashMap;
use std::time::Duration;

use common::redis::RedisServer;
use common::support::{cache, session, token};
use serde_json::json;
use tower_sessions::cookie::time::OffsetDateTime;
use tower_sessions::session::{Id, Record};
use tower_token_cache::import::{Found, Import, Report};
use tower_token_cache::{MemoryStore, RedisStore, TokenCache, TokenSet};

/// As `tower-sessions-redis-store` 0.16 does.
fn put_tower_session(server: &RedisServer, data: serde_json::Value) -> String {
    let serde_json::Value::Object(data) = data else {
        panic!("an object");
    };
    let record = Record {
        id: Id::default(),
        data: data.into_iter().collect(),
        expiry_date: OffsetDateTime::now_utc() + Duration::from_secs(3600),
    };
    let key = record.id.to_string();
    let bytes = rmp_serde::to_vec(&record).unwrap();
    server.command(&[b"SET", key.as_bytes(), &bytes, b"EX", b"3600"]);
    key
}

/// As `RedisSessionStore` of actix-session 0.11 does.
fn put_actix_session(server: &RedisServer, key: &str, data: &[(&str, serde_json::Value)]) {
    let state: HashMap<_, _> = data.iter().map(|(k, v)| (*k, v.to_string())).collect();
    let body = serde_json::to_string(&state).unwrap();
    server.command(&[
        b"SET",
        key.as_bytes(),
        body.as_bytes(),
        b"NX",
        b"EX",
        b"3600",
    ]);
}

fn tokens_of(text: &str) -> serde_json::Value {
    json!({"access_token": text, "token_type": "Bearer", "expires_in": 3600, "refresh_token": "r"})
}

fn find(found: &tower_token_cache::import::Session) -> Option<Found> {
    assert!(
        found
            .remaining()
            .is_some_and(|left| left <= Duration::from_secs(3600))
    );
    let tokens: TokenSet = found.get("tokens")?;
    let user: String = found.get("user")?;
    Some(Found::new(session(found.id()), "graph", tokens).user(user))
}

async fn value(cache: &TokenCache, id: &str) -> Option<String> {
    let found = cache.tokens(session(id)).get("graph").await.unwrap().hit();
    found.map(|token| token.access_token().to_owned())
}

fn report(counts: [u64; 4]) -> Report {
    let mut report = Report::default();
    let [imported, present, without_tokens, foreign] = counts;
    (report.imported, report.present) = (imported, present);
    (report.without_tokens, report.foreign) = (without_tokens, foreign);
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_tower_sessions_keep_their_ids() {
    let server = RedisServer::start();
    let redis = RedisStore::connect(server.url()).await.unwrap();
    let cache = cache(MemoryStore::new());
    let one = |user: &str| json!({"user": user, "tokens": tokens_of(user), "cart": [1, 2]});
    let (ada, bob) = (
        put_tower_session(&server, one("ada")),
        put_tower_session(&server, one("bob")),
    );
    put_tower_session(&server, json!({"cart": [3]}));
    server.query::<()>("SET somebody's x");
    server.query::<()>("LPUSH list x");
    let tokens = cache.tokens(session(&bob));
    tokens.insert("graph", token("newer")).await.unwrap();

    let run = async || {
        Import::tower_sessions(&redis)
            .into_cache(&cache, find)
            .await
    };
    assert_eq!(run().await.unwrap(), report([1, 1, 1, 1]));
    assert_eq!(value(&cache, &ada).await.as_deref(), Some("ada"));
    assert_eq!(
        value(&cache, &bob).await.as_deref(),
        Some("newer"),
        "it is not replaced"
    );
    let refresh_token = cache.tokens(session(&ada)).refresh_token().await.unwrap();
    assert_eq!(refresh_token.hit().unwrap().expose(), "r");
    assert_eq!(run().await.unwrap(), report([0, 2, 1, 1]), "and once");
    assert_eq!(cache.sessions_of("ada").await.unwrap(), [session(&ada)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_actix_session_are_found_behind_their_prefix() {
    let server = RedisServer::start();
    let redis = RedisStore::connect(server.url()).await.unwrap();
    let cache = cache(MemoryStore::new());
    for user in 0..1200 {
        let (user, key) = (format!("user {user}"), format!("app[1]*:key-{user}"));
        let data = [("user", json!(user)), ("tokens", tokens_of(&user))];
        put_actix_session(&server, &key, &data);
    }
    put_actix_session(&server, "app1:key-other", &[("user", json!("other"))]);
    let import = Import::actix_session(&redis).prefix("app[1]*:");
    let done = import.into_cache(&cache, find).await.unwrap();
    assert_eq!(done, report([1200, 0, 0, 0]));
    assert_eq!(value(&cache, "key-7").await.as_deref(), Some("user 7"));
    assert_eq!(value(&cache, "key-other").await, None);
}

/// One session that cannot be imported keeps none of the others out.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_the_cache_does_not_take_is_counted() {
    let server = RedisServer::start();
    let redis = RedisStore::connect(server.url()).await.unwrap();
    let cache = cache(MemoryStore::new());
    let large = "x".repeat(2 << 20);
    put_tower_session(&server, json!({"user": "bob", "tokens": tokens_of(&large)}));
    put_tower_session(&server, json!({"user": "", "tokens": tokens_of("cyd")}));
    for user in ["ada", "dan", "eve"] {
        put_tower_session(&server, json!({"user": user, "tokens": tokens_of(user)}));
    }
    let import = Import::tower_sessions(&redis).into_cache(&cache, find);
    let done = import.await.unwrap();
    assert_eq!((done.imported, done.refused), (3, 2));
    assert_eq!(cache.sessions_of("eve").await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_not_stored_is_an_error() {
    let server = RedisServer::start();
    let redis = RedisStore::connect(server.url()).await.unwrap();
    put_tower_session(&server, json!({"user": "ada", "tokens": tokens_of("ada")}));
    let store = common::store::TestStore::default();
    let cache = cache(store.clone());
    store.set_down(true);
    let done = Import::tower_sessions(&redis)
        .into_cache(&cache, find)
        .await;
    assert!(
        matches!(done, Err(tower_token_cache::Error::Unavailable(_))),
        "{done:?}"
    );
    store.set_down(false);
    let again = async || {
        Import::tower_sessions(&redis)
            .into_cache(&cache, find)
            .await
    };
    common::eventually("it is imported", async || again().await.is_ok()).await;
}

/// The file is what actix-session 0.11 has written.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_actix_session_is_read() {
    let record = include_bytes!("../golden/actix_session.v0_11.json");
    let server = RedisServer::start();
    server.command(&[b"SET", b"key", record, b"EX", b"3600"]);
    let redis = RedisStore::connect(server.url()).await.unwrap();
    let cache = cache(MemoryStore::new());
    let done = Import::actix_session(&redis).into_cache(&cache, find).await;
    assert_eq!(done.unwrap(), report([1, 0, 0, 0]));
    assert_eq!(value(&cache, "key").await.as_deref(), Some("ada's"));
}
