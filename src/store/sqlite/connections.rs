//! `Connections`: who reads, who writes, who empties the log.

use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, SqliteConnection};
use tokio::time::{Instant, timeout};

use crate::store::pool::{Place, Pool};

/// How long an operation waits for a connection, and for a lock that another process holds. The engine stops waiting
/// earlier; this bound is for direct callers.
pub(super) const BUSY: Duration = Duration::from_secs(5);

/// Connections to the file that are set up alike. Each has a thread.
///
/// A pool of `sqlx` asks a connection that it takes back whether it still answers, in a task: two more changes of threads,
/// and the next operation waits for them.
pub(super) struct Connections {
    options: SqliteConnectOptions,
    pool: Pool<SqliteConnection>,
}

/// A connection for one operation. Dropped, it is closed, and what it has begun is undone.
pub(super) struct Taken {
    pub(super) connection: SqliteConnection,
    since: Instant,
    place: Place<SqliteConnection>,
}

/// A transaction that has the lock of writers. Dropped, it is undone.
pub(super) struct Transaction(Taken);

impl Connections {
    /// With one that is open: the file can be opened so.
    pub(super) async fn open(size: usize, options: SqliteConnectOptions) -> sqlx::Result<Self> {
        let connections = Self {
            options,
            pool: Pool::new(size),
        };
        connections.take().await?.keep();
        Ok(connections)
    }

    pub(super) async fn take(&self) -> sqlx::Result<Taken> {
        let place = timeout(BUSY, self.pool.place()).await;
        let Ok(Some(place)) = place else {
            return Err(sqlx::Error::PoolTimedOut);
        };
        let (connection, since) = match place.idle() {
            Some(idle) => idle,
            None => (self.options.connect().await?, Instant::now()),
        };
        Ok(Taken {
            connection,
            since,
            place,
        })
    }

    /// Takes the lock at once: a transaction that reads first could not be upgraded after another process has written.
    pub(super) async fn begin(&self) -> sqlx::Result<Transaction> {
        let mut taken = self.take().await?;
        sqlx::query("BEGIN IMMEDIATE")
            .execute(&mut taken.connection)
            .await?;
        Ok(Transaction(taken))
    }
}

impl Taken {
    /// Gives it back, for it has answered.
    pub(super) fn keep(self) {
        self.place.keep(self.connection, self.since);
    }
}

impl Transaction {
    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.0.connection
    }

    pub(super) async fn commit(mut self) -> sqlx::Result<()> {
        sqlx::query("COMMIT").execute(self.connection()).await?;
        self.0.keep();
        Ok(())
    }
}
