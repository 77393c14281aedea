//! Nothing secret is in a store, raw, in base64 or in hex.

use std::time::Duration;

use tower_token_cache::{SqliteStore, Token, TokenSet};

use super::*;
use common::leaks::{file_contents, redis_contents, shows};

const SECRETS: [&str; 6] = [
    "canary-access-canary-access-canary-access",
    "canary-refresh-canary-refresh-canary-refresh",
    "canary-id-canary-id-canary-id-canary-id-canary",
    "canary-session-canary-session-canary-session",
    "canary-extra-canary-extra-canary-extra-canary",
    "canary-value-canary-value-canary-value-canary",
];
/// The names of tokens are not secret, and are not shown either.
const NAME: &str = "canary-name-canary-name-canary-name";
const KEY: [u8; 32] = *b"canary-key-canary-key-canary-key";

async fn fill(cache: &TokenCache) {
    let tokens = cache.tokens(session(SECRETS[3]));
    let access = token(SECRETS[0]).with_extra("extra", &SECRETS[4]).unwrap();
    let set = TokenSet::from(access)
        .with_refresh_token(SECRETS[1])
        .with_id_token(SECRETS[2]);
    tokens.insert(NAME, set).await.unwrap();
    tokens
        .insert("second", Token::new(SECRETS[0]))
        .await
        .unwrap();
    let hour = Duration::from_secs(3600);
    tokens.put(NAME, SECRETS[5], hour).await.unwrap();
    tokens.put("taken", SECRETS[5], hour).await.unwrap();
    let taken = tokens.take::<String>("taken").await.unwrap();
    assert_eq!(taken, Lookup::Hit(SECRETS[5].into()));
    assert_stored(tokens.commit().await.unwrap());
}

fn secrets() -> Vec<&'static [u8]> {
    let texts = SECRETS.iter().map(|secret| secret.as_bytes());
    texts.chain([NAME.as_bytes(), &KEY[..]]).collect()
}

fn assert_no_secret(contents: &[u8]) {
    assert!(contents.len() > 1000);
    for secret in secrets() {
        let text = String::from_utf8_lossy(secret);
        assert!(!shows(contents, secret), "{text}");
    }
}

#[tokio::test]
async fn redis_holds_no_secret() {
    let server = RedisServer::start();
    let plain = redis_cache(&server).await;
    fill(&plain).await;
    for secret in [SECRETS[0], SECRETS[5]] {
        let shown = shows(&redis_contents(&server), secret.as_bytes());
        assert!(shown, "the test can fail");
    }
    // A server of its own: what L2 has lost the first cache may write again.
    let server = RedisServer::start();
    let store = redis_store(&server).await;

    let ring = KeyRing::open_in_store(store.keys("ttc"), RingKey::from_bytes(KEY));
    let ring = ring.await.unwrap();
    fill(&sealed(store, &ring)).await;
    let contents = redis_contents(&server);
    assert_no_secret(&contents);
}

#[tokio::test]
async fn sqlite_holds_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let contents = |name: &str| file_contents(folder.path(), name);
    let store = SqliteStore::open(folder.path().join("plain.db"))
        .await
        .unwrap();
    fill(&builder(store).build().unwrap()).await;
    for secret in [SECRETS[0], SECRETS[5]] {
        let shown = shows(&contents("plain.db"), secret.as_bytes());
        assert!(shown, "the test can fail");
    }

    let store = SqliteStore::open(folder.path().join("sealed.db"))
        .await
        .unwrap();
    let ring = KeyRing::open_in_store(store.keys("ttc"), RingKey::from_bytes(KEY));
    fill(&sealed(store, &ring.await.unwrap())).await;
    let contents = contents("sealed.db");
    assert_no_secret(&contents);
}
