//! PostgreSQL.

#[cfg(feature = "__tests")]
mod bench;
mod feed;
mod leases;
mod statements;
mod write;

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};

use self::statements::Statements;
use super::builder::SqlStoreBuilder;
use super::builder::{Credentials, Settings, password};
use super::dialect::{Dialect, VERSION, check_version};
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
const URL_OPTIONS: [&str; 14] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "host",
    "port",
    "dbname",
    "user",
    "application_name",
];

/// How long making the tables waits for one that is in use, in milliseconds.
const LOCKED: &str = "1000";

/// A store in PostgreSQL 14 or later (tested with 15): a few tables, and one statement per group of commits.
///
/// ```no_run
/// use std::time::Duration;
/// use tower_token_cache::{PostgresStore, TokenCache};
///
/// # async fn open() -> Result<TokenCache, Box<dyn std::error::Error>> {
/// let url = "postgres://tokens:secret@db.example.com/app?sslmode=verify-full";
/// PostgresStore::builder(url).build()?.migrate().await?;
/// let store = PostgresStore::builder(url).connect(Duration::from_secs(10)).await?;
/// let cache = TokenCache::builder(store).build()?;
/// # Ok(cache)
/// # }
/// ```
///
/// # The URL
///
/// `postgres://[user[:password]@]host[:port]/database[?option=value&…]`, with user and password encoded as in any URL.
/// What it does not say is taken from the variables that `psql` reads (`PGHOST`, `PGUSER`, …) and from `.pgpass`.
/// `host=/var/run/postgresql` is a socket. `sslmode` is `disable`, `allow`, `prefer`, `require`, `verify-ca` or
/// `verify-full`; **only the last one proves which server it is.** The default, `prefer`, encrypts where the server
/// can. `sslrootcert` names the file with the certificates to trust instead of those of Mozilla; `sslcert` and `sslkey`
/// are the client's. TLS is rustls with ring.
///
/// # What a change costs
///
/// Two round-trips: the partitions are read, and one statement writes those that are as they were, in a transaction of
/// its own. No lock is held in between, so that an instance that stands still holds nobody up. Where another was first,
/// it begins again. A group of loads is one query. Leases that wait at the same time are one statement. Each row is found by an index: the
/// connections have `enable_seqscan = off`, so that no plan that was made for small tables reads large ones whole, and `jit = off`.
///
/// All times are the server's. Clocks of servers that take over should agree: a session ends early or late by as much as
/// they differ, and so does a lease. So they do where a clock steps: set back by an hour, a session with an end has an hour
/// more, and so has the lease of an instance that has died; set ahead, leases end, and two instances may make one call.
///
/// # The feed
///
/// What changes is told with `NOTIFY` in the same transaction, by a trigger, so that rows of `token_cache_partitions` that are
/// deleted by hand are told, too. Delete those, and not entries: an entry that is changed by hand keeps the version by which
/// instances compare. Each cache listens on a connection of its own. That
/// it hears all of it is proven twice a second, and with it that the triggers are on, and those of the same table. Where they are
/// not, memory is not believed, and a `WARN` says so. Where the server's queue of notifications is full, changes are
/// [`Refused`](StoreErrorKind::Refused): none is made untold. PostgreSQL commits transactions with `NOTIFY` one at a time in each
/// database, the flush to disk included: instances send groups, so that this bounds how often an instance commits,
/// and not how much.
///
/// # What the server must be
///
/// - **The primary.** A connection to a server in recovery is refused, because it does not know of the latest sign-outs.
/// - **Reached directly**, or over a pooler in session mode. Behind one in transaction mode nothing is heard, so that memory is not
///   believed. Where it does not know prepared statements, as PgBouncer before 1.21, operations fail; where it does, each
///   request asks the database, and settings of the store's connections reach other clients.
/// - `session_replication_role = origin`, the default: with `replica`, neither triggers nor foreign keys work, and a connection is
///   refused.
/// - `synchronous_commit = on`, the default, which must not be turned off for the user or the database: an acknowledged
///   sign-out would be lost with a crash. With asynchronous replication, what was acknowledged just before a failover,
///   a sign-out included, may be missing after it.
///
/// While its disk is full, changes are [`Refused`](StoreErrorKind::Refused), and reads go on. Where there is no room for
/// its write-ahead log, the server itself may end. Nothing that was acknowledged is lost, and all works again when there is
/// room and it runs.
///
/// What is deleted stays in dead rows until `VACUUM`, in the write-ahead log, and in backups: seal what is stored
/// ([`key_ring`](crate::Builder::key_ring)). Rows are updated in place (HOT) where possible: pages have room for that
/// (`fillfactor`), and no index changes with a use of a session. Where thousands of sessions change each second, let
/// autovacuum come sooner: `ALTER TABLE token_cache_entries SET (autovacuum_vacuum_scale_factor = 0.02)`, and the same
/// for `token_cache_partitions`.
///
/// # Rights
///
/// The least that a user needs, once [`migrate`](SqlStore::migrate) or a DBA has made the tables:
///
/// ```sql
/// GRANT USAGE ON SCHEMA public TO tokens;
/// GRANT SELECT ON token_cache_schema TO tokens;
/// GRANT SELECT, INSERT, UPDATE, DELETE ON token_cache_partitions, token_cache_entries, token_cache_leases TO tokens;
/// -- with a key ring in `keys`:
/// GRANT SELECT, INSERT ON token_cache_keys TO tokens;
/// ```
///
/// To make them, it needs `CREATE` on the schema, and the language `plpgsql`, for the trigger that tells what changes.
pub type PostgresStore = SqlStore<Postgres>;

