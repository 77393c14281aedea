//! MySQL and MariaDB.

#[cfg(feature = "__tests")]
mod bench;
mod changes;
mod feed;
mod leases;
mod statements;
mod write;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::mysql::{MySqlConnectOptions, MySqlDatabaseError};
use sqlx::{AssertSqlSafe, ConnectOptions, MySqlConnection, Row};

use self::statements::Statements;
use super::builder::SqlStoreBuilder;
use super::builder::{Credentials, Settings, password};
use super::dialect::{Dialect, check_version};
use super::failure::{Verdict, unfit};
use super::handle::SqlStore;
use super::plan::Plan;
use super::url;
use crate::error::{ConfigError, StoreErrorKind};
use crate::store::columns::Columns;
use crate::store::found::{Depth, Found};
use crate::store::pool::Pool;
use crate::store::{Feed, Lease, LeaseState, PartitionId};
use crate::time::Timestamp;

/// What a URL can say besides the place, the user and the password.
const URL_OPTIONS: [&str; 9] = [
    "sslmode", "ssl-mode", "sslca", "ssl-ca", "sslcert", "ssl-cert", "sslkey", "ssl-key", "socket",
];

/// A store in MySQL 8 or MariaDB 10.5 and later, with InnoDB (tested with MariaDB 10.11): four tables, and one
/// transaction per group of commits.
///
/// ```no_run
/// use std::time::Duration;
/// use tower_token_cache::{MySqlStore, TokenCache};
///
/// # async fn open() -> Result<TokenCache, Box<dyn std::error::Error>> {
/// let url = "mysql://tokens:secret@db.example.com/app?ssl-mode=verify_identity";
/// MySqlStore::builder(url).build()?.migrate().await?;
/// let store = MySqlStore::builder(url).connect(Duration::from_secs(10)).await?;
/// let cache = TokenCache::builder(store).build()?;
/// # Ok(cache)
/// # }
/// ```
///
/// # The URL
///
/// `mysql://[user[:password]@]host[:port]/database[?option=value&…]`, with user and password encoded as in any URL.
/// `ssl-mode` is `disabled`, `preferred`, `required`, `verify_ca` or `verify_identity`; **only the last one proves which
/// server it is.** The default, `preferred`, encrypts where the server can. `ssl-ca` names the file with the
/// certificates to trust instead of those of Mozilla; `ssl-cert` and `ssl-key` are the client's; `socket` is a path.
/// TLS is rustls with ring. Passwords of `caching_sha2_password`, the default of MySQL 8, need TLS or a socket.
///
/// # What a change costs
///
/// The partitions are read in one round-trip. Some five others, whatever the number of partitions, are a transaction
/// that writes those that are as they were; where another was first, it begins again. Values that together exceed half
/// of the server's `max_allowed_packet` take more round-trips, and one that exceeds it alone is
/// [`TooLarge`](StoreErrorKind::TooLarge). A group of loads is one query. A lease is one round-trip.
///
/// Transactions are `READ COMMITTED`, so that there are no gap locks; with it, `binlog_format` must be `ROW` or `MIXED`.
/// An instance that stands still in the middle of one holds its rows until the server closes the connection.
/// Keys are binary, and times are numbers by the server's clock: neither collations nor time zones play a part. Clocks
/// of servers that take over should agree: a session ends early or late by as much as they differ, and so does a lease.
///
/// # The feed
///
/// Each change has a row in a table, with a number. Instances ask for new ones four times a second, so that a change is
/// known within a quarter of a second. Numbers are given out in another order than transactions commit in: one that is
/// missing is asked for again for a minute. The row is written and committed in one packet, so that
/// a minute is far more than that takes. The last 10,000 rows, and those of two minutes, are kept.
///
/// **Changes by hand are not told by themselves.** After one, run
/// `INSERT INTO token_cache_changes (partition_id) VALUES ('')`: all instances then compare what they have.
///
/// # What the server must be
///
/// - **The primary.** A server with `read_only` is refused, also when it becomes so: it may not know of the latest
///   sign-outs.
/// - **One writer.** In a Galera cluster, or a group with several primaries, let all instances use one and the same
///   node.
/// - `innodb_flush_log_at_trx_commit = 1`, the default: with another value an acknowledged sign-out can be lost with a
///   crash. With asynchronous replication, what was acknowledged just before a failover may be missing after it.
///
/// What is deleted stays in pages and logs of the server for a while, and in backups: seal what is stored
/// ([`key_ring`](crate::Builder::key_ring)).
///
/// # Rights
///
/// The least that a user needs, once [`migrate`](SqlStore::migrate) or a DBA has made the tables:
///
/// ```sql
/// GRANT SELECT ON app.token_cache_schema TO tokens;
/// GRANT SELECT, INSERT, UPDATE, DELETE ON app.token_cache_partitions TO tokens;
/// GRANT SELECT, INSERT, UPDATE, DELETE ON app.token_cache_entries TO tokens;
/// GRANT SELECT, INSERT, UPDATE, DELETE ON app.token_cache_leases TO tokens;
/// GRANT SELECT, INSERT, DELETE ON app.token_cache_changes TO tokens;
/// ```
///
/// To make them, it needs `CREATE`, `REFERENCES`, and `INSERT` on `token_cache_schema`.
pub type MySqlStore = SqlStore<MySql>;

