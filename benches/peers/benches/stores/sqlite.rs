//! SQLite: `SqliteStore` beside `sqlx`.

use std::path::Path;

use peers::users::USERS;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row, SqliteConnection};
use tower_token_cache::store::PartitionId;
use tower_token_cache::{Estimate, SqliteStore, Timestamp};

use super::side::{Ours, PAYLOAD, SLIDING, Side, VALUES, entry, expiry, value};
use super::turns::{Measured, compare};

pub async fn measure(store: &'static str) -> Measured {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    let sqlite = SqliteStore::open(&path).await.unwrap();
    let mut raw = Raw::open(&path).await;
    let mut ours = Ours::filled(sqlite.clone(), "ours").await;
    let stored = raw.bytes().await;
    ours.change_all().await;
    ours.change_all().await;
    let changed = raw.bytes().await;
    raw.ids = Ours::filled(sqlite, "raw").await.ids;
    Measured {
        store,
        rows: compare(&mut ours, &mut raw).await,
        stored,
        changed,
        estimate: Estimate::users(USERS as u64, 1).sqlite,
    }
}

/// One connection that reads, and one that writes.
struct Raw {
    reader: SqliteConnection,
    writer: SqliteConnection,
    ids: Vec<PartitionId>,
    version: i64,
}

impl Raw {
    async fn open(path: &Path) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .foreign_keys(true)
            .pragma("secure_delete", "ON")
            .pragma("synchronous", "NORMAL")
            .disable_statement_logging();
        Self {
            reader: options.connect().await.unwrap(),
            writer: options.connect().await.unwrap(),
            ids: Vec::new(),
            version: 1,
        }
    }

    async fn bytes(&mut self) -> u64 {
        let size = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
        let size = sqlx::query_scalar(size).fetch_one(&mut self.reader);
        let bytes: i64 = size.await.unwrap();
        bytes as u64
    }
}

impl Side for Raw {
    async fn load(&mut self, users: &[usize]) {
        let texts = SqliteStore::texts();
        for some in texts.parts(users) {
            let mut query = sqlx::query(AssertSqlSafe(texts.load(some.len())));
            for user in some {
                query = query.bind(&self.ids[*user].digest()[..]);
            }
            let rows = query.fetch_all(&mut self.reader).await.unwrap();
            let bytes = rows.iter().map(|row| row.get::<&[u8], _>("value").len());
            assert_eq!(bytes.sum::<usize>(), some.len() * PAYLOAD);
        }
    }

    async fn commit(&mut self, users: &[usize]) {
        let texts = SqliteStore::texts();
        let now = Timestamp::now().as_millis() as i64;
        let end = now + SLIDING.as_millis() as i64;
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.unwrap();
        for some in texts.parts(users) {
            let mut query = sqlx::query(AssertSqlSafe(texts.heads(some.len())));
            for user in some {
                query = query.bind(&self.ids[*user].digest()[..]);
            }
            let rows = query.fetch_all(&mut *transaction).await.unwrap();
            assert_eq!(rows.len(), some.len() * VALUES.len());
        }
        self.version += 1;
        for some in texts.parts(users) {
            let mut query = sqlx::query(AssertSqlSafe(texts.put_partitions(some.len())));
            for user in some {
                query = query
                    .bind(&self.ids[*user].digest()[..])
                    .bind(0_i64)
                    .bind(self.version)
                    .bind(now)
                    .bind(None::<i64>)
                    .bind(None::<i64>)
                    .bind(SLIDING.as_millis() as i64)
                    .bind(end)
                    .bind(None::<i64>)
                    .bind(&[0_u8; 17 * 8][..])
                    .bind(end);
            }
            query.execute(&mut *transaction).await.unwrap();
        }
        let entries = users
            .iter()
            .flat_map(|user| (0..VALUES.len()).map(move |at| (user, at)));
        for some in texts.parts(&entries.collect::<Vec<_>>()) {
            let mut query = sqlx::query(AssertSqlSafe(texts.put_entries(some.len())));
            for (user, at) in some {
                query = query
                    .bind(&self.ids[**user].digest()[..])
                    .bind(entry(*at).as_bytes().to_vec())
                    .bind(self.version)
                    .bind(expiry(*at).map(|at| at as i64))
                    .bind(value(*at));
            }
            query.execute(&mut *transaction).await.unwrap();
        }
        transaction.commit().await.unwrap();
    }
}
