//! `MemoryStore`: an L2 in this process, for one instance, for tests and for prototypes.

pub(super) mod leases;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use moka::ops::compute::Op;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::{RwLock, RwLockReadGuard};

use self::leases::Leases;
use super::partition::Partition;
use super::{
    Cleared, Commit, CommitId, Lease, LeaseState, Loaded, Origin, Outcome, PartitionId, Remaining,
    StoreFuture, TokenStore,
};
use crate::error::{StoreError, StoreErrorKind};
use crate::time::{Clock, Timestamp};

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
    ) -> Option<R> {
        let now = self.clock.now();
        let mut answer = None;
        self.partitions.entry_by_ref(id).and_compute_with(|stored| {
            let stored = stored.map(|entry| Partition::clone(&entry.into_value()));
            let kept = stored.filter(|p| !p.is_forgotten(now));
            let (next, result) = change(kept, now);
            answer = Some(result);
            next.map_or(Op::Nop, |partition| Op::Put(Arc::new(partition)))
        });
        answer
    }

    /// Applies a commit, unless it is stale, in conflict, or not `allowed` by more than itself.
    fn commit_one(&self, commit: &Commit, allowed: bool) -> Option<Outcome> {
        self.update(&commit.partition, |stored, now| {
            Partition::commit(stored, commit, allowed, now)
        })
    }

    fn clear_one(
        &self,
        partition: &PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> Option<Cleared> {
        self.update(partition, |stored, now| {
            let (next, cleared) = Partition::clear(stored, expected, id, now);
            (Some(next), cleared)
        })
    }

    fn relocate_one(&self, from: &Origin, commit: &Commit) -> Result<Outcome, StoreError> {
        if from.partition == commit.partition {
            return Err(refused());
        }
        let _alone = self.moving.write();
        let now = self.clock.now();
        let stored = self.stored(&from.partition, now);
        let unmoved = from.unmoved(stored.as_ref().map(|p| &p.record), now);
        let outcome = self.commit_one(commit, unmoved).ok_or_else(refused)?;
        if let Outcome::Committed { .. } = outcome {
            self.clear_one(&from.partition, Some(from.generation), commit.id);
        }
        Ok(outcome)
    }

    fn together(&self) -> RwLockReadGuard<'_, ()> {
        self.moving.read()
    }
}

fn refused() -> StoreError {
    StoreError::new(StoreErrorKind::Refused)
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
        let commit = |commit| self.commit_one(commit, true);
        let outcomes = group.iter().filter_map(commit);
        Box::pin(std::future::ready(outcomes.map(Ok).collect()))
    }

    fn touch<'a>(
        &'a self,
        group: &'a [PartitionId],
    ) -> StoreFuture<'a, Vec<Result<Remaining, StoreError>>> {
        let touch = |id| self.update(id, Partition::touch);
        let _together = self.together();
        let remaining = group.iter().filter_map(touch).map(Ok);
        Box::pin(std::future::ready(remaining.collect()))
    }

    fn clear<'a>(
        &'a self,
        partition: &'a PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> StoreFuture<'a, Result<Cleared, StoreError>> {
        let _together = self.together();
        let cleared = self.clear_one(partition, expected, id).ok_or_else(refused);
        // Until then the map holds on to what it had, and to the tokens in it.
        self.partitions.run_pending_tasks();
        Box::pin(std::future::ready(cleared))
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
