//! MariaDB: `MySqlStore` beside `sqlx`.

use std::str::FromStr;

use peers::servers::mariadb::MariaDbServer;
use peers::users::USERS;
use sqlx::mysql::{MySqlConnectOptions, MySqlRow};
use sqlx::{AssertSqlSafe, ConnectOptions, MySqlConnection, Row};
use tower_token_cache::store::PartitionId;
use tower_token_cache::{Estimate, MySqlStore};

use super::side::{Ours, PATIENCE, SLIDING, Side, VALUES, by_digest, entry, expiry, value};
use super::turns::{Measured, compare};

const HOUR: u64 = 3_600_000;

pub async fn measure(store: &'static str) -> Measured {
    let server = MariaDbServer::start();
    let mysql = MySqlStore::builder(server.url()).response_timeout(PATIENCE);
    let mysql = mysql.build().unwrap();
    mysql.migrate().await.unwrap();
    let bytes = || {
        let files = "SELECT SUM(FILE_SIZE) FROM information_schema.INNODB_SYS_TABLESPACES \
                     WHERE NAME IN ('tokens/token_cache_partitions', 'tokens/token_cache_entries')";
        let bytes = server.query_as_root(files);
        bytes.concat().parse().expect("a number")
    };
    let mut ours = Ours::filled(mysql.clone(), "ours").await;
    let stored = bytes();
    ours.change_all().await;
    ours.change_all().await;
    let changed = bytes();
    let theirs = Ours::filled(mysql.clone(), "raw").await;
    let mut raw = Raw::connect(&server.url(), mysql, theirs.ids).await;
    Measured {
        store,
        rows: compare(&mut ours, &mut raw).await,
        stored,
        changed,
        estimate: Estimate::users(USERS as u64, 1).mysql,
    }
}

/// One connection.
struct Raw {
    connection: MySqlConnection,
    /// Of the texts of its statements.
    store: MySqlStore,
    ids: Vec<PartitionId>,
    /// By user.
    versions: Vec<i64>,
    stamp: i64,
}

impl Raw {
    async fn connect(url: &str, store: MySqlStore, ids: Vec<PartitionId>) -> Self {
        let options = MySqlConnectOptions::from_str(url).unwrap();
        let options = options.set_names(false).timezone(None);
        let mut connection = options.connect().await.unwrap();
        let isolation = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";
        sqlx::query(isolation)
            .execute(&mut connection)
            .await
            .unwrap();
        let users = by_digest(&ids);
        let mut versions = vec![0; ids.len()];
        let states = "SELECT id, version FROM token_cache_partitions";
        let states = sqlx::query(states).fetch_all(&mut connection).await;
        for row in states.unwrap() {
            if let Some(user) = users.get(row.get::<&[u8], _>("id")) {
                versions[*user] = row.get("version");
            }
        }
        Self {
            connection,
            store,
            ids,
            versions,
            stamp: 0,
        }
    }

    async fn read(&mut self, text: String, users: &[usize]) -> Vec<MySqlRow> {
        // As many as there are places: the groups are of powers of two.
        let query = users
            .iter()
            .fold(sqlx::query(AssertSqlSafe(text)), |query, user| {
                query.bind(&self.ids[*user].digest()[..])
            });
        let rows = query.fetch_all(&mut self.connection).await.unwrap();
        assert_eq!(rows.len(), users.len() * VALUES.len());
        rows
    }
}

impl Side for Raw {
    async fn load(&mut self, users: &[usize]) {
        let rows = self.read(self.store.texts().load(users.len()), users).await;
        let bytes = rows.iter().map(|row| row.get::<&[u8], _>("value").len());
        assert!(bytes.sum::<usize>() > 0);
    }

    async fn commit(&mut self, users: &[usize]) {
        let rows = self
            .read(self.store.texts().heads(users.len()), users)
            .await;
        let texts = self.store.texts();
        let now: i64 = rows[0].get("moment");
        let end = now + SLIDING.as_millis() as i64;
        let hour = |at: u64| (at / HOUR + 1) as i64;
        let expiries: [Option<u64>; VALUES.len()] = std::array::from_fn(expiry);
        let ids: Vec<_> = users.iter().map(|user| *self.ids[*user].digest()).collect();
        let begin = sqlx::raw_sql(AssertSqlSafe(texts.begin(&ids, now + 1000)));
        let held = begin.fetch_all(&mut self.connection).await.unwrap();
        assert_eq!(held.len(), users.len());
        let mut put = sqlx::query(AssertSqlSafe(texts.put_partitions(users.len())));
        for user in users {
            self.stamp += 1;
            self.versions[*user] += 1;
            put = put
                .bind(&self.ids[*user].digest()[..])
                .bind(self.stamp)
                .bind(0_i64)
                .bind(self.versions[*user])
                .bind(now)
                .bind(None::<i64>)
                .bind(None::<i64>)
                .bind(Some(SLIDING.as_millis() as i64))
                .bind(Some(end))
                .bind(None::<i64>)
                .bind(&[0_u8; 17 * 8][..])
                .bind(Some(hour(end as u64)));
        }
        put.execute(&mut self.connection).await.unwrap();
        let rows = users.len() * VALUES.len();
        let mut put = sqlx::query(AssertSqlSafe(texts.put_entries(rows)));
        for (user, at) in users
            .iter()
            .flat_map(|user| (0..VALUES.len()).map(move |at| (user, at)))
        {
            put = put
                .bind(&self.ids[*user].digest()[..])
                .bind(entry(at).as_bytes().to_vec())
                .bind(self.versions[*user])
                .bind(expiries[at].map(|at| at as i64))
                .bind(expiries[at].map(hour))
                .bind(value(at));
        }
        put.execute(&mut self.connection).await.unwrap();
        let commit = sqlx::raw_sql(AssertSqlSafe(texts.commit(&ids)));
        commit.execute(&mut self.connection).await.unwrap();
    }
}
