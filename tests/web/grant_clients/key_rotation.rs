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

/// Workers that acquire without a pause, and how often each has.
#[derive(Default)]
struct Load {
    ended: AtomicBool,
    done: [AtomicUsize; 8],
}

impl Load {
    async fn run(&self, worker: usize, cache: TokenCache, client: Client) {
        while !self.ended.load(SeqCst) {
            let name = format!("{worker} {}", self.done[worker].load(SeqCst));
            let acquired = acquire(&cache, &client, &name).await;
            acquired.unwrap_or_else(|error| panic!("acquisition {name}: {error:?}"));
            self.done[worker].fetch_add(1, SeqCst);
        }
    }

    /// Waits until each worker is done with what it has begun, and with two more.
    async fn passes(&self) {
        let counts = || self.done.each_ref().map(|count| count.load(SeqCst));
        let before = counts();
        eventually("acquisitions go on", async || {
            counts()
                .iter()
                .zip(before)
                .all(|(now, before)| *now >= before + 3)
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
    let workers: Vec<_> = (0..load.done.len())
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
