//! A client gets another key while it is in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use common::client_key::ClientKey;
use common::eventually;
use common::oidc::OidcProvider;
use common::support::*;
use tower_token_cache::grant::{Client, PrivateKeyJwt, SigningKey};
use tower_token_cache::{MemoryStore, TokenCache};

use super::{NOWHERE, acquire, code, register, token_url};

fn signing(key: &ClientKey) -> SigningKey {
    let kid = key.jwk["kid"].as_str().unwrap();
    SigningKey::from_pem(&key.pkcs8).unwrap().kid(kid)
}

/// Acquires without a pause, and counts.
#[derive(Default)]
struct Load {
    ended: AtomicBool,
    begun: AtomicUsize,
    done: AtomicUsize,
}

impl Load {
    async fn run(&self, worker: usize, cache: TokenCache, client: Client) {
        while !self.ended.load(SeqCst) {
            let number = self.begun.fetch_add(1, SeqCst);
            let acquired = acquire(&cache, &client, &format!("{worker} {number}")).await;
            acquired.unwrap_or_else(|error| panic!("acquisition {number}: {error:?}"));
            self.done.fetch_add(1, SeqCst);
        }
    }

    /// Waits until all that has begun is done, and some more.
    async fn passes(&self) {
        let begun = self.begun.load(SeqCst);
        eventually("acquisitions go on", async || {
            self.done.load(SeqCst) >= begun + 20
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acquisition_fails_while_keys_are_replaced_in_time() {
    let provider = OidcProvider::start(NOWHERE, 3600);
    let keys = ["old", "new", "newer"].map(ClientKey::ec);
    register(&provider, "ES256", &[&keys[0]]).await;
    let jwt = PrivateKeyJwt::new(signing(&keys[0]));
    let client = Client::new(token_url(&provider), "service").unwrap();
    let client = client.assertion(jwt.clone());
    let cache = cache(MemoryStore::new());
    let load = Arc::new(Load::default());
    let workers: Vec<_> = (0..8)
        .map(|worker| {
            let (load, cache, client) = (load.clone(), cache.clone(), client.clone());
            tokio::spawn(async move { load.run(worker, cache, client).await })
        })
        .collect();
    for pair in keys.windows(2) {
        load.passes().await;
        register(&provider, "ES256", &[&pair[0], &pair[1]]).await;
        jwt.replace_key(signing(&pair[1]));
        // What was signed with the old key has its answer by then.
        load.passes().await;
        register(&provider, "ES256", &[&pair[1]]).await;
    }
    load.passes().await;
    load.ended.store(true, SeqCst);
    for worker in workers {
        worker.await.expect("no acquisition failed");
    }
    // Too late is an error that says so, and ends when the key is there.
    register(&provider, "ES256", &[&keys[0]]).await;
    let late = acquire(&cache, &client, "late").await.unwrap_err();
    assert_eq!(code(&late), "invalid_client");
    jwt.replace_key(signing(&keys[0]));
    acquire(&cache, &client, "in time").await.unwrap();
}
