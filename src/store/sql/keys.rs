//! A key ring's repository in a SQL database: a table beside the partitions.

use std::fmt;

use super::dialect::Dialect;
use super::handle::SqlStore;
use super::operations::Attempts;
use crate::seal::{KeyRecord, KeyRepository, KeyRingError};

/// The keys of a ring in the same database as what they seal. Made by [`SqlStore::keys`].
pub struct SqlKeys<D> {
    store: SqlStore<D>,
    namespace: String,
}

impl<D: Dialect> SqlStore<D> {
    /// Where the keys of a [`KeyRing`](crate::KeyRing) are kept in this database: the table `token_cache_keys`, which
    /// [`migrate`](Self::migrate) makes with the others. It needs the rights `SELECT` and `INSERT` there. Rings of
    /// several applications differ in their `namespace`, which has 255 bytes at most.
    pub fn keys(&self, namespace: &str) -> SqlKeys<D> {
        SqlKeys {
            store: self.clone(),
            namespace: namespace.into(),
        }
    }
}

impl<D: Dialect> KeyRepository for SqlKeys<D> {
    async fn list(&self) -> Result<Vec<KeyRecord>, KeyRingError> {
        let Self { store, namespace } = self;
        let mut attempts = Attempts::new();
        loop {
            let mut taken = store.take().await?;
            let asked = store.dialect.list_keys(&mut taken.connection, namespace);
            let answer = store.in_time(asked).await?;
            if let Some(records) = store.settle(&mut attempts, taken, answer).await? {
                return Ok(records);
            }
        }
    }

    async fn add(&self, record: &KeyRecord) -> Result<bool, KeyRingError> {
        let Self { store, namespace } = self;
        let mut attempts = Attempts::new();
        let added = loop {
            let mut taken = store.take().await?;
            let connection = &mut taken.connection;
            let asked = store.dialect.add_key(connection, namespace, record);
            let answer = store.in_time(asked).await?;
            if let Some(added) = store.settle(&mut attempts, taken, answer).await? {
                break added;
            }
        };
        // The record that is there may be the one whose answer was lost.
        Ok(added || attempts.was_cut && self.list().await?.contains(record))
    }

    fn is_beside_data(&self) -> bool {
        true
    }
}

impl<D> Clone for SqlKeys<D> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            namespace: self.namespace.clone(),
        }
    }
}

impl<D> fmt::Debug for SqlKeys<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlKeys")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}
