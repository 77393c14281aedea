//! Encryption at rest: what is in L2, what somebody who can write to L2 achieves, and the life of
//! keys.

mod attacks;
mod canary;
mod migration;
mod plaintext;
mod protection_of_keys;
pub(crate) mod repositories;
mod rotation;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tower_token_cache::seal::{KeyRecord, KeyRepository, KeyRingError, RingKey};
use tower_token_cache::{KeyRing, L1, Lookup, PartitionKey, TokenCache, TokenStore};

use common::support::*;

/// A cache that keeps nothing in memory: what it finds is in L2.
fn sealed(store: impl TokenStore, ring: &KeyRing) -> TokenCache {
    let builder = builder(store).l1(L1::disabled()).key_ring(ring.clone());
    builder.build().unwrap()
}

fn user(name: &str) -> PartitionKey {
    PartitionKey::user(name).unwrap()
}

/// What an instance that has nothing in memory finds.
async fn found(cache: &TokenCache, key: &PartitionKey, name: &str) -> Lookup {
    cache.tokens(key.clone()).get(name).await.unwrap()
}

async fn hit(cache: &TokenCache, key: &PartitionKey, name: &str) -> Option<String> {
    let found = found(cache, key, name).await.hit();
    found.map(|token| token.access_token().to_owned())
}

async fn store_token(cache: &TokenCache, key: &PartitionKey, name: &str, text: &str) {
    let tokens = cache.tokens(key.clone());
    tokens.insert(name, token(text)).await.unwrap();
    assert_stored(tokens.commit().await.unwrap());
}

pub(crate) fn key(byte: u8) -> RingKey {
    RingKey::from_bytes([byte; 32])
}

/// A repository that all its clones share.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<BTreeMap<String, KeyRecord>>>);

impl Shared {
    fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().keys().cloned().collect()
    }

    fn text(&self, name: &str) -> String {
        let records = self.0.lock().unwrap();
        String::from_utf8(records[name].content.to_vec()).unwrap()
    }

    fn set_text(&self, name: &str, text: &str) {
        let mut records = self.0.lock().unwrap();
        let record = records.get_mut(name).unwrap();
        record.content = text.as_bytes().to_vec().into();
    }
}

impl KeyRepository for Shared {
    async fn list(&self) -> Result<Vec<KeyRecord>, KeyRingError> {
        let records = self.0.lock().unwrap().values().cloned().collect();
        Ok(records)
    }

    async fn add(&self, record: &KeyRecord) -> Result<bool, KeyRingError> {
        let mut records = self.0.lock().unwrap();
        let added = !records.contains_key(&record.name);
        records
            .entry(record.name.clone())
            .or_insert_with(|| record.clone());
        Ok(added)
    }
}
