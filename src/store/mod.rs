//! The contract between the engine and an L2 store.
//!
//! A store keeps, per partition, a *generation*, a *version*, entries and lifetimes. It sees
//! digests and opaque bytes, never a key, a token or HTTP. Six rules carry the guarantees:
//!
//! 1. **Generations are final.** [`clear`](TokenStore::clear) raises the generation and leaves a
//!    tombstone for [`TOMBSTONE`]. A commit names the generation it was made under, and the store
//!    compares it atomically with what it holds: a commit from before the sign-out is
//!    [`Stale`](Outcome::Stale) and changes nothing.
//! 2. **Versions order commits.** Each commit raises the partition's version by one, and every
//!    entry it writes carries that version. The store assigns it; clocks play no part.
//! 3. **Commits are idempotent.** A commit carries a random id, and so does a sign-out. The store
//!    remembers the last [`REMEMBERED_COMMITS`] ids of a partition and answers a repeated one
//!    without applying it again, so that one whose answer was lost can be retried. The latest of
//!    them tells states apart that have the same number: a store that has lost data counts again.
//!    One that was [sent before](Commit::repeats) and may be forgotten spares what is newer.
//! 4. **Entries stand alone.** A commit writes and removes the entries that it names and leaves
//!    all others as they are.
//! 5. **Expectations are atomic.** A commit that [expects](Commit::expected) an entry at a version
//!    is a [`Conflict`](Outcome::Conflict) and changes nothing when the entry has another: whoever
//!    spent a refresh token keeps its successor only if nobody replaced it meanwhile.
//!
//! 6. **Nothing goes on in another life.** A commit names the [life](Loaded::life) of the partition
//!    that it goes on with. Where that is over (ended, lost, removed by hand) it is
//!    [`Lost`](Outcome::Lost) and changes nothing: the engine decides whether to begin anew.
//!
//! [Leases](Lease) keep instances apart for a while; they promise nothing. What must not happen
//! twice is protected by rule 5.
//!
//! A partition *ends* at the earliest of: its sliding lifetime since the last commit or touch, its
//! lifetime since the last commit, its lifetime since it was created, and the expiry
//! of its last entry when every entry has one. A partition that has ended is loaded as absent, and
//! an entry that has expired is not loaded; the store frees both in time. The next commit begins a new life,
//! with version 1; while a tombstone is kept, with the version after the last one.
//!
//! A store that holds a *lower* generation than a commit names has lost data (a restart without
//! persistence, a failover): what it holds is replaced, unless the commit goes on with a life.
//!
//! An *epoch* is a partition whose generation is [raised](TokenStore::raise) and that holds nothing: a
//! number that never falls while it is kept, and that is read with
//! [`revisions`](TokenStore::revisions). Nothing is committed to it. Its
//! [commit id](Revision::commit) is made when it begins, by chance or by the clock, and stays: one that was
//! lost and has begun again has another. [`clear`](TokenStore::clear)
//! would raise it as it does any partition, and leave it with the life of a tombstone.
//!
//! A store that can compare and set bytes under a key needs none of this: [`CasStore`] is a kit for it.
//!
//! A running site goes from one store to another by [`MigratingStore`], if both are [`Movable`].
//!
//! `conformance` (feature `test-util`) checks any implementation against this page.

mod cas;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod columns;
mod commit;
#[cfg(feature = "test-util")]
pub mod conformance;
mod erased;
mod feed;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod found;
mod id;
mod loaded;
#[cfg(feature = "memcached")]
mod memcached;
mod memory;
mod migrating;
mod movable;
mod names;
mod partition;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod pool;
mod raise;
mod record;
#[cfg(feature = "redis")]
pub(crate) mod redis;
mod relocation;
mod retries;
mod row;
mod shared;
#[cfg(feature = "cookie")]
mod slots;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::time::Duration;

