//! MySQL and MariaDB.

#[cfg(feature = "__tests")]
mod bench;
mod changes;
mod feed;
mod leases;
mod purge;
mod statements;
mod write;

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::mysql::{MySqlConnectOptions, MySqlDatabaseError, MySqlRow};
use sqlx::{AssertSqlSafe, ConnectOptions, MySqlConnection, Row};

#[cfg(feature = "__tests")]
pub use self::changes::Numbers;
use self::statements::Statements;
use super::builder::SqlStoreBuilder;
use super::builder::{Credentials, Settings, password};
use super::dialect::{Dialect, check_version};
use super::failure::{Verdict, unfit};
use super::handle::SqlStore;
use super::leases::{Acquire, Key, Release};
use super::plan::Plan;
use super::url;
use crate::error::{ConfigError, StoreErrorKind};
#[cfg(feature = "seal")]
use crate::seal::{KeyRecord, MAX_RECORDS};
use crate::store::columns::Columns;
use crate::store::found::{Depth, Found};
use crate::store::pool::Pool;
use crate::store::{Feed, Lease, LeaseState, PartitionId};
use crate::time::Timestamp;

/// What a URL can say besides the place, the user and the password.
const URL_OPTIONS: [&str; 9] = [
    "sslmode", "ssl-mode", "sslca", "ssl-ca", "sslcert", "ssl-cert", "sslkey", "ssl-key", "socket",
];

/// Statements that a connection keeps prepared. Groups of each size have their own, and a server has room for 16,382 of
/// all its clients.
const PREPARED: usize = 32;

/// A store in MySQL 8 or MariaDB 10.5 and later, with InnoDB (tested with MariaDB 10.11): a few tables, and one
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
/// [`TooLarge`](StoreErrorKind::TooLarge). A group of loads is one query. Leases that wait at the same time are one round-trip.
///
/// Transactions are `READ COMMITTED`, so that there are no gap locks; with it, `binlog_format` must be `ROW` or `MIXED`.
/// An instance that stands still in the middle of one holds its rows until the server closes the connection.
/// Keys are binary, and times are numbers by the server's clock: neither collations nor time zones play a part. Clocks
/// of servers that take over should agree: a session ends early or late by as much as they differ, and so does a lease. So
/// they do where a clock steps: set back by an hour, a session with an end has an hour more, and so has the lease of an instance
/// that has died; set ahead, leases end, and two instances may make one call. What a DBA sets for all sessions
/// (`sql_mode`, `autocommit`, `sql_select_limit` and the like) does not reach those of the store.
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
/// - `max_prepared_stmt_count`, 16,382 by default, has room: each connection keeps up to 32 statements prepared, so that 50
///   instances take 13,000.
/// - `innodb_flush_log_at_trx_commit = 1`, the default: with another value an acknowledged sign-out can be lost with a
///   crash. With asynchronous replication, what was acknowledged just before a failover may be missing after it.
///
/// While its disk is full, changes are [`Refused`](StoreErrorKind::Refused), and reads go on. A value of more than 8 KB that
/// finds no room ends MariaDB 10.11 itself: InnoDB cannot undo what it has begun. Nothing that was acknowledged is lost,
/// and all works again when there is room and it runs.
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
/// -- with a key ring in `keys`:
/// GRANT SELECT, INSERT ON app.token_cache_keys TO tokens;
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
                .timezone(None)
                .statement_cache_capacity(PREPARED),
            credentials: settings.credentials,
            statements: Statements::new(&settings.tables),
            pool: Pool::new(settings.connections),
            server: AtomicU64::default(),
            packet: AtomicU64::new(1 << 20),
        })
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
        let row = checked(&rows)?.first().ok_or(sqlx::Error::RowNotFound)?;
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
        let settle = sqlx::raw_sql(self.statements.settle());
        settle.execute(&mut *connection).await?;
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
        let row = checked(&rows)?.first();
        let now = row.and_then(|row| row.time("moment").ok().flatten());
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

    async fn acquire_leases(
        &self,
        connection: &mut MySqlConnection,
        group: &[Acquire],
    ) -> sqlx::Result<HashMap<Key, LeaseState>> {
        leases::acquire(&self.statements, connection, group).await
    }

    async fn renew_lease(
        &self,
        connection: &mut MySqlConnection,
        lease: &Lease,
        ttl: Duration,
    ) -> sqlx::Result<bool> {
        leases::renew(&self.statements, connection, lease, ttl).await
    }

    async fn release_leases(
        &self,
        connection: &mut MySqlConnection,
        group: &[Release],
    ) -> sqlx::Result<HashSet<Key>> {
        leases::release(&self.statements, connection, group).await
    }

    async fn list(
        &self,
        connection: &mut MySqlConnection,
        after: &[u8],
    ) -> sqlx::Result<Vec<Vec<u8>>> {
        let list = sqlx::query(self.statements.list()).bind(after);
        let rows = list.fetch_all(connection).await?;
        let ids = checked(&rows)?.iter().map(|row| row.try_get("id"));
        let ids: Vec<Option<Vec<u8>>> = ids.collect::<sqlx::Result<_>>()?;
        Ok(ids.into_iter().flatten().collect())
    }

    #[cfg(feature = "seal")]
    async fn list_keys(
        &self,
        connection: &mut MySqlConnection,
        namespace: &str,
    ) -> sqlx::Result<Vec<KeyRecord>> {
        let list = sqlx::query(self.statements.list_keys())
            .bind(namespace.as_bytes())
            .bind(1 + MAX_RECORDS as u64);
        let rows = list.fetch_all(connection).await?;
        let mut records = Vec::with_capacity(rows.len());
        for row in checked(&rows)? {
            let name = row.try_get::<Option<Vec<u8>>, _>("name")?;
            // What is not a name was made by hand, and none where there are no keys.
            if let Some(Ok(name)) = name.map(String::from_utf8) {
                records.push(KeyRecord::new(name, row.try_get::<Vec<u8>, _>("content")?));
            }
        }
        Ok(records)
    }

    #[cfg(feature = "seal")]
    async fn add_key(
        &self,
        connection: &mut MySqlConnection,
        namespace: &str,
        record: &KeyRecord,
    ) -> sqlx::Result<bool> {
        let add = sqlx::query(self.statements.add_key())
            .bind(namespace.as_bytes())
            .bind(record.name.as_bytes())
            .bind(&record.content[..]);
        match add.execute(connection).await {
            Ok(_) => Ok(true),
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn purge(&self, connection: &mut MySqlConnection) -> sqlx::Result<bool> {
        purge::purge(&self.statements, connection).await
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

/// The rows, if the server that they are of is none that may be behind another one.
fn checked(rows: &[MySqlRow]) -> sqlx::Result<&[MySqlRow]> {
    match rows.first().map(|row| row.try_get::<i64, _>("read_only")) {
        Some(Ok(0)) => Ok(rows),
        Some(Ok(_)) => Err(read_only()),
        Some(Err(error)) => Err(error),
        None => Err(sqlx::Error::RowNotFound),
    }
}

fn read_only() -> sqlx::Error {
    unfit("the server is read-only: it is a replica, and no primary")
}
