//! The change feed: the log of changes, read four times a second.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream;
use sqlx::mysql::MySqlRow;
use sqlx::{AssertSqlSafe, MySqlConnection, Row};
use tokio::time::{Instant, sleep_until, timeout};

use super::MySql;
use super::changes::{GRACE, Numbers};
use super::read_only;
use super::statements::{KEPT, NOW};
use crate::store::sql::dialect::Dialect;
use crate::store::sql::handle::SqlStore;
use crate::store::{Feed, FeedEvent};

/// How often the log is read.
const POLL: Duration = Duration::from_millis(250);

/// Changes that are read at once.
const MOST: usize = 5000;

pub(super) fn feed(store: SqlStore<MySql>) -> Feed {
    let listener = Listener {
        store,
        log: None,
        due: Instant::now(),
        next: VecDeque::new(),
    };
    Box::pin(stream::unfold(listener, async |mut listener| {
        Some((listener.event().await, listener))
    }))
}

struct Listener {
    store: SqlStore<MySql>,
    log: Option<Log>,
    due: Instant,
    /// What is told before anything else.
    next: VecDeque<FeedEvent>,
}

/// A connection that reads the log.
struct Log {
    connection: MySqlConnection,
    /// Which server it leads to.
    server: u64,
    numbers: Numbers,
}

/// What was read: the changes, and whether these were all.
struct News {
    events: Vec<FeedEvent>,
    all: bool,
}

impl Listener {
    async fn event(&mut self) -> FeedEvent {
        loop {
            if let Some(next) = self.next.pop_front() {
                return next;
            }
            sleep_until(self.due).await;
            let asked = Instant::now();
            self.due = asked + POLL;
            let read = timeout(
                self.store.response_timeout,
                read(&self.store, &mut self.log),
            );
            match read.await.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
                Ok(news) => {
                    self.next.extend(news.events);
                    match news.all {
                        true => self
                            .next
                            .push_back(FeedEvent::CompleteUntil(asked.into_std())),
                        false => self.due = asked,
                    }
                }
                // Whoever reads or writes is told why.
                Err(_) if self.log.take().is_some() => return FeedEvent::Lost,
                Err(_) => {}
            }
        }
    }
}

/// Reads what is new, after it has connected where it has to.
async fn read(store: &SqlStore<MySql>, log: &mut Option<Log>) -> sqlx::Result<News> {
    match log {
        Some(log) if store.dialect.server.load(Ordering::Relaxed) != log.server => {
            // The store has found another server meanwhile.
            Err(sqlx::Error::PoolClosed)
        }
        Some(log) => log.read(&store.dialect).await,
        None => {
            let mut opened = Log::open(store).await?;
            let mut news = opened.read(&store.dialect).await?;
            news.events.insert(0, FeedEvent::Everything);
            *log = Some(opened);
            Ok(news)
        }
    }
}

impl Log {
    async fn open(store: &SqlStore<MySql>) -> sqlx::Result<Self> {
        let dialect = &store.dialect;
        let mut connection = dialect.connect().await?;
        dialect
            .prepare(&mut connection, store.response_timeout)
            .await?;
        let settled = format!(
            "SELECT CAST(COALESCE(MAX(number), 0) AS SIGNED) FROM {{changes}} WHERE at < {NOW} - {}",
            GRACE.as_millis()
        );
        let settled = sqlx::query_scalar(AssertSqlSafe(dialect.statements.fill(&settled)));
        let settled: i64 = settled.fetch_one(&mut connection).await?;
        Ok(Self {
            connection,
            server: dialect.server.load(Ordering::Relaxed),
            numbers: Numbers::after(settled.unsigned_abs()),
        })
    }

    async fn read(&mut self, dialect: &MySql) -> sqlx::Result<News> {
        let last = self.numbers.last();
        let latest = dialect.statements.fill(
            "SELECT GREATEST(CAST(@@global.read_only AS SIGNED), CAST(@@innodb_read_only AS SIGNED)) AS read_only, \
             (SELECT MIN(number) FROM {changes}) AS first, (SELECT MAX(number) FROM {changes}) AS latest",
        );
        let state = sqlx::query(AssertSqlSafe(latest))
            .fetch_one(&mut self.connection)
            .await?;
        if state.try_get::<i64, _>("read_only")? != 0 {
            return Err(read_only());
        }
        let number = |column| -> sqlx::Result<u64> {
            let number: Option<i64> = state.try_get(column)?;
            Ok(number.unwrap_or(0).unsigned_abs())
        };
        let mut events = Vec::new();
        let (first, latest) = (number("first")?, number("latest")?);
        let freed = latest > last + KEPT && first > last + 1;
        if freed || latest < last {
            // What follows the last one that was read, or the whole log, is there no more.
            self.numbers = Numbers::from(first);
            events.push(FeedEvent::Everything);
        }
        let asked = self.numbers.last();
        let newer = format!(
            "SELECT number, partition_id FROM {{changes}} WHERE number > {asked} ORDER BY number LIMIT {MOST}"
        );
        let mut rows = Vec::new();
        if latest > asked {
            rows = self.rows(dialect, &newer).await?;
        }
        let all = rows.len() < MOST;
        let missing: Vec<_> = self
            .numbers
            .missing()
            .map(|number| number.to_string())
            .collect();
        if !missing.is_empty() {
            let late = format!(
                "SELECT number, partition_id FROM {{changes}} WHERE number IN ({})",
                missing.join(", ")
            );
            rows.extend(self.rows(dialect, &late).await?);
        }
        events.extend(self.told(&rows)?);
        Ok(News { events, all })
    }

    async fn rows(&mut self, dialect: &MySql, query: &str) -> sqlx::Result<Vec<MySqlRow>> {
        let query = sqlx::raw_sql(AssertSqlSafe(dialect.statements.fill(query)));
        query.fetch_all(&mut self.connection).await
    }

    /// Notes the numbers; what is told of them.
    fn told(&mut self, rows: &[MySqlRow]) -> sqlx::Result<Option<FeedEvent>> {
        let now = Instant::now();
        let mut digests = Vec::with_capacity(rows.len());
        for row in rows {
            let number: i64 = row.try_get("number")?;
            self.numbers.read(number.unsigned_abs(), now);
            digests.push(<[u8; 32]>::try_from(
                row.try_get::<Vec<u8>, _>("partition_id")?,
            ));
        }
        if !self.numbers.settle(now) {
            return Err(sqlx::Error::PoolClosed);
        }
        let digests: Result<Vec<_>, _> = digests.into_iter().collect();
        Ok(match digests {
            Ok(digests) if digests.is_empty() => None,
            Ok(digests) => Some(FeedEvent::Changed(digests)),
            // By hand.
            Err(_) => Some(FeedEvent::Everything),
        })
    }
}