/// The dialect of a [`MySqlStore`].
pub struct MySql {
    options: MySqlConnectOptions,
    credentials: Option<Credentials>,
    statements: Statements,
    pool: Pool<MySqlConnection>,
    /// Which server the latest connection leads to.
    server: AtomicU64,
    /// The longest packet that it takes, in bytes.
    packet: AtomicU64,
}

impl std::fmt::Debug for MySql {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MySql").finish_non_exhaustive()
    }
}

impl SqlStore<MySql> {
    /// Sets up a store in the database of this URL, `mysql://…`.
    pub fn builder(url: impl Into<String>) -> SqlStoreBuilder<MySql> {
        SqlStoreBuilder::new(url.into(), MySql::open)
    }
}

impl MySql {
    fn open(settings: Settings) -> Result<Self, ConfigError> {
        let scheme = "must begin with `mysql://` or `mariadb://`";
        url::check(&settings.url, &["mysql", "mariadb"], scheme, &URL_OPTIONS)?;
        let options: MySqlConnectOptions = settings.url.parse().map_err(url::unreadable)?;
        if options.get_database().is_none() {
            return Err(ConfigError::new("url", "must name a database"));
        }
        Ok(Self {
            // Neither texts nor time zones: nothing to settle.
            options: options
                .disable_statement_logging()
                .set_names(false)
                .timezone(None),
            credentials: settings.credentials,
            statements: Statements::new(&settings.tables),
            pool: Pool::new(settings.connections),
            server: AtomicU64::default(),
            packet: AtomicU64::new(1 << 20),
        })
    }

    /// Frees one batch of each kind; whether one was full.
    async fn purge_rows(&self, connection: &mut MySqlConnection) -> sqlx::Result<bool> {
        let mut full = false;
        for purge in &self.statements.purge {
            let purge = sqlx::query(AssertSqlSafe(purge.clone()));
            let freed = purge.execute(&mut *connection).await?.rows_affected();
            full |= freed >= statements::BATCH;
        }
        Ok(full)
    }
}

impl Dialect for MySql {
    type Connection = MySqlConnection;

    fn pool(&self) -> &Pool<MySqlConnection> {
        &self.pool
    }

    fn statements(&self) -> Vec<String> {
        self.statements.tables.clone()
    }

    async fn connect(&self) -> sqlx::Result<MySqlConnection> {
        let options = self.options.clone();
        let options = match password(self.credentials.as_ref()).await? {
            Some(password) => options.password(password.expose()),
            None => options,
        };
        options.connect().await
    }

    async fn prepare(
        &self,
        connection: &mut MySqlConnection,
        timeout: Duration,
    ) -> sqlx::Result<()> {
        let rows = sqlx::raw_sql(AssertSqlSafe(self.statements.prepare(timeout)));
        let rows = rows.fetch_all(&mut *connection).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        if row.try_get::<i64, _>("read_only")? != 0 {
            return Err(read_only());
        }
        let tables = row.try_get::<i64, _>("tables")? > 0;
        let version = match tables {
            true => {
                let version = sqlx::query_scalar(AssertSqlSafe(self.statements.version.clone()));
                Some(version.fetch_optional(&mut *connection).await?.unwrap_or(0))
            }
            false => None,
        };
        check_version(version)?;
        let server: Vec<u8> = row.try_get("server")?;
        let mut hasher = DefaultHasher::new();
        server.hash(&mut hasher);
        self.server.store(hasher.finish(), Ordering::Relaxed);
        let packet: i64 = row.try_get("packet")?;
        self.packet.store(packet.unsigned_abs(), Ordering::Relaxed);
        Ok(())
    }

