//! Guarantee 10: secrets stay secret. The canary gate: known secrets go through every store, policy
//! and error path, with every log of every crate switched on, and are looked for afterwards.

mod cookies;
mod databases;
mod evidence;
mod faults;
mod imports;
mod journeys;
mod logins;
mod logouts;
mod public_types;
mod web;

use evidence::Evidence;
use tower_token_cache::{
    FailurePolicy, MemoryStore, SqliteStore, TokenCache, TokenSet, TokenStore,
};

use common::leaks::{file_contents, redis_contents};
use common::own_process::is_own;
use common::support::*;

const ACCESS: &str = "canary-access-canary-access-canary-access";
const NEXT_ACCESS: &str = "kanary-next-access-kanary-next-access-kanary";
const REFRESH: &str = "canary-refresh-canary-refresh-canary-refresh";
const NEXT_REFRESH: &str = "kanary-next-refresh-kanary-next-refresh-kan";
const ID: &str = "canary-id-canary-id-canary-id-canary-id-canary";
const EXTRA: &str = "canary-extra-canary-extra-canary-extra-canary";
const SESSION: &str = "canary-session-canary-session-canary-session";
const NEXT_SESSION: &str = "kanary-next-session-kanary-next-session-kan";
const USER: &str = "canary-user-canary-user-canary-user-canary-us";
const ASSERTION: &str = "canary-assertion-canary-assertion-canary-ass";
const CLIENT_SECRET: &str = "canary-client-canary-client-canary-client-ca";
const PASSPHRASE: &str = "canary-passphrase-canary-passphrase-canary-p";
const PASSWORD: &str = "canary-password-canary-password-canary-passw";
const DATABASE_PASSWORD: &str = "canary-database-canary-database-canary-datab";
const CODE: &str = "canary-code-canary-code-canary-code-canary-co";
const PROVIDER_SESSION: &str = "canary-sid-canary-sid-canary-sid-canary-sid-c";
const KEY: [u8; 32] = *b"canary-key-canary-key-canary-key";

const POLICIES: [FailurePolicy; 3] = [
    FailurePolicy::Degrade,
    FailurePolicy::Strict,
    FailurePolicy::Bypass,
];

fn secrets() -> [(&'static str, &'static [u8]); 17] {
    [
        ("an access token", ACCESS.as_bytes()),
        ("an acquired token", NEXT_ACCESS.as_bytes()),
        ("a refresh token", REFRESH.as_bytes()),
        ("an acquired refresh token", NEXT_REFRESH.as_bytes()),
        ("an id token", ID.as_bytes()),
        ("an extra field", EXTRA.as_bytes()),
        ("a session id", SESSION.as_bytes()),
        ("another session id", NEXT_SESSION.as_bytes()),
        ("a user's id", USER.as_bytes()),
        ("an assertion", ASSERTION.as_bytes()),
        ("a client secret", CLIENT_SECRET.as_bytes()),
        ("a passphrase", PASSPHRASE.as_bytes()),
        ("a password of Redis", PASSWORD.as_bytes()),
        ("a password of a database", DATABASE_PASSWORD.as_bytes()),
        ("an authorization code", CODE.as_bytes()),
        ("a session at the provider", PROVIDER_SESSION.as_bytes()),
        ("a key of the ring", &KEY),
    ]
}

fn tokens() -> TokenSet {
    let access = token(ACCESS).with_extra("extra", &EXTRA).unwrap();
    TokenSet::from(access)
        .with_refresh_token(REFRESH)
        .with_id_token(ID)
}

/// All secrets in one text, for errors that tell more than they should.
fn indiscretion() -> String {
    let texts = secrets().map(|(_, secret)| String::from_utf8_lossy(secret));
    texts.join(" ")
}

/// A cache with these settings for each way of protection.
async fn build(store: impl TokenStore, policy: FailurePolicy, sealed: bool) -> TokenCache {
    let builder = builder(store).failure_policy(policy);
    match sealed {
        true => builder.key_ring(journeys::ring()),
        false => builder,
    }
    .build()
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_shows_a_secret() {
    if !is_own("g10_secrets_stay_secret::nothing_shows_a_secret") {
        return;
    }
    let mut evidence = Evidence::collect();
    evidence.can_fail();
    public_types::show(&evidence);
    let folder = tempfile::tempdir().unwrap();
    let mut server = RedisServer::start();
    let watch = evidence::Watch::start(&server);
    for sealed in [false, true] {
        for policy in POLICIES {
            let cache = build(MemoryStore::new(), policy, sealed).await;
            journeys::travel(&evidence, &cache).await;

            let name = format!("{sealed}-{policy:?}.db");
            let store = SqliteStore::open(folder.path().join(&name)).await.unwrap();
            let cache = build(store, policy, sealed).await;
            journeys::travel(&evidence, &cache).await;
            let at_rest = file_contents(folder.path(), &name);
            assert!(at_rest.len() > 1000);
            evidence.at_rest("SQLite", &at_rest, sealed);

            let settings = builder(redis_store(&server).await).failure_policy(policy);
            let settings = match sealed {
                true => settings.key_ring(journeys::ring()),
                false => settings,
            };
            let cache = settings.build().unwrap();
            eventually("the feed is alive", async || {
                cache.stats().feed_alive == Some(true)
            })
            .await;
            journeys::travel(&evidence, &cache).await;
            evidence.at_rest("Redis", &redis_contents(&server), sealed);
            evidence.names("Redis", &server);
            cache.shutdown(std::time::Duration::from_secs(5)).await;
        }
        // What went over the wire. Without encryption the values are there, in plain by design.
        let seen = watch.take();
        assert!(seen.len() > 1000);
        evidence.at_rest("MONITOR", &seen, sealed);
        server.query::<()>("FLUSHALL");
        let _ = watch.take();
    }

    journeys::keep_keys(&evidence, &server, folder.path()).await;
    evidence.bytes("Redis with keys", &redis_contents(&server));
    imports::run(&evidence, &server).await;
    faults::happen(&evidence, &mut server).await;
    databases::travel(&evidence).await;
    web::serve(&evidence).await;
    web::ask_a_provider(&evidence).await;
    logins::happen(&mut evidence).await;
    logouts::happen(&evidence).await;
    cookies::travel(&mut evidence).await;
    evidence.conclude();
}
