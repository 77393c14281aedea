//! `SqliteStore`: an L2 in one file, for one machine.

#[cfg(feature = "__tests")]
mod bench;
mod code;
mod connections;
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

use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;

use self::code::store_error;
use self::connections::{BUSY, Connections};
#[cfg(feature = "seal")]
pub use self::keys::SqliteKeys;
use self::schema::DatabaseFile;
use self::scrub::Scrubber;
use super::found::{Depth, Found};
use super::partition::Partition;
use super::{
    Cleared, Commit, CommitId, Feed, Lease, LeaseState, Loaded, Origin, Outcome, PartitionId,
    Raise, Remaining, Revision, TokenStore,
};
use crate::error::{ConfigError, StoreError, StoreErrorKind};
use crate::time::{Clock, Timestamp};

/// Connections that read. Reads are short and mostly served from the page cache.
const READERS: usize = 4;

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
    /// One: SQLite has one writer at a time.
    writer: Arc<Connections>,
    readers: Arc<Connections>,
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
            writer: Arc::new(connections(1, options).await?),
            readers: Arc::new(connections(READERS, readers).await?),
            scrubber: Arc::new(Scrubber::new(connections(1, scrubber).await?)),
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
        let full = rows::sweep(transaction.connection(), now, SWEEP_LIMIT).await?;
        let uptime = self.clock.uptime();
        let freed = leases::sweep(transaction.connection(), uptime, SWEEP_LIMIT).await?;
        transaction.commit().await?;
        // Of tokens that were replaced, too.
        self.scrubber.scrub().await;
        Ok(full || freed >= u64::from(SWEEP_LIMIT))
    }
}

async fn connections(
    size: usize,
    options: SqliteConnectOptions,
) -> Result<Connections, ConfigError> {
    let opened = Connections::open(size, options).await;
    opened.map_err(schema::not_opened)
}

impl TokenStore for SqliteStore {
    fn identity(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.file.path().hash(&mut hasher);
        hasher.finish()
    }

    async fn load(&self, group: &[PartitionId]) -> Vec<Result<Loaded, StoreError>> {
        self.read_group(group, Depth::Values, Found::loaded).await
    }

    async fn revisions(&self, group: &[PartitionId]) -> Vec<Result<Revision, StoreError>> {
        let revision = |found: &Found, _| found.revision();
        self.read_group(group, Depth::Record, revision).await
    }

    async fn commit(&self, group: &[Commit]) -> Vec<Result<Outcome, StoreError>> {
        let ids: Vec<_> = group.iter().map(|commit| &commit.partition).collect();
        let commit =
            |at: usize, stored: &mut _, now| Partition::commit(stored, &group[at], true, now);
        let answers = self.change_group(&ids, commit).await;
        self.sweep(self.clock.now()).await;
        answers
    }

    async fn touch(&self, group: &[PartitionId]) -> Vec<Result<Remaining, StoreError>> {
        let ids: Vec<_> = group.iter().collect();
        let touch = |_: usize, stored: &mut Option<Partition>, now| {
            let touched = stored.as_mut().and_then(|partition| partition.touch(now));
            touched.unwrap_or_default()
        };
        self.change_group(&ids, touch).await
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
        let raise = |stored: &mut _, now| Partition::raise(stored, raise, keep, now);
        let raised = self.change_one(partition, raise).await;
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