pub use self::cas::{CasAdapter, CasStore};
pub use self::commit::{Change, Cleared, Commit, Expected, Lifetime, Outcome, Put};
pub(crate) use self::erased::DynStore;
pub use self::feed::{Feed, FeedEvent};
pub use self::id::{CommitId, EntryId, PartitionId};
pub use self::loaded::{Loaded, Remaining, Revision, StoredEntry};
#[cfg(feature = "memcached")]
pub use self::memcached::{Memcached, MemcachedStore};
pub use self::memory::MemoryStore;
pub use self::migrating::{MigratingStore, Mover, Progress};
pub use self::movable::{Listed, Listing, Movable, Portable};
pub(crate) use self::names::Names;
pub use self::raise::Raise;
#[cfg(all(feature = "redis", feature = "seal"))]
pub use self::redis::RedisKeys;
#[cfg(feature = "redis")]
pub use self::redis::{RedisCredentials, RedisStore, RedisStoreBuilder};
#[cfg(feature = "cookie")]
pub(crate) use self::row::{ROW_OVERHEAD, Row};
#[cfg(feature = "cookie")]
pub(crate) use self::slots::{Pinned, Slots, Snapshot};
#[cfg(all(feature = "mysql", feature = "__tests"))]
#[doc(hidden)]
pub use self::sql::Numbers;
#[cfg(all(feature = "seal", any(feature = "postgres", feature = "mysql")))]
pub use self::sql::SqlKeys;
#[cfg(feature = "mysql")]
pub use self::sql::{MySql, MySqlStore};
#[cfg(feature = "postgres")]
pub use self::sql::{Postgres, PostgresStore};
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub use self::sql::{SqlStore, SqlStoreBuilder};
#[cfg(all(feature = "sqlite", feature = "seal"))]
pub use self::sqlite::SqliteKeys;
#[cfg(feature = "sqlite")]
pub use self::sqlite::SqliteStore;
use crate::error::StoreError;

/// How long the tombstone of a signed-out partition is kept: 24 hours, longer than any request
/// and twice as long as any change waits to be replayed.
pub const TOMBSTONE: Duration = Duration::from_secs(24 * 3600);

/// How many commit ids a store remembers per partition.
pub const REMEMBERED_COMMITS: usize = 16;

