//! `MemoryStore`: an L2 in this process, for one instance, for tests and for prototypes.

pub(super) mod leases;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard};

use self::leases::Leases;
use super::partition::Partition;
use super::{
    Cleared, Commit, CommitId, Lease, LeaseState, Loaded, Origin, Outcome, PartitionId, Remaining,
    StoreFuture, TokenStore,
};
use crate::error::{StoreError, StoreErrorKind};
use crate::time::{Clock, Timestamp};

/// Enough that writers seldom wait for one another.
const TURNS: usize = 64;

/// A store in the memory of this process: nothing survives a restart, and other instances do not
/// see it. It holds at most a number of bytes (500 MiB unless [`with_max_bytes`] says otherwise)
/// and drops what was used least recently; clones share their contents.
///
/// Suitable in production for application tokens; for user tokens take a durable store.
///
/// [`with_max_bytes`]: MemoryStore::with_max_bytes
#[derive(Clone)]
pub struct MemoryStore {
    partitions: Cache<PartitionId, Arc<Partition>>,
    /// Whoever changes a partition holds its turn. Many partitions share one.
    turns: Arc<[Mutex<()>; TURNS]>,
    /// Whoever moves a partition holds it alone, so that nobody sees one half of the move.
    moving: Arc<RwLock<()>>,
    leases: Arc<Leases>,
    clock: Clock,
}

impl MemoryStore {
    /// A store of at most 500 MiB, as the L1 cache: about 70,000 users of 7 KB.
    pub fn new() -> Self {
        Self::with_max_bytes(500 * 1024 * 1024)
    }

    /// A store of at most this many bytes.
    pub fn with_max_bytes(max_bytes: u64) -> Self {
        Self {
            partitions: Cache::builder()
                .max_capacity(max_bytes)
                .weigher(|_, partition: &Arc<Partition>| partition.footprint())
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            turns: Arc::new([const { Mutex::new(()) }; TURNS]),
            moving: Arc::default(),
            leases: Arc::default(),
            clock: Clock::system(),
        }
    }

    /// The same store on another clock, for tests.
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The partition, unless it is forgotten by now.
    fn stored(&self, id: &PartitionId, now: Timestamp) -> Option<Arc<Partition>> {
        let stored = self.partitions.get(id);
        stored.filter(|p| !p.is_forgotten(now))
    }

    /// Replaces a partition by what `change` makes of it, atomically. The caller holds `moving`.
    fn update<R>(
        &self,
        id: &PartitionId,
        change: impl FnOnce(Option<Partition>, Timestamp) -> (Option<Partition>, R),
    ) -> R {
        let _turn = self.turn(id);
        let now = self.clock.now();
        let stored = self.stored(id, now);
        let (next, result) = change(stored.as_deref().cloned(), now);
        if let Some(partition) = next {
            self.partitions.insert(id.clone(), Arc::new(partition));
        }
        result
    }

    fn turn(&self, id: &PartitionId) -> MutexGuard<'_, ()> {
        self.turns[usize::from(id.digest()[0]) % TURNS].lock()
    }

    /// Applies a commit, unless it is stale, in conflict, or not `allowed` by more than itself.
    fn commit_one(&self, commit: &Commit, allowed: bool) -> Outcome {
        self.update(&commit.partition, |stored, now| {
            Partition::commit(stored, commit, allowed, now)
        })
    }

    fn clear_one(&self, partition: &PartitionId, expected: Option<u64>, id: CommitId) -> Cleared {
        self.update(partition, |stored, now| {
            let (next, cleared) = Partition::clear(stored, expected, id, now);
            (Some(next), cleared)
        })
    }

    fn relocate_one(&self, from: &Origin, commit: &Commit) -> Result<Outcome, StoreError> {
        if from.partition == commit.partition {
            return Err(StoreError::new(StoreErrorKind::Refused));
        }
        let _alone = self.moving.write();
        let now = self.clock.now();
        let stored = self.stored(&from.partition, now);
        let unmoved = from.unmoved(stored.as_ref().map(|p| &p.record), now);
        let outcome = self.commit_one(commit, unmoved);
        if let Outcome::Committed { .. } = outcome {
            self.clear_one(&from.partition, Some(from.generation), commit.id);
        }
        Ok(outcome)
    }

    fn together(&self) -> RwLockReadGuard<'_, ()> {
        self.moving.read()
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("partitions", &self.partitions.entry_count())
            .finish_non_exhaustive()
    }
}

impl TokenStore for MemoryStore {
    fn load<'a>(&'a self, id: &'a PartitionId) -> StoreFuture<'a, Result<Loaded, StoreError>> {
        let now = self.clock.now();
        let stored = {
            let _together = self.together();
            self.stored(id, now)
        };
        let loaded = stored.map_or_else(Loaded::default, |partition| partition.loaded(now));
        Box::pin(std::future::ready(Ok(loaded)))
    }

    fn commit<'a>(
        &'a self,
        group: &'a [Commit],
    ) -> StoreFuture<'a, Vec<Result<Outcome, StoreError>>> {
        let _together = self.together();
        let commit = |commit| Ok(self.commit_one(commit, true));
        Box::pin(std::future::ready(group.iter().map(commit).collect()))
    }

    fn touch<'a>(
        &'a self,
        group: &'a [PartitionId],
    ) -> StoreFuture<'a, Vec<Result<Remaining, StoreError>>> {
        let touch = |id| Ok(self.update(id, Partition::touch));
        let _together = self.together();
        Box::pin(std::future::ready(group.iter().map(touch).collect()))
    }

    fn clear<'a>(
        &'a self,
        partition: &'a PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> StoreFuture<'a, Result<Cleared, StoreError>> {
        let _together = self.together();
        let cleared = self.clear_one(partition, expected, id);
        // Until then the map holds on to what it had, and to the tokens in it.
        self.partitions.run_pending_tasks();
        Box::pin(std::future::ready(Ok(cleared)))
    }

    fn relocate<'a>(
        &'a self,
        from: &'a Origin,
        commit: &'a Commit,
    ) -> StoreFuture<'a, Result<Outcome, StoreError>> {
        Box::pin(std::future::ready(self.relocate_one(from, commit)))
    }

    fn acquire_lease<'a>(
        &'a self,
        lease: &'a Lease,
        ttl: Duration,
    ) -> StoreFuture<'a, Result<LeaseState, StoreError>> {
        let state = self.leases.acquire(lease, ttl, self.clock.now());
        Box::pin(std::future::ready(Ok(state)))
    }

    fn renew_lease<'a>(
        &'a self,
        lease: &'a Lease,
        ttl: Duration,
    ) -> StoreFuture<'a, Result<bool, StoreError>> {
        let renewed = self.leases.renew(lease, ttl, self.clock.now());
        Box::pin(std::future::ready(Ok(renewed)))
    }

    fn release_lease<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, Result<bool, StoreError>> {
        let released = self.leases.release(lease, self.clock.now());
        Box::pin(std::future::ready(Ok(released)))
    }
}
