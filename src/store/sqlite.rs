//! `SqliteStore`: an L2 in one file, for one machine.

mod changes;
mod code;
mod feed;
#[cfg(feature = "seal")]
mod keys;
mod leases;
mod movable;
mod rows;
mod schema;
mod scrub;
mod transactions;

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{ConnectOptions, Connection, SqlitePool};

use self::code::store_error;
#[cfg(feature = "seal")]
pub use self::keys::SqliteKeys;
use self::schema::DatabaseFile;
use self::scrub::Scrubber;
use super::{
    Cleared, Commit, CommitId, Feed, Lease, LeaseState, Loaded, Origin, Outcome, PartitionId,
    Raise, Remaining, Revision, TokenStore,
};
use crate::error::{ConfigError, StoreError, StoreErrorKind};
use crate::time::{Clock, Timestamp};

/// How long an operation waits for a lock that another process holds. The engine stops waiting
/// earlier; this bound is for direct callers.
const BUSY: Duration = Duration::from_secs(5);

/// Connections that read. Reads are short and mostly served from the page cache.
const READERS: u32 = 4;

/// How often what has expired is freed.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// How many partitions, entries and leases one sweep frees, of each, so that no commit waits long for it.
const SWEEP_LIMIT: u32 = 100;

/// A store in a SQLite file: survives a restart, and is shared by all processes of one machine
/// that open the same file. Clones share their connections.
///
/// What changes is told to every cache on the file, of whatever process, within a quarter of a second.
///
/// The file is in WAL mode with `synchronous = NORMAL`: a commit survives the end of the process;
/// after a power failure the file is intact, but the latest commits and sign-outs may be missing.
/// Keep the file on a local disk; WAL does not work over network file systems. While the disk is full, changes are
/// [`Refused`](StoreErrorKind::Refused), and reads go on.
///
/// The file and its side files (`-wal`, `-shm`) are for the user of this process alone. What is
/// deleted is overwritten: when a sign-out returns, no file holds a byte of the session's tokens,
/// unless another process reads an older state just then; the next sign-out, or the sweep after
/// at most a minute of use, makes up for it. What [`sign_out_user`](crate::TokenCache::sign_out_user) and
/// [`sign_out_all`](crate::TokenCache::sign_out_all) end is refused, and stays in the file until its lifetime is over. (Copies that a file system or a disk keeps of blocks
/// are beyond it: seal what is stored.) A file that is deleted or replaced while it is open is an
/// error of every operation from then on, until it is back or the process has opened the new one:
/// nothing is written to a file that has no name any more.
#[derive(Clone)]
pub struct SqliteStore {
    file: Arc<DatabaseFile>,
    writer: SqlitePool,
    readers: SqlitePool,
    scrubber: Arc<Scrubber>,
    clock: Clock,
    swept_at: Arc<AtomicU64>,
}

impl SqliteStore {
    /// Opens the database file, and creates it (on Unix with mode 0600) and its tables if missing.
    ///
    /// # Errors
    /// [`ConfigError`] for `path`: the file cannot be opened or created, is no database, belongs
    /// to another application, or was written by a newer version of this crate. On Unix also when
    /// it or a side file is a symbolic link, belongs to another user or is open to others, and when
    /// others can replace what is in its folder; the error's source says what to do.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        // Absolute, because SQLite gives `:memory:` and `file:` a meaning of their own.
        let path = std::path::absolute(path)
            .map_err(|error| ConfigError::new("path", "must name a file").with_source(error))?;
        let file = DatabaseFile::create(&path)?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .busy_timeout(BUSY)
            .foreign_keys(true)
            .pragma("secure_delete", "ON")
            .disable_statement_logging();
        schema::prepare(&options).await?;
        let options = options.pragma("synchronous", "NORMAL");
        let readers = options.clone().pragma("query_only", "ON");
        let scrubber = options.clone().busy_timeout(scrub::PATIENCE);
        Ok(Self {
            file: Arc::new(file),
            writer: pool(1, options).await?,
            readers: pool(READERS, readers).await?,
            scrubber: Arc::new(Scrubber::new(pool(1, scrubber).await?)),
            clock: Clock::system(),
            swept_at: Arc::default(),
        })
    }

    /// The same store on another clock, for tests.
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Frees what has expired, if that was not done lately. The commit is done by now, so a sweep
    /// that fails is simply left to a later one.
    async fn sweep(&self, now: Timestamp) {
        let last = self.swept_at.load(Ordering::Relaxed);
        let due = Timestamp::from_millis(last).saturating_add(SWEEP_EVERY) <= now;
        let claim = |next| {
            let relaxed = Ordering::Relaxed;
            self.swept_at
                .compare_exchange(last, next, relaxed, relaxed)
                .is_ok()
        };
        if !due || !claim(now.as_millis()) {
            return;
        }
        if self.sweep_once(now).await.unwrap_or(false) {
            // There is more: the next commit goes on.
            self.swept_at.store(0, Ordering::Relaxed);
        }
    }

    async fn sweep_once(&self, now: Timestamp) -> sqlx::Result<bool> {
        let mut transaction = self.begin().await?;
        let full = rows::sweep(&mut transaction, now, SWEEP_LIMIT).await?;
        let freed = leases::sweep(&mut transaction, self.clock.uptime(), SWEEP_LIMIT).await?;
        transaction.commit().await?;
        // Of tokens that were replaced, too.
        self.scrubber.scrub().await;
        Ok(full || freed >= u64::from(SWEEP_LIMIT))
    }
}