/// The L2 store. See the [module](self) for the contract.
///
/// An operation that fails returns [`StoreError`]; it need not keep time, the engine does. Damaged
/// or foreign data under one of the store's keys is no error: it is loaded as absent and
/// [counted](Loaded::damaged), and replaced by the next commit.
///
/// The methods are written as `async fn`. Required are those that change or read partitions, and those of
/// leases; the others have a default. An operation may be dropped at any await: what has been sent may then
/// be applied or not.
///
/// # A store around another
///
/// It takes the inner one as a type parameter, and forwards all methods, those with a default included:
/// a default would hide what the inner store can do.
///
/// ```
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// # use std::time::Duration;
/// # use tower_token_cache::store::*;
/// use tower_token_cache::store::{Loaded, PartitionId, TokenStore};
/// use tower_token_cache::{MemoryStore, StoreError, TokenCache};
///
/// /// Counts what is read.
/// struct Counted<S> {
///     inner: S,
///     loads: AtomicUsize,
/// }
///
/// impl<S: TokenStore> TokenStore for Counted<S> {
///     async fn load(&self, group: &[PartitionId]) -> Vec<Result<Loaded, StoreError>> {
///         self.loads.fetch_add(group.len(), Ordering::Relaxed);
///         self.inner.load(group).await
///     }
///     // … and so on for the others.
/// #    fn is_persistent(&self) -> bool {
/// #        self.inner.is_persistent()
/// #    }
/// #    fn server(&self, partition: &PartitionId) -> usize {
/// #        self.inner.server(partition)
/// #    }
/// #    async fn revisions(&self, group: &[PartitionId]) -> Vec<Result<Revision, StoreError>> {
/// #        self.inner.revisions(group).await
/// #    }
/// #    async fn commit(&self, group: &[Commit]) -> Vec<Result<Outcome, StoreError>> {
/// #        self.inner.commit(group).await
/// #    }
/// #    async fn touch(&self, group: &[PartitionId]) -> Vec<Result<Remaining, StoreError>> {
/// #        self.inner.touch(group).await
/// #    }
/// #    async fn clear(
/// #        &self,
/// #        partition: &PartitionId,
/// #        expected: Option<u64>,
/// #        id: CommitId,
/// #    ) -> Result<Cleared, StoreError> {
/// #        self.inner.clear(partition, expected, id).await
/// #    }
/// #    async fn raise(
/// #        &self,
/// #        partition: &PartitionId,
/// #        raise: Raise,
/// #        keep: Option<Duration>,
/// #    ) -> Result<u64, StoreError> {
/// #        self.inner.raise(partition, raise, keep).await
/// #    }
/// #    fn feed(&self, namespace: &str) -> Option<Feed> {
/// #        self.inner.feed(namespace)
/// #    }
/// #    async fn relocate(&self, from: &Origin, commit: &Commit) -> Result<Outcome, StoreError> {
/// #        self.inner.relocate(from, commit).await
/// #    }
/// #    fn identity(&self) -> u64 {
/// #        self.inner.identity()
/// #    }
/// #    async fn acquire_lease(&self, lease: &Lease, ttl: Duration) -> Result<LeaseState, StoreError> {
/// #        self.inner.acquire_lease(lease, ttl).await
/// #    }
/// #    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
/// #        self.inner.renew_lease(lease, ttl).await
/// #    }
/// #    async fn release_lease(&self, lease: &Lease) -> Result<bool, StoreError> {
/// #        self.inner.release_lease(lease).await
/// #    }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let inner = MemoryStore::new();
/// let loads = AtomicUsize::new(0);
/// let cache = TokenCache::builder(Counted { inner, loads }).build()?;
/// # drop(cache);
/// # Ok(())
/// # }
/// ```
///
/// # A store chosen at run time
///
/// [`TokenCache::builder`](crate::TokenCache::builder) takes any store and gives the same type for all, so the choice is made
/// there. No `dyn TokenStore` is needed, and the trait is not object-safe.
///
/// ```
/// use tower_token_cache::{Builder, ConfigError, MemoryStore, TokenCache};
///
/// # #[cfg(feature = "redis")]
/// async fn builder(redis: Option<&str>) -> Result<Builder, ConfigError> {
///     Ok(match redis {
///         Some(url) => TokenCache::builder(tower_token_cache::RedisStore::connect(url).await?),
///         None => TokenCache::builder(MemoryStore::new()),
///     })
/// }
/// ```
pub trait TokenStore: Send + Sync + 'static {
    /// Whether what is stored leaves this process: without a
    /// [`key_ring`](crate::Builder::key_ring) a cache over such a store says in the log that tokens
    /// are stored in the clear, unless that is [meant](crate::Builder::plaintext). Defaults to yes.
    fn is_persistent(&self) -> bool {
        true
    }

    /// Reads these partitions, each whole and as of one moment, in one round-trip where the store
    /// can. The answers come in the same order and number; one that fails or is damaged leaves the
    /// others' as they are.
    fn load(
        &self,
        group: &[PartitionId],
    ) -> impl Future<Output = Vec<Result<Loaded, StoreError>>> + Send;

    /// Which of its servers keeps a partition, by any number that is the same for those that one
    /// of them keeps. The engine asks for partitions of one server at a time, so that a server that
    /// hangs keeps nobody waiting but its own users. Defaults to 0: there is one.
    fn server(&self, partition: &PartitionId) -> usize {
        let _ = partition;
        0
    }

    /// The revisions of these partitions, without their entries, in one round-trip
    /// where the store can. A partition that has ended may be answered either way.
    fn revisions(
        &self,
        group: &[PartitionId],
    ) -> impl Future<Output = Vec<Result<Revision, StoreError>>> + Send {
        async move {
            let loaded = self.load(group).await.into_iter();
            let revision = |loaded: Result<Loaded, _>| loaded.map(|loaded| loaded.revision());
            loaded.map(revision).collect()
        }
    }

    /// Applies a group of commits, each to a partition of its own, each atomic by itself, in one
    /// round-trip where the store can. The answers come in the same order and number.
    fn commit(
        &self,
        group: &[Commit],
    ) -> impl Future<Output = Vec<Result<Outcome, StoreError>>> + Send;

    /// Starts the sliding lifetime of these partitions anew, up to their hard end. Absent and
    /// signed-out partitions stay as they are.
    fn touch(
        &self,
        group: &[PartitionId],
    ) -> impl Future<Output = Vec<Result<Remaining, StoreError>>> + Send;

    /// Signs a partition out: removes every entry, raises the generation and leaves a tombstone,
    /// which remembers `id`. With `expected`, only if the partition still has that generation (or
    /// less): a sign-out of the past does not end the session that has begun since. One that is
    /// repeated, with the same `id`, does not either.
    fn clear(
        &self,
        partition: &PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> impl Future<Output = Result<Cleared, StoreError>> + Send;

    /// Raises the generation of an epoch, in one atomic step, and answers the one now in force. It
    /// never falls; where it rises, or the partition had ended, nothing of what was there is left.
    /// The epoch is kept for `keep` from now on (`None` is without end), and never shorter than it
    /// was to be kept before. A repeated [`Begin`](Raise::Begin) or [`To`](Raise::To) changes nothing but that. How
    /// long ago it rose is what [`cleared_for`](Loaded::cleared_for) says of it.
    fn raise(
        &self,
        partition: &PartitionId,
        raise: Raise,
        keep: Option<Duration>,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Tells what changes in a namespace, from now on; see [`FeedEvent`]. Each call is another listener.
    ///
    /// A change that the store has acknowledged is told before the next
    /// [`CompleteUntil`](FeedEvent::CompleteUntil) of a later time, which a feed that is alive tells at least
    /// once a second. `None`, the default, is a store that cannot tell: memory is then compared with it
    /// as often as [`L1::max_staleness`](crate::L1::max_staleness) says.
    fn feed(&self, namespace: &str) -> Option<Feed> {
        let _ = namespace;
        None
    }

    /// Moves a partition: signs `from` out and applies `commit` to another partition, both or
    /// neither. [`Conflict`](Outcome::Conflict) when `from` is no longer as it was read, and
    /// [`Stale`](Outcome::Stale) when the other was signed out since, which goes first. Like a
    /// commit it is idempotent: a repeated one is answered as the first time.
    ///
    /// The default takes four round-trips: it checks both partitions, signs `from` out, and commits. It is for
    /// stores that cannot change two partitions in one transaction. A failure in between ends the old session, as where
    /// the new one has no room, and the move can be repeated until it is done. A commit to `from` that another instance makes
    /// between the check and the sign-out is lost with the old session: where that commit has
    /// [taken](crate::Tokens::take) a session value, the value moves all the same, and can be taken again.
    fn relocate(
        &self,
        from: &Origin,
        commit: &Commit,
    ) -> impl Future<Output = Result<Outcome, StoreError>> + Send {
        relocation::in_steps(self, from, commit)
    }

    /// What tells this store from others of its type: the same for stores that hold the same
    /// records. [`TokenCache::shared`](crate::TokenCache::shared) compares it; it is never shown.
    /// Defaults to 0: all of a type are the same.
    fn identity(&self) -> u64 {
        0
    }

    /// Takes a lease for `ttl` if it is free, has run out, or is this owner's already.
    fn acquire_lease(
        &self,
        lease: &Lease,
        ttl: Duration,
    ) -> impl Future<Output = Result<LeaseState, StoreError>> + Send;

    /// Lets a lease run for `ttl` from now on. `false`, and nothing changes, when it is no longer
    /// this owner's.
    fn renew_lease(
        &self,
        lease: &Lease,
        ttl: Duration,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Frees a lease. `false`, and nothing changes, when it is no longer this owner's.
    fn release_lease(&self, lease: &Lease)
    -> impl Future<Output = Result<bool, StoreError>> + Send;
}

/// The right to acquire an entry, which one owner has at a time until it runs out. It does not
/// depend on the partition: it can be taken of an absent one, and outlives a sign-out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// The partition.
    pub partition: PartitionId,
    /// The entry.
    pub entry: EntryId,
    /// Who asks: a random number, of one acquisition.
    pub owner: [u8; 16],
}

impl Lease {
    /// The right of this owner to acquire this entry.
    pub fn new(partition: PartitionId, entry: EntryId, owner: [u8; 16]) -> Self {
        Self {
            partition,
            entry,
            owner,
        }
    }
}

/// The answer to [`TokenStore::acquire_lease`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// It is this owner's for the time asked for.
    Granted,
    /// It is another's.
    Held {
        /// Until when, at most, unless it is renewed.
        remaining: Duration,
    },
}

/// The partition that is moved, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Origin {
    /// Which.
    pub partition: PartitionId,
    /// Its generation.
    pub generation: u64,
    /// Its version; 0 when it is absent or has ended.
    pub version: u64,
}

impl Origin {
    /// The partition as of this generation and version.
    pub fn new(partition: PartitionId, generation: u64, version: u64) -> Self {
        Self {
            partition,
            generation,
            version,
        }
    }
}