/// The dialect of a [`PostgresStore`].
pub struct Postgres {
    options: PgConnectOptions,
    credentials: Option<Credentials>,
    statements: Statements,
    pool: Pool<PgConnection>,
    /// Which server the latest connection leads to.
    server: AtomicI64,
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres").finish_non_exhaustive()
    }
}

impl SqlStore<Postgres> {
    /// Sets up a store in the database of this URL, `postgres://…`.
    pub fn builder(url: impl Into<String>) -> SqlStoreBuilder<Postgres> {
        SqlStoreBuilder::new(url.into(), Postgres::open)
    }
}

impl Postgres {
    fn open(settings: Settings) -> Result<Self, ConfigError> {
        let scheme = "must begin with `postgres://` or `postgresql://`";
        let schemes = ["postgres", "postgresql"];
        url::check(&settings.url, &schemes, scheme, &URL_OPTIONS)?;
        let options: PgConnectOptions = settings.url.parse().map_err(url::unreadable)?;
        let named = options.get_application_name().is_some();
        let options = match named {
            true => options,
            false => options.application_name("tower-token-cache"),
        };
        Ok(Self {
            options: options.disable_statement_logging(),
            credentials: settings.credentials,
            statements: Statements::new(&settings.tables),
            pool: Pool::new(settings.connections),
            server: AtomicI64::default(),
        })
    }

    /// Where to connect to, with the password of now.
    async fn options(&self) -> sqlx::Result<PgConnectOptions> {
        let options = self.options.clone();
        Ok(match password(self.credentials.as_ref()).await? {
            Some(password) => options.password(password.expose()),
            None => options,
        })
    }
}

impl Dialect for Postgres {
    type Connection = PgConnection;

    fn pool(&self) -> &Pool<PgConnection> {
        &self.pool
    }

    fn statements(&self) -> Vec<String> {
        self.statements.tables.clone()
    }

    async fn connect(&self) -> sqlx::Result<PgConnection> {
        self.options().await?.connect().await
    }

    async fn prepare(&self, connection: &mut PgConnection, timeout: Duration) -> sqlx::Result<()> {
        let millis = timeout.as_millis().clamp(1, 1 << 30) as i64;
        let (in_recovery, replays, tables, server): (bool, bool, bool, i64) =
            sqlx::query_as(self.statements.prepare())
                .bind(millis.to_string())
                .bind(&self.statements.schema_table)
                .fetch_one(&mut *connection)
                .await?;
        if in_recovery {
            return Err(unfit(
                "the server is in recovery: it is a standby, and no primary",
            ));
        }
        if replays {
            return Err(unfit(
                "session_replication_role is `replica`: neither triggers nor foreign keys work",
            ));
        }
        let version = match tables {
            true => {
                let version = sqlx::query_scalar(self.statements.version());
                Some(version.fetch_optional(connection).await?.unwrap_or(0))
            }
            false => None,
        };
        check_version(version)?;
        self.server.store(server, Ordering::Relaxed);
        Ok(())
    }

