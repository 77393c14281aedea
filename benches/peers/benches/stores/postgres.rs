//! PostgreSQL: `PostgresStore` beside `sqlx`.

use std::sync::Arc;

use peers::servers::postgres::PostgresServer;
use peers::users::USERS;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use tower_token_cache::store::PartitionId;
use tower_token_cache::{Estimate, PostgresStore};

use super::side::{Ours, PATIENCE, SLIDING, Side, VALUES, by_digest, entry, expiry, value};
use super::turns::{Measured, compare};

const HOUR: u64 = 3_600_000;

pub async fn measure(store: &'static str) -> Measured {
    let server = PostgresServer::start();
    let postgres = PostgresStore::builder(server.url()).response_timeout(PATIENCE);
    let postgres = postgres.build().unwrap();
    postgres.migrate().await.unwrap();
    let mut raw = Raw::connect(&server.url(), &postgres).await;
    let mut ours = Ours::filled(postgres.clone(), "ours").await;
    let stored = raw.bytes().await;
    ours.change_all().await;
    ours.change_all().await;
    let changed = raw.bytes().await;
    let theirs = Ours::filled(postgres, "raw").await;
    raw.find(theirs.ids).await;
    Measured {
        store,
        rows: compare(&mut ours, &mut raw).await,
        stored,
        changed,
        estimate: Estimate::users(USERS as u64, 1).postgres,
    }
}

/// One connection.
struct Raw {
    connection: PgConnection,
    load: Arc<str>,
    heads: Arc<str>,
    write: Arc<str>,
    ids: Vec<PartitionId>,
    /// Stamp and version, by user.
    states: Vec<(i64, i64)>,
    stamp: i64,
}

impl Raw {
    async fn connect(url: &str, store: &PostgresStore) -> Self {
        let [heads, load, write] = store.texts();
        let mut connection = PgConnection::connect(url).await.unwrap();
        // As in ours: plans that do not depend on when they were made.
        let plans = sqlx::query("SET enable_seqscan = off");
        plans.execute(&mut connection).await.unwrap();
        Self {
            connection,
            load,
            heads,
            write,
            ids: Vec::new(),
            states: Vec::new(),
            stamp: 0,
        }
    }

    async fn bytes(&mut self) -> u64 {
        let sizes = "SELECT (pg_total_relation_size('token_cache_partitions') \
                     + pg_total_relation_size('token_cache_entries'))::bigint";
        let bytes: i64 = sqlx::query_scalar(sizes)
            .fetch_one(&mut self.connection)
            .await
            .unwrap();
        bytes as u64
    }

    /// The state of what is to be written.
    async fn find(&mut self, ids: Vec<PartitionId>) {
        let users = by_digest(&ids);
        self.states = vec![(0, 0); ids.len()];
        let states = "SELECT id, stamp, version FROM token_cache_partitions";
        let states = sqlx::query(states).fetch_all(&mut self.connection).await;
        for row in states.unwrap() {
            if let Some(user) = users.get(row.get::<&[u8], _>("id")) {
                self.states[*user] = (row.get("stamp"), row.get("version"));
            }
        }
        self.ids = ids;
    }

    async fn read(&mut self, text: Arc<str>, users: &[usize]) -> Vec<PgRow> {
        let digests = users.iter().map(|user| &self.ids[*user].digest()[..]);
        let query = sqlx::query(AssertSqlSafe(text)).bind(digests.collect::<Vec<_>>());
        let rows = query.fetch_all(&mut self.connection).await.unwrap();
        assert_eq!(rows.len(), users.len() * VALUES.len());
        rows
    }
}

impl Side for Raw {
    async fn load(&mut self, users: &[usize]) {
        let rows = self.read(self.load.clone(), users).await;
        let bytes = rows.iter().map(|row| row.get::<&[u8], _>("value").len());
        assert!(bytes.sum::<usize>() > 0);
    }

    async fn commit(&mut self, users: &[usize]) {
        let rows = self.read(self.heads.clone(), users).await;
        let now: i64 = rows[0].get("now");
        let end = now + SLIDING.as_millis() as i64;
        let hour = |at: u64| (at / HOUR + 1) as i64;
        let stamps: Vec<_> = (1..).map(|at| self.stamp + at).take(users.len()).collect();
        self.stamp += users.len() as i64;
        let expiries: [Option<u64>; VALUES.len()] = std::array::from_fn(expiry);
        let each = |value: i64| vec![value; users.len()];
        let some = |value: Option<i64>| vec![value; users.len()];
        let entries = || users.iter().flat_map(|_| 0..VALUES.len());
        let places = (1..=users.len() as i64).flat_map(|place| [place; VALUES.len()]);
        let old = |user: &usize| self.states[*user];
        let digests = users.iter().map(|user| &self.ids[*user].digest()[..]);
        let query = sqlx::query(AssertSqlSafe(self.write.clone()))
            .bind(digests.collect::<Vec<_>>())
            .bind(
                users
                    .iter()
                    .map(|user| Some(old(user).0))
                    .collect::<Vec<_>>(),
            )
            .bind(&stamps)
            .bind(each(0))
            .bind(users.iter().map(|user| old(user).1 + 1).collect::<Vec<_>>())
            .bind(each(now))
            .bind(some(None))
            .bind(some(None))
            .bind(some(Some(SLIDING.as_millis() as i64)))
            .bind(some(Some(end)))
            .bind(some(None))
            .bind(vec![&[0_u8; 17 * 8][..]; users.len()])
            .bind(some(Some(hour(end as u64))))
            .bind(now + 1000)
            .bind(false)
            .bind(Vec::<i64>::new())
            .bind(Vec::<&[u8]>::new())
            .bind(places.collect::<Vec<_>>())
            .bind(
                entries()
                    .map(|at| entry(at).as_bytes().to_vec())
                    .collect::<Vec<_>>(),
            )
            .bind(
                users
                    .iter()
                    .flat_map(|user| [old(user).1 + 1; VALUES.len()])
                    .collect::<Vec<_>>(),
            )
            .bind(
                entries()
                    .map(|at| expiries[at].map(|at| at as i64))
                    .collect::<Vec<_>>(),
            )
            .bind(
                entries()
                    .map(|at| expiries[at].map(hour))
                    .collect::<Vec<_>>(),
            )
            .bind(entries().map(value).collect::<Vec<_>>());
        let written = query.fetch_all(&mut self.connection).await.unwrap();
        assert_eq!(written.len(), users.len());
        for (user, stamp) in users.iter().zip(stamps) {
            self.states[*user] = (stamp, self.states[*user].1 + 1);
        }
    }
}
