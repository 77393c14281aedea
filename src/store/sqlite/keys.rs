//! A key ring's repository in SQLite: a table beside the partitions.

use zeroize::Zeroizing;

use super::SqliteStore;
use super::code::store_error;
use crate::seal::{KeyRecord, KeyRepository, KeyRingError};

/// Made when a ring is first opened; a database without one needs no table.
const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS ring_keys (
        namespace TEXT NOT NULL,
        name TEXT NOT NULL,
        content BLOB NOT NULL,
        PRIMARY KEY (namespace, name)
    ) STRICT, WITHOUT ROWID";

const EXISTS: &str =
    "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'ring_keys'";

/// The keys of a ring in the same file as what they seal. Made by [`SqliteStore::keys`].
#[derive(Clone, Debug)]
pub struct SqliteKeys {
    store: SqliteStore,
    namespace: String,
}

impl SqliteStore {
    /// Where the keys of a [`KeyRing`](crate::KeyRing) are kept in this file: the table
    /// `ring_keys`.
    pub fn keys(&self, namespace: &str) -> SqliteKeys {
        SqliteKeys {
            store: self.clone(),
            namespace: namespace.into(),
        }
    }
}

impl SqliteKeys {
    async fn rows(&self) -> sqlx::Result<Vec<KeyRecord>> {
        let mut reader = self.store.reader().await?;
        let tables: i64 = sqlx::query_scalar(EXISTS)
            .fetch_one(&mut reader.connection)
            .await?;
        let query = "SELECT name, content FROM ring_keys WHERE namespace = ?";
        let rows: Vec<(String, Vec<u8>)> = match tables {
            0 => Vec::new(),
            _ => {
                sqlx::query_as(query)
                    .bind(&self.namespace)
                    .fetch_all(&mut reader.connection)
                    .await?
            }
        };
        reader.keep();
        let record = |(name, content)| KeyRecord {
            name,
            content: Zeroizing::new(content),
        };
        Ok(rows.into_iter().map(record).collect())
    }

    async fn insert(&self, record: &KeyRecord) -> sqlx::Result<bool> {
        let mut transaction = self.store.begin().await?;
        sqlx::query(TABLE).execute(transaction.connection()).await?;
        let query = "INSERT INTO ring_keys VALUES (?, ?, ?) ON CONFLICT DO NOTHING";
        let done = sqlx::query(query)
            .bind(&self.namespace)
            .bind(&record.name)
            .bind(&record.content[..])
            .execute(transaction.connection())
            .await?;
        transaction.commit().await?;
        Ok(done.rows_affected() == 1)
    }
}

impl KeyRepository for SqliteKeys {
    async fn list(&self) -> Result<Vec<KeyRecord>, KeyRingError> {
        Ok(self.rows().await.map_err(store_error)?)
    }

    async fn add(&self, record: &KeyRecord) -> Result<bool, KeyRingError> {
        Ok(self.insert(record).await.map_err(store_error)?)
    }

    fn is_beside_data(&self) -> bool {
        true
    }
}
