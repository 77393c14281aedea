//! The contract between the engine and an L2 store.
//!
//! A store keeps, per partition, a *generation*, a *version*, entries and lifetimes. It sees
//! digests and opaque bytes, never a key, a token or HTTP. Five rules carry the guarantees:
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
//! 4. **Entries stand alone.** A commit writes and removes the entries that it names and leaves
//!    all others as they are.
//! 5. **Expectations are atomic.** A commit that [expects](Commit::expected) an entry at a version
//!    is a [`Conflict`](Outcome::Conflict) and changes nothing when the entry has another: whoever
//!    spent a refresh token keeps its successor only if nobody replaced it meanwhile.
//!
//! [Leases](Lease) keep instances apart for a while; they promise nothing. What must not happen
//! twice is protected by rule 5.
//!
//! A partition *ends* at the earliest of: its sliding lifetime since the last commit or touch, its
//! absolute lifetime since the last commit, its maximal age since it was created, and the expiry
//! of its last entry when every entry has one. A partition that has ended is loaded as absent, and
//! an entry that has expired is not loaded; the store frees both in time.
//!
//! A store that holds a *lower* generation than a commit names has lost data (a restart without
//! persistence, a failover): what it holds is replaced.
//!
//! `conformance` (feature `test-util`) checks any implementation against this page.

#[cfg(feature = "test-util")]
pub mod conformance;
mod memory;
mod names;
mod partition;
mod record;
#[cfg(feature = "redis")]
pub(crate) mod redis;
#[cfg(feature = "cookie")]
mod slots;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use sha2::{Digest, Sha256};

pub use self::memory::MemoryStore;
pub(crate) use self::names::Names;
#[cfg(all(feature = "redis", feature = "seal"))]
pub use self::redis::RedisKeys;
#[cfg(feature = "redis")]
pub use self::redis::{RedisStore, RedisStoreBuilder};
#[cfg(feature = "cookie")]
pub(crate) use self::slots::{Pinned, Slots, Snapshot};
#[cfg(all(feature = "sqlite", feature = "seal"))]
pub use self::sqlite::SqliteKeys;
#[cfg(feature = "sqlite")]
pub use self::sqlite::SqliteStore;
use crate::error::StoreError;
use crate::time::Timestamp;

/// How long the tombstone of a signed-out partition is kept: 24 hours, longer than any request
/// and twice as long as any change waits to be replayed.
pub const TOMBSTONE: Duration = Duration::from_secs(24 * 3600);

/// How many commit ids a store remembers per partition.
pub const REMEMBERED_COMMITS: usize = 16;

/// What a store's operation returns: a boxed future, so that the trait is object-safe.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The L2 store. See the [module](self) for the contract.
///
/// An operation that fails returns [`StoreError`]; it need not keep time, the engine does. Damaged
/// or foreign data under one of the store's keys is no error: it is loaded as absent and
/// [counted](Loaded::damaged), and replaced by the next commit.
pub trait TokenStore: Send + Sync + 'static {
    /// Reads one partition, whole.
    fn load<'a>(
        &'a self,
        partition: &'a PartitionId,
    ) -> StoreFuture<'a, Result<Loaded, StoreError>>;

    /// The revisions of these partitions, without their entries, in one round-trip
    /// where the store can. A partition that has ended may be answered either way.
    fn revisions<'a>(
        &'a self,
        group: &'a [PartitionId],
    ) -> StoreFuture<'a, Vec<Result<Revision, StoreError>>> {
        Box::pin(async move {
            let mut answers = Vec::with_capacity(group.len());
            for partition in group {
                let loaded = self.load(partition).await;
                answers.push(loaded.map(|loaded| loaded.revision()));
            }
            answers
        })
    }

    /// Applies a group of commits, each to a partition of its own, each atomic by itself, in one
    /// round-trip where the store can. The answers come in the same order and number.
    fn commit<'a>(
        &'a self,
        group: &'a [Commit],
    ) -> StoreFuture<'a, Vec<Result<Outcome, StoreError>>>;

    /// Starts the sliding lifetime of these partitions anew, up to their hard end. Absent and
    /// signed-out partitions stay as they are.
    fn touch<'a>(
        &'a self,
        group: &'a [PartitionId],
    ) -> StoreFuture<'a, Vec<Result<Remaining, StoreError>>>;

    /// Signs a partition out: removes every entry, raises the generation and leaves a tombstone,
    /// which remembers `id`. With `expected`, only if the partition still has that generation (or
    /// less): a sign-out of the past does not end the session that has begun since. One that is
    /// repeated, with the same `id`, does not either.
    fn clear<'a>(
        &'a self,
        partition: &'a PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> StoreFuture<'a, Result<Cleared, StoreError>>;

    /// Moves a partition: signs `from` out and applies `commit` to another partition, both or
    /// neither. [`Conflict`](Outcome::Conflict) when `from` is no longer as it was read, and
    /// [`Stale`](Outcome::Stale) when the other was signed out since, which goes first. Like a
    /// commit it is idempotent: a repeated one is answered as the first time.
    fn relocate<'a>(
        &'a self,
        from: &'a Origin,
        commit: &'a Commit,
    ) -> StoreFuture<'a, Result<Outcome, StoreError>>;

    /// Takes a lease for `ttl` if it is free, has run out, or is this owner's already.
    fn acquire_lease<'a>(
        &'a self,
        lease: &'a Lease,
        ttl: Duration,
    ) -> StoreFuture<'a, Result<LeaseState, StoreError>>;

    /// Lets a lease run for `ttl` from now on. `false`, and nothing changes, when it is no longer
    /// this owner's.
    fn renew_lease<'a>(
        &'a self,
        lease: &'a Lease,
        ttl: Duration,
    ) -> StoreFuture<'a, Result<bool, StoreError>>;

    /// Frees a lease. `false`, and nothing changes, when it is no longer this owner's.
    fn release_lease<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, Result<bool, StoreError>>;
}

