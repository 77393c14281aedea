//! What applications do with tokens, well and badly.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tower_token_cache::seal::{PassphraseProtector, RingKey};
use tower_token_cache::{BoxError, Error, KeyRing, PartitionKey, Prior, ProviderError, Token};

use super::evidence::{Evidence, Indiscreet};
use super::*;

pub(crate) fn ring() -> KeyRing {
    KeyRing::from_keys(RingKey::from_bytes(KEY), [])
}

pub(crate) fn acquired() -> TokenSet {
    let access = token(NEXT_ACCESS).with_extra("extra", &EXTRA).unwrap();
    TokenSet::from(access).with_refresh_token(NEXT_REFRESH)
}

pub(crate) async fn travel(evidence: &Evidence, cache: &TokenCache) {
    let handle = cache.tokens(session(SESSION));
    evidence.outcome("insert", handle.insert("graph", super::tokens()).await);
    evidence.outcome("insert", handle.insert("other", Token::new(ACCESS)).await);
    evidence.outcome("commit", handle.commit().await);
    read(evidence, cache).await;
    evidence.outcome("remove", handle.remove("other").await);

    acquire(evidence, cache).await;
    let large = Token::new(ACCESS.repeat(1 << 16));
    evidence.outcome("too large", handle.insert("graph", large).await);
    let bad_name = format!("{ACCESS}\n");
    evidence.outcome("bad name", handle.insert(bad_name.as_str(), tokens()).await);

    // Whose session it is, a new id for it, and the end of both.
    evidence.outcome("link_user", handle.link_user(USER).await);
    evidence.outcome("sessions_of", cache.sessions_of(USER).await);
    let moved = handle.move_to(session(NEXT_SESSION)).await;
    evidence.outcome("stale handle", handle.insert("graph", tokens()).await);
    if let Ok(moved) = &moved {
        evidence.outcome("link_user", moved.link_user(USER).await);
        evidence.outcome("get", moved.get("graph").await);
    }
    evidence.outcome("move_to", moved);
    evidence.outcome("sign_out_user", cache.sign_out_user(USER).await);
    let late = cache.tokens(session(SESSION));
    evidence.outcome("get", late.get("graph").await);
    evidence.outcome("sign_out", handle.sign_out().await);
    evidence.outcome("insert late", late.insert("graph", tokens()).await);

    // Something is left for whoever looks into the store.
    let user = cache.tokens(PartitionKey::user(USER).unwrap());
    user.set_failure_policy(FailurePolicy::Degrade);
    evidence.outcome("insert", user.insert("graph", tokens()).await);
    let on_behalf = cache.tokens(PartitionKey::assertion(ASSERTION));
    evidence.outcome("insert", on_behalf.insert("graph", tokens()).await);
    evidence.outcome("commit", user.commit().await);
    evidence.outcome("commit", on_behalf.commit().await);
    evidence.debug("handles", &(&user, &on_behalf, cache, cache.stats()));
}

async fn read(evidence: &Evidence, cache: &TokenCache) {
    let handle = cache.tokens(session(SESSION));
    evidence.outcome("get", handle.get("graph").await);
    evidence.outcome("get", handle.get_with_metadata("graph").await);
    evidence.outcome("refresh_token", handle.refresh_token().await);
    evidence.outcome("id_token", handle.id_token().await);
    evidence.outcome("keys", handle.keys().await);
    evidence.outcome("reload", handle.reload().await);
    let id = cache.partition_id(&session(SESSION)).await.unwrap();
    evidence.text(
        "an id",
        &format!("{id:?} {} {}", id.encoded(), id.namespace()),
    );
}

/// Acquisitions: well, and failing in each way, with errors that hold everything.
async fn acquire(evidence: &Evidence, cache: &TokenCache) {
    let handle = cache.tokens(session(SESSION));
    let prior = async |prior: Prior| -> Result<TokenSet, BoxError> {
        // Whoever logs what it was given shows nothing.
        tracing::info!(?prior, "asked for a token");
        Ok(acquired())
    };
    let acquisition = handle.acquire("graph").unwrap().force_refresh();
    evidence.debug("an acquisition", &acquisition);
    evidence.outcome("acquired", acquisition.with(prior).await);
    let known = Token::new(NEXT_ACCESS);
    evidence.outcome("rejected", handle.rejected("graph", &known, prior).await);

    let errors: [fn() -> BoxError; 6] = [
        || indiscretion().into(),
        || Indiscreet(indiscretion()).into(),
        || ProviderError::unreachable(Indiscreet(indiscretion())).into(),
        || {
            let pause = Duration::from_millis(1);
            let busy = ProviderError::status(http::StatusCode::TOO_MANY_REQUESTS);
            busy.with_retry_after(pause).into()
        },
        || ProviderError::refused("invalid_grant").into(),
        || std::panic::resume_unwind(Box::new(indiscretion())),
    ];
    for (number, error) in errors.into_iter().enumerate() {
        // A session of its own: failures are remembered.
        let handle = cache.tokens(session(&format!("{SESSION}-{number}")));
        evidence.outcome("insert", handle.insert("graph", super::tokens()).await);
        let calls = Arc::new(AtomicU32::new(0));
        for _ in 0..2 {
            let called = calls.clone();
            let failing = async move |_: Prior| {
                called.fetch_add(1, Ordering::Relaxed);
                Err::<TokenSet, _>(error())
            };
            let failed = handle.get_or_acquire("failing", failing).await;
            check_failure(evidence, failed.unwrap_err());
        }
        assert!(
            calls.load(Ordering::Relaxed) > 0,
            "the application was asked"
        );
        evidence.outcome("sign_out", handle.sign_out().await);
    }
}

/// The application's own error stays its own: only the chain of sources leads to it.
fn check_failure(evidence: &Evidence, error: Error) {
    evidence.text("an error", &format!("{error} {error:?} {error:#?}"));
    if let Error::Acquire(error) = &error {
        evidence.text("an error", &format!("{error} {error:?} {error:#?}"));
    }
}

/// Rings in every repository, and what goes wrong with keys.
pub(crate) async fn keep_keys(evidence: &Evidence, server: &RedisServer, folder: &Path) {
    let store = redis_store(server).await;
    let protector = PassphraseProtector::new(PASSPHRASE).unwrap();
    evidence.debug("a protector", &protector);
    let in_store = KeyRing::open_in_store(store.keys("ttc"), protector).await;
    let wrapped = KeyRing::open_in_store(store.keys("two"), RingKey::from_bytes(KEY)).await;
    let wrong = KeyRing::open_in_store(
        store.keys("ttc"),
        PassphraseProtector::new(format!("{PASSPHRASE}-2")).unwrap(),
    );
    evidence.error("a key ring", &wrong.await.unwrap_err());
    for ring in [in_store.unwrap(), wrapped.unwrap(), ring()] {
        evidence.debug("a key ring", &(&ring, ring.keys()));
        let cache = builder(redis_store(server).await).key_ring(ring);
        evidence.debug("a builder", &cache);
        travel(evidence, &cache.build().unwrap()).await;
    }
    let dir = KeyRing::open_dir(folder.join("keys"));
    evidence.debug("a key ring", &dir);

    for text in [PASSPHRASE, "", &indiscretion()] {
        evidence.error("a key", &RingKey::from_base64(text).unwrap_err());
    }
    evidence.error(
        "a protector",
        &PassphraseProtector::new(&PASSPHRASE[..9]).unwrap_err(),
    );
    evidence.error("a ring", &KeyRing::from_env("TTC_CANARY").unwrap_err());
}