async fn pool(size: u32, options: SqliteConnectOptions) -> Result<SqlitePool, ConfigError> {
    SqlitePoolOptions::new()
        .max_connections(size)
        .acquire_timeout(BUSY)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        // After an error on which SQLite itself rolls back (a full disk), sqlx takes the
        // transaction for open for ever: such a connection is replaced.
        .before_acquire(|connection, _| {
            let reusable = !connection.is_in_transaction();
            Box::pin(async move { Ok(reusable) })
        })
        .connect_with(options)
        .await
        .map_err(schema::not_opened)
}

impl TokenStore for SqliteStore {
    fn identity(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let options = self.writer.connect_options();
        options.get_filename().hash(&mut hasher);
        hasher.finish()
    }

    async fn load(&self, group: &[PartitionId]) -> Vec<Result<Loaded, StoreError>> {
        let mut connection = match self.reader().await {
            Ok(connection) => connection,
            Err(error) => return vec![Err(store_error(error)); group.len()],
        };
        let now = self.clock.now();
        let mut answers = Vec::with_capacity(group.len());
        for id in group {
            let loaded = rows::load(&mut connection, id, now).await;
            answers.push(loaded.map_err(store_error));
        }
        answers
    }

    async fn revisions(&self, group: &[PartitionId]) -> Vec<Result<Revision, StoreError>> {
        match self.read_revisions(group).await {
            Ok(answers) => answers.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(store_error(error)); group.len()],
        }
    }

    async fn commit(&self, group: &[Commit]) -> Vec<Result<Outcome, StoreError>> {
        self.commit_group(group).await
    }

    async fn touch(&self, group: &[PartitionId]) -> Vec<Result<Remaining, StoreError>> {
        match self.touch_together(group).await {
            Ok(answers) => answers.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(store_error(error)); group.len()],
        }
    }

    async fn clear(
        &self,
        partition: &PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> Result<Cleared, StoreError> {
        let cleared = self.clear_one(partition, expected, id).await;
        cleared.map_err(store_error)
    }

    async fn raise(
        &self,
        partition: &PartitionId,
        raise: Raise,
        keep: Option<Duration>,
    ) -> Result<u64, StoreError> {
        let raised = self.raise_one(partition, raise, keep).await;
        raised.map_err(store_error)
    }

    fn feed(&self, _: &str) -> Option<Feed> {
        // Rows do not say of which namespace they are: a hint too many does no harm.
        Some(feed::feed(self.clone()))
    }

    async fn relocate(&self, from: &Origin, commit: &Commit) -> Result<Outcome, StoreError> {
        if from.partition == commit.partition {
            return Err(StoreError::new(StoreErrorKind::Refused));
        }
        self.relocate_one(from, commit).await.map_err(store_error)
    }

    async fn acquire_lease(&self, lease: &Lease, ttl: Duration) -> Result<LeaseState, StoreError> {
        self.acquire_one(lease, ttl).await.map_err(store_error)
    }

    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        self.renew_one(lease, ttl).await.map_err(store_error)
    }

    async fn release_lease(&self, lease: &Lease) -> Result<bool, StoreError> {
        self.release_one(lease).await.map_err(store_error)
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").finish_non_exhaustive()
    }
}
