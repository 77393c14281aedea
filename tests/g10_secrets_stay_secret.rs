//! Guarantee 10: secrets stay secret.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::io::Write;
use std::sync::{Arc, Mutex};

use tower_token_cache::{PartitionKey, TokenKey, TokenSet};
use tracing_subscriber::fmt::MakeWriter;

use crate::common::support::*;

const SECRETS: [&str; 5] = [
    "canary-access",
    "canary-refresh",
    "canary-id",
    "canary-session",
    "canary-extra",
];

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;
    fn make_writer(&self) -> Self {
        self.clone()
    }
}

fn assert_clean(what: &str, text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{what} shows {secret}: {text}");
    }
}

#[tokio::test]
async fn not_in_logs_debug_errors_or_the_stores_keys() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);

    let mut server = RedisServer::start();
    let cache = redis_cache(&server).await;
    let key = PartitionKey::session("canary-session").unwrap();
    let set = TokenSet::from(
        token("canary-access")
            .with_extra("e", &"canary-extra")
            .unwrap(),
    )
    .with_refresh_token("canary-refresh")
    .with_id_token("canary-id");
    let tokens = cache.tokens(key.clone());
    tokens.insert("graph", set.clone()).await.unwrap();
    tokens.commit().await.unwrap();
    let lookup = tokens.get("graph").await.unwrap();
    let refresh = tokens.refresh_token().await.unwrap();
    for text in [
        format!("{key:?} {tokens:?} {cache:?} {lookup:?} {refresh:?} {set:?}"),
        format!("{key:#?} {tokens:#?} {lookup:#?} {set:#?}"),
    ] {
        assert_clean("Debug", &text);
    }
    let keys: Vec<String> = server.query("KEYS *");
    assert_clean("a key in Redis", &keys.join(" "));
    let fields: Vec<Vec<u8>> = server.query(&format!("HKEYS {}", keys[0]));
    for field in fields {
        assert_clean("a field in Redis", &String::from_utf8_lossy(&field));
    }

    // Errors and what is logged about them: Redis refuses, is damaged, dies.
    server.query::<()>(&format!("SET {} foreign", keys[0]));
    let other = redis_cache(&server).await;
    let _ = other.tokens(key.clone()).get("graph").await;
    server.kill();
    other
        .tokens(key.clone())
        .set_failure_policy(tower_token_cache::FailurePolicy::Strict);
    let strict = builder(redis_store(&server).await)
        .failure_policy(tower_token_cache::FailurePolicy::Strict)
        .build()
        .unwrap();
    let error = strict.tokens(key.clone()).get("graph").await.unwrap_err();
    assert_clean("an error", &format!("{error} {error:?} {error:#?}"));
    for error in [
        TokenKey::new("canary-id\n").unwrap_err(),
        PartitionKey::user("canary-session\n").unwrap_err(),
    ] {
        assert_clean("a key error", &format!("{error} {error:?}"));
    }
    let url = tower_token_cache::RedisStore::connect("nonsense://u:canary-access@h").await;
    assert_clean("a configuration error", &format!("{:?}", url.unwrap_err()));

    drop(guard);
    let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(
        log.contains("L2 store failed"),
        "the log was captured: {log}"
    );
    assert_clean("the log", &log);
}