/// The right to acquire an entry, which one owner has at a time until it runs out. It does not
/// depend on the partition: it can be taken of an absent one, and outlives a sign-out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The partition.
    pub partition: PartitionId,
    /// The entry.
    pub entry: EntryId,
    /// Who asks: a random number, of one acquisition.
    pub owner: [u8; 16],
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
pub struct Origin {
    /// Which.
    pub partition: PartitionId,
    /// Its generation.
    pub generation: u64,
    /// Its version; 0 when it is absent or has ended.
    pub version: u64,
}

/// Names a partition in the store: a namespace and a digest, which tells nothing of the key.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PartitionId {
    namespace: Arc<str>,
    digest: [u8; 32],
}

impl PartitionId {
    /// The same partition under a prefix generation; the first one has no part in the name.
    pub(crate) fn under(mut self, prefix: u64) -> Self {
        if prefix > 0 {
            self.digest = Sha256::new()
                .chain_update(b"tower-token-cache prefix v1\0")
                .chain_update(prefix.to_be_bytes())
                .chain_update(self.digest)
                .finalize()
                .into();
        }
        self
    }

    /// The id of a partition that belongs to no key, for tests of a store.
    #[cfg(feature = "test-util")]
    pub fn for_tests(namespace: &str, name: &str) -> Self {
        let digest = Sha256::new()
            .chain_update(b"tower-token-cache test partition v1\0")
            .chain_update(namespace)
            .chain_update(b"\0")
            .chain_update(name)
            .finalize();
        Self {
            namespace: namespace.into(),
            digest: digest.into(),
        }
    }

    /// An id that is no partition key's.
    #[cfg(feature = "cookie")]
    pub(crate) fn from_digest(namespace: &str, digest: [u8; 32]) -> Self {
        Self {
            namespace: namespace.into(),
            digest,
        }
    }

    /// The application's namespace: letters, digits, `.`, `_`, `-` and `:`.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The digest, unique across namespaces.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The digest in unpadded base64url.
    pub fn encoded(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.digest)
    }

    /// A prefix of the digest that tells partitions apart in logs.
    pub(crate) fn short(&self) -> String {
        URL_SAFE_NO_PAD.encode(&self.digest[..6])
    }
}

impl fmt::Debug for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartitionId({}…)", self.short())
    }
}

/// Names an entry within its partition: a digest of the entry's name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId([u8; 16]);

impl EntryId {
    /// The id of an entry by name, where no key is involved.
    #[cfg(any(test, feature = "test-util"))]
    pub(crate) fn of(name: &str) -> Self {
        Names::default().entry(name)
    }

    /// The id as stored.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The id in unpadded base64url.
    pub fn encoded(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }
}

impl From<[u8; 16]> for EntryId {
    fn from(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryId({}…)", URL_SAFE_NO_PAD.encode(&self.0[..3]))
    }
}