    async fn migrate(&self, connection: &mut MySqlConnection) -> sqlx::Result<()> {
        // Each statement stands for itself, and does nothing where it was run.
        for statement in &self.statements.tables {
            let statement = sqlx::raw_sql(AssertSqlSafe(statement.clone()));
            statement.execute(&mut *connection).await?;
        }
        Ok(())
    }

    async fn read(
        &self,
        connection: &mut MySqlConnection,
        ids: &[&PartitionId],
        depth: Depth,
    ) -> sqlx::Result<(Timestamp, Vec<Found>)> {
        // Of powers of two there are few, so that the statements are prepared.
        let places = ids.len().next_power_of_two();
        let mut query = sqlx::query(self.statements.read(depth, places));
        for place in 0..places {
            query = query.bind(&ids[place.min(ids.len() - 1)].digest()[..]);
        }
        let rows = query.fetch_all(connection).await?;
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        if row.try_get::<i64, _>("read_only")? != 0 {
            return Err(read_only());
        }
        let now = row.time("moment").ok().flatten();
        let now = now.ok_or(sqlx::Error::RowNotFound)?;
        Ok((now, Found::all(ids, &rows, depth, now)))
    }

    async fn write(
        &self,
        connection: &mut MySqlConnection,
        plan: &Plan,
    ) -> sqlx::Result<Vec<usize>> {
        let packet = self.packet.load(Ordering::Relaxed);
        write::write(&self.statements, connection, plan, packet).await
    }

    async fn acquire_lease(
        &self,
        connection: &mut MySqlConnection,
        lease: &Lease,
        ttl: Duration,
    ) -> sqlx::Result<LeaseState> {
        leases::acquire(&self.statements, connection, lease, ttl).await
    }

    async fn renew_lease(
        &self,
        connection: &mut MySqlConnection,
        lease: &Lease,
        ttl: Duration,
    ) -> sqlx::Result<bool> {
        leases::renew(&self.statements, connection, lease, ttl).await
    }

    async fn release_lease(
        &self,
        connection: &mut MySqlConnection,
        lease: &Lease,
    ) -> sqlx::Result<bool> {
        leases::release(&self.statements, connection, lease).await
    }

    async fn purge(&self, connection: &mut MySqlConnection) -> sqlx::Result<bool> {
        let lock = "SELECT GET_LOCK(?, 0)";
        let lock = sqlx::query_scalar(lock).bind(&self.statements.lock);
        let locked: Option<i64> = lock.fetch_one(&mut *connection).await?;
        if locked != Some(1) {
            return Ok(false);
        }
        let purged = self.purge_rows(&mut *connection).await;
        // Also after a failure: the connection goes back to the pool, and the lock is the connection's.
        let release = sqlx::query("DO RELEASE_LOCK(?)").bind(&self.statements.lock);
        release.execute(connection).await?;
        purged
    }

    fn verdict(error: &dyn DatabaseError) -> Verdict {
        let number = error.try_downcast_ref::<MySqlDatabaseError>();
        match number.map_or(0, MySqlDatabaseError::number) {
            // A deadlock, a lock that was not to be had in time, a partition that another has begun at the same time,
            // and one that was freed at that moment.
            1213 | 1205 | 1062 | 1452 => Verdict::Again,
            // A shutdown, a connection that was killed, a statement of the time before the tables changed.
            1053 | 1927 | 1243 | 1615 => Verdict::Cut,
            // Interrupted, or over the time of a statement.
            1317 | 1969 | 3024 => Verdict::Final(StoreErrorKind::Timeout),
            // Too many connections.
            1040 | 1203 | 1226 => Verdict::Final(StoreErrorKind::Unreachable),
            1153 => Verdict::Final(StoreErrorKind::TooLarge),
            _ => Verdict::Final(StoreErrorKind::Refused),
        }
    }

    fn feed(store: SqlStore<Self>) -> Feed {
        feed::feed(store)
    }

    fn identity(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let options = &self.options;
        (options.get_host(), options.get_port(), options.get_socket()).hash(&mut hasher);
        (options.get_database(), &self.statements.lock).hash(&mut hasher);
        hasher.finish()
    }
}

fn read_only() -> sqlx::Error {
    unfit("the server is read-only: it is a replica, and no primary")
}
