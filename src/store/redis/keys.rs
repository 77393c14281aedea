//! A key ring's repository in Redis: one hash, a field per record.

use bb8_redis::redis::{Pipeline, Value};
use zeroize::Zeroizing;

use super::answers::{store_error, unexpected};
use super::{RedisStore, record};
use crate::error::StoreError;
use crate::seal::{KeyRecord, KeyRepository, KeyRingError};

/// The keys of a ring in the same server as what they seal. Made by [`RedisStore::keys`].
///
/// Besides those of its connections it needs the rights `~namespace:keys +hgetall +hsetnx`; the store
/// has the [whole list](RedisStore#rights).
#[derive(Clone, Debug)]
pub struct RedisKeys {
    store: RedisStore,
    key: String,
}

impl RedisStore {
    /// Where the keys of a [`KeyRing`](crate::KeyRing) are kept on this server: the hash
    /// `namespace:keys`, without an expiry. Set the server's eviction policy to `noeviction`, and make
    /// sure that it is backed up with the records.
    pub fn keys(&self, namespace: &str) -> RedisKeys {
        RedisKeys {
            store: self.clone(),
            // No partition's key is like it: those have braces.
            key: format!("{namespace}:keys"),
        }
    }
}

impl RedisKeys {
    async fn ask(&self, pipeline: Pipeline) -> Result<Value, StoreError> {
        let answers = self.store.send(&pipeline).await?;
        let answer = answers.into_iter().next().ok_or_else(unexpected)?;
        answer.map_err(store_error)
    }
}

impl KeyRepository for RedisKeys {
    async fn list(&self) -> Result<Vec<KeyRecord>, KeyRingError> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.cmd("HGETALL").arg(&self.key);
        let pairs = record::pairs(self.ask(pipeline).await?).ok_or_else(unexpected)?;
        let record = |pair| match pair {
            (Value::BulkString(name), Value::BulkString(content)) => Some(KeyRecord {
                name: String::from_utf8(name).ok()?,
                content: Zeroizing::new(content),
            }),
            _ => None,
        };
        Ok(pairs.into_iter().filter_map(record).collect())
    }

    async fn add(&self, record: &KeyRecord) -> Result<bool, KeyRingError> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline
            .cmd("HSETNX")
            .arg(&self.key)
            .arg(&record.name)
            .arg(&record.content[..]);
        match self.ask(pipeline).await? {
            Value::Int(added) => Ok(added == 1),
            _ => Err(unexpected().into()),
        }
    }

    fn is_beside_data(&self) -> bool {
        true
    }
}