/// A partition as the store holds it. The default is an absent partition.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// How often the partition was signed out; 0 when absent.
    pub generation: u64,
    /// The version of the last commit; 0 when absent.
    pub version: u64,
    /// The id of the last commit or sign-out; `None` when absent.
    pub commit: Option<CommitId>,
    /// When the partition was last signed out, while its tombstone is kept.
    pub cleared_at: Option<Timestamp>,
    /// How long the partition lives from now on.
    pub remaining: Remaining,
    /// The entries that have not expired, in any order.
    pub entries: Vec<StoredEntry>,
    /// How many damaged records or entries were passed over.
    pub damaged: usize,
}

impl Loaded {
    /// What tells it from other states of the partition.
    pub fn revision(&self) -> Revision {
        Revision {
            generation: self.generation,
            version: self.version,
            commit: self.commit,
        }
    }
}

/// A state of a partition. Later ones are greater, unless the store has lost data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// How often the partition was signed out; 0 when absent.
    pub generation: u64,
    /// The version of the last commit; 0 when absent.
    pub version: u64,
    /// The id of the last commit or sign-out; `None` when absent. A store that has lost data
    /// comes to the same version again, but not to the same id.
    pub commit: Option<CommitId>,
}

/// One entry as the store holds it. `Debug` shows the size of the value only.
#[derive(Clone)]
pub struct StoredEntry {
    /// Which entry.
    pub entry: EntryId,
    /// The version of the commit that wrote it.
    pub version: u64,
    /// When it expires; `None` if it lives as long as its partition.
    pub expires_at: Option<Timestamp>,
    /// The sealed bytes.
    pub value: Bytes,
}

impl fmt::Debug for StoredEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without encryption the value holds tokens.
        f.debug_struct("StoredEntry")
            .field("entry", &self.entry)
            .field("version", &self.version)
            .field("expires_at", &self.expires_at)
            .field("bytes", &self.value.len())
            .finish_non_exhaustive()
    }
}

/// How long a partition lives from now on; `None` is without end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remaining {
    /// Unless it is used again.
    pub idle: Option<Duration>,
    /// Unless something is committed; never shorter than `idle`.
    pub hard: Option<Duration>,
}

/// The changes of one partition.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Which partition.
    pub partition: PartitionId,
    /// Identifies this commit when it is repeated.
    pub id: CommitId,
    /// The generation under which the changes were made.
    pub generation: u64,
    /// What must hold for the changes to be applied. It is not looked at when they are
    /// [`Stale`](Outcome::Stale), or were applied before.
    pub expected: Option<Expected>,
    /// The changed entries, each named once.
    pub changes: Vec<Change>,
    /// How long the partition lives.
    pub lifetime: Lifetime,
}

/// An entry as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Which entry.
    pub entry: EntryId,
    /// Its version; 0 when it is absent or has expired. One that has expired matches the version
    /// that it was written with, too, until the store frees it.
    pub version: u64,
}

/// A random number that identifies a commit, or a sign-out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(pub [u8; 8]);

/// What a commit does to one entry.
#[derive(Clone, Debug)]
pub struct Change {
    /// Which entry.
    pub entry: EntryId,
    /// Its new value; `None` removes it.
    pub put: Option<Put>,
}

/// A new value of an entry. `Debug` shows its size only.
#[derive(Clone)]
pub struct Put {
    /// The sealed bytes.
    pub value: Bytes,
    /// When the entry expires; `None` if it lives as long as its partition.
    pub expires_at: Option<Timestamp>,
}

impl fmt::Debug for Put {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Put")
            .field("bytes", &self.value.len())
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// The limits on a partition's life. The earliest one wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// Since the last commit or touch.
    pub sliding: Option<Duration>,
    /// Since the last commit.
    pub absolute: Option<Duration>,
    /// Since the partition was created.
    pub max_age: Option<Duration>,
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is applied, now or when it was first sent.
    Committed {
        /// The partition's version now. More than one above the version that the writer knew
        /// says that others have committed in between.
        version: u64,
        /// The id of the commit or sign-out that came before this one; `None` if there is none that
        /// counts or is remembered.
        previous: Option<CommitId>,
        /// How long the partition lives from now on.
        remaining: Remaining,
    },
    /// The partition was signed out since: nothing is changed.
    Stale {
        /// The generation in force.
        generation: u64,
    },
    /// The expected entry has another version: nothing is changed, and the commit is not
    /// remembered.
    Conflict,
}

/// The answer to [`TokenStore::clear`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cleared {
    /// The generation in force.
    pub generation: u64,
    /// Whether this sign-out has raised it, now or when it was first sent. `false` says that
    /// another one had ended the expected generation before.
    pub ended: bool,
}