    async fn migrate(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        let mut transaction = connection.begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1) IS NULL")
            .bind(self.statements.lock)
            .execute(&mut *transaction)
            .await?;
        let made = sqlx::query_scalar(self.statements.made());
        if made.fetch_one(&mut *transaction).await? {
            let version = sqlx::query_scalar(self.statements.version());
            if version.fetch_optional(&mut *transaction).await? == Some(VERSION) {
                return Ok(());
            }
        }
        // Whoever comes after a statement that waits for a table waits, too: for a backup that reads it, say.
        sqlx::query("SELECT set_config('lock_timeout', $1, true)")
            .bind(LOCKED)
            .execute(&mut *transaction)
            .await?;
        for statement in &self.statements.tables {
            let statement = sqlx::raw_sql(AssertSqlSafe(statement.clone()));
            statement.execute(&mut *transaction).await?;
        }
        transaction.commit().await
    }

    async fn read(
        &self,
        connection: &mut PgConnection,
        ids: &[&PartitionId],
        depth: Depth,
    ) -> sqlx::Result<(Timestamp, Vec<Found>)> {
        let digests: Vec<&[u8]> = ids.iter().map(|id| &id.digest()[..]).collect();
        let rows = sqlx::query(self.statements.read(depth))
            .bind(digests)
            .fetch_all(connection)
            .await?;
        let now = rows.first().and_then(|row| row.time("now").ok().flatten());
        let now = now.ok_or(sqlx::Error::RowNotFound)?;
        Ok((now, Found::all(ids, &rows, depth, now)))
    }

    async fn write(&self, connection: &mut PgConnection, plan: &Plan) -> sqlx::Result<Vec<usize>> {
        write::write(&self.statements, connection, plan).await
    }

    async fn acquire_leases(
        &self,
        connection: &mut PgConnection,
        group: &[Acquire],
    ) -> sqlx::Result<HashMap<Key, LeaseState>> {
        leases::acquire(&self.statements, connection, group).await
    }

    async fn renew_lease(
        &self,
        connection: &mut PgConnection,
        lease: &Lease,
        ttl: Duration,
    ) -> sqlx::Result<bool> {
        leases::renew(&self.statements, connection, lease, ttl).await
    }

    async fn release_leases(
        &self,
        connection: &mut PgConnection,
        group: &[Release],
    ) -> sqlx::Result<HashSet<Key>> {
        leases::release(&self.statements, connection, group).await
    }

    async fn list(
        &self,
        connection: &mut PgConnection,
        after: &[u8],
    ) -> sqlx::Result<Vec<Vec<u8>>> {
        let list = sqlx::query_scalar(self.statements.list()).bind(after);
        list.fetch_all(connection).await
    }

    #[cfg(feature = "seal")]
    async fn list_keys(
        &self,
        connection: &mut PgConnection,
        namespace: &str,
    ) -> sqlx::Result<Vec<KeyRecord>> {
        let rows: Vec<(String, Vec<u8>)> = sqlx::query_as(self.statements.list_keys())
            .bind(namespace)
            .bind(1 + MAX_RECORDS as i64)
            .fetch_all(connection)
            .await?;
        let record = |(name, content)| KeyRecord::new(name, content);
        Ok(rows.into_iter().map(record).collect())
    }

    #[cfg(feature = "seal")]
    async fn add_key(
        &self,
        connection: &mut PgConnection,
        namespace: &str,
        record: &KeyRecord,
    ) -> sqlx::Result<bool> {
        let add = sqlx::query(self.statements.add_key())
            .bind(namespace)
            .bind(&record.name)
            .bind(&record.content[..]);
        Ok(add.execute(connection).await?.rows_affected() > 0)
    }

    async fn purge(&self, connection: &mut PgConnection) -> sqlx::Result<bool> {
        let purge = sqlx::query_scalar(self.statements.purge()).bind(self.statements.lock);
        purge.fetch_one(connection).await
    }

    fn verdict(error: &dyn DatabaseError) -> Verdict {
        let code = error.code().unwrap_or_default();
        match &*code {
            // Serialization failure, deadlock, a partition that another has begun at the same time, and one that was
            // freed at that moment.
            "40001" | "40P01" | "23505" | "23503" => Verdict::Again,
            // A statement of another connection, behind a pooler, or of the time before a change of the tables.
            "26000" | "42P05" | "0A000" => Verdict::Cut,
            // Shut down by an administrator, after a crash, or not yet up.
            "57P01" | "57P02" | "57P05" => Verdict::Cut,
            // Cancelled, or a lock that is not to be had.
            "57014" | "55P03" => Verdict::Final(StoreErrorKind::Timeout),
            "57P03" | "53300" => Verdict::Final(StoreErrorKind::Unreachable),
            code if code.starts_with("08") => Verdict::Cut,
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
        (options.get_database(), &self.statements.schema_table).hash(&mut hasher);
        hasher.finish()
    }
}
