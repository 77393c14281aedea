//! `MemoryStore`: an L2 in this process, for one instance, for tests and for prototypes.

mod feed;
pub(super) mod leases;
mod movable;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hashlink::LruCache;
use parking_lot::Mutex;

use self::feed::Listeners;
use self::leases::Leases;
use super::partition::Partition;
use super::{
    Cleared, Commit, CommitId, Feed, Lease, LeaseState, Loaded, Origin, Outcome, PartitionId,
    Raise, Remaining, TokenStore,
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
    shelf: Arc<Mutex<Shelf>>,
    leases: Arc<Leases>,
    clock: Clock,
}

/// The partitions, in the order of their last use.
struct Shelf {
    partitions: LruCache<PartitionId, Partition>,
    bytes: u64,
    max_bytes: u64,
    listeners: Listeners,
}

impl MemoryStore {
    /// A store of at most 500 MiB, as the L1 cache: about 70,000 users of 7 KB.
    pub fn new() -> Self {
        Self::with_max_bytes(500 * 1024 * 1024)
    }

    /// A store of at most this many bytes.
    pub fn with_max_bytes(max_bytes: u64) -> Self {
        Self {
            shelf: Arc::new(Mutex::new(Shelf {
                partitions: LruCache::new_unbounded(),
                bytes: 0,
                max_bytes,
                listeners: Listeners::default(),
            })),
            leases: Arc::default(),
            clock: Clock::system(),
        }
    }

    /// The same store on another clock, for tests.
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Forgets a partition without a trace, as eviction or an operator would; for tests.
    #[cfg(feature = "__tests")]
    pub fn forget(&self, partition: &PartitionId) {
        let mut shelf = self.shelf.lock();
        let forgotten = shelf.partitions.remove(partition);
        shelf.bytes -= forgotten.as_ref().map_or(0, Partition::footprint);
        shelf.listeners.tell(Some(partition));
    }

    /// Forgets everything at once, as a server does that restarts without its data; for tests.
    #[cfg(feature = "__tests")]
    pub fn forget_all(&self) {
        let mut shelf = self.shelf.lock();
        shelf.partitions.clear();
        shelf.bytes = 0;
        shelf.listeners.tell(None);
    }

    /// The partitions that it holds, signed-out ones included; for tests.
    #[cfg(feature = "__tests")]
    pub fn partitions(&self) -> Vec<PartitionId> {
        let shelf = self.shelf.lock();
        let mut ids: Vec<_> = shelf.partitions.iter().map(|(id, _)| id.clone()).collect();
        ids.sort_by_key(|id| *id.digest());
        ids
    }

    fn relocate_one(&self, from: &Origin, commit: &Commit) -> Result<Outcome, StoreError> {
        if from.partition == commit.partition {
            return Err(StoreError::new(StoreErrorKind::Refused));
        }
        let now = self.clock.now();
        let mut shelf = self.shelf.lock();
        let stored = shelf.stored(&from.partition, now);
        let unmoved = from.unmoved(stored.map(|partition| &partition.record), now);
        let outcome = shelf.commit(commit, unmoved, now);
        if let Outcome::Committed { .. } = outcome {
            shelf.clear(&from.partition, Some(from.generation), commit.id, now);
        }
        Ok(outcome)
    }
}

impl Shelf {
    /// The partition, unless it is forgotten by now.
    fn stored(&mut self, id: &PartitionId, now: Timestamp) -> Option<&mut Partition> {
        let stored = self.partitions.get_mut(id);
        stored.filter(|partition| !partition.is_forgotten(now))
    }

    /// Applies a commit, unless it is stale, in conflict, or not `allowed` by more than itself.
    fn commit(&mut self, commit: &Commit, allowed: bool, now: Timestamp) -> Outcome {
        self.update(&commit.partition, now, |stored| {
            Partition::commit(stored, commit, allowed, now)
        })
    }

    fn clear(
        &mut self,
        partition: &PartitionId,
        expected: Option<u64>,
        id: CommitId,
        now: Timestamp,
    ) -> Cleared {
        self.update(partition, now, |stored| {
            Partition::clear(stored, expected, id, now)
        })
    }

    /// Takes a partition out, changes it, and puts it back where there is room.
    fn update<R>(
        &mut self,
        id: &PartitionId,
        now: Timestamp,
        change: impl FnOnce(&mut Option<Partition>) -> R,
    ) -> R {
        let taken = self.partitions.remove(id);
        self.bytes -= taken.as_ref().map_or(0, Partition::footprint);
        let mut stored = taken.filter(|partition| !partition.is_forgotten(now));
        let result = change(&mut stored);
        // One that is larger than the whole store drives nobody else out.
        let fits = |partition: &Partition| partition.footprint() <= self.max_bytes;
        if let Some(partition) = stored.filter(fits) {
            self.bytes += partition.footprint();
            self.partitions.insert(id.clone(), partition);
        }
        while self.bytes > self.max_bytes
            && let Some((evicted, oldest)) = self.partitions.remove_lru()
        {
            self.bytes -= oldest.footprint();
            self.listeners.tell(Some(&evicted));
        }
        // Under the lock: before anybody is answered.
        self.listeners.tell(Some(id));
        result
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
            .field("partitions", &self.shelf.lock().partitions.len())
            .finish_non_exhaustive()
    }
}

impl TokenStore for MemoryStore {
    fn is_persistent(&self) -> bool {
        false
    }

    async fn load(&self, group: &[PartitionId]) -> Vec<Result<Loaded, StoreError>> {
        let now = self.clock.now();
        let load = |id| {
            let mut shelf = self.shelf.lock();
            let stored = shelf.stored(id, now);
            Ok(stored.map_or_else(Loaded::default, |partition| partition.loaded(now)))
        };
        group.iter().map(load).collect()
    }

    async fn commit(&self, group: &[Commit]) -> Vec<Result<Outcome, StoreError>> {
        let now = self.clock.now();
        let commit = |commit| Ok(self.shelf.lock().commit(commit, true, now));
        group.iter().map(commit).collect()
    }

    async fn touch(&self, group: &[PartitionId]) -> Vec<Result<Remaining, StoreError>> {
        let now = self.clock.now();
        let mut shelf = self.shelf.lock();
        let mut touch = |id| {
            let touched = shelf.stored(id, now).and_then(|stored| stored.touch(now));
            Ok(touched.unwrap_or_default())
        };
        group.iter().map(&mut touch).collect()
    }

    async fn clear(
        &self,
        partition: &PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> Result<Cleared, StoreError> {
        let now = self.clock.now();
        let cleared = self.shelf.lock().clear(partition, expected, id, now);
        Ok(cleared)
    }

    async fn raise(
        &self,
        partition: &PartitionId,
        raise: Raise,
        keep: Option<Duration>,
    ) -> Result<u64, StoreError> {
        let now = self.clock.now();
        let raised = self.shelf.lock().update(partition, now, |stored| {
            Partition::raise(stored, raise, keep, now)
        });
        Ok(raised)
    }

    fn feed(&self, namespace: &str) -> Option<Feed> {
        Some(self.shelf.lock().listeners.feed(namespace))
    }

    async fn relocate(&self, from: &Origin, commit: &Commit) -> Result<Outcome, StoreError> {
        self.relocate_one(from, commit)
    }

    async fn acquire_lease(&self, lease: &Lease, ttl: Duration) -> Result<LeaseState, StoreError> {
        let state = self.leases.acquire(lease, ttl, self.clock.read().moment);
        Ok(state)
    }

    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        let renewed = self.leases.renew(lease, ttl, self.clock.read().moment);
        Ok(renewed)
    }

    async fn release_lease(&self, lease: &Lease) -> Result<bool, StoreError> {
        let released = self.leases.release(lease, self.clock.read().moment);
        Ok(released)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::PartitionKey;
    use crate::store::{Change, Names, Put};

    fn id(user: usize) -> PartitionId {
        let user = PartitionKey::user(user.to_string()).expect("a key");
        Names::default().partition(&"test".into(), &user)
    }

    fn commit(store: &MemoryStore, user: usize, bytes: usize) {
        let put = Put::new(vec![0; bytes], None);
        let mut commit = Commit::new(id(user), CommitId([user as u8; 8]), 0);
        commit.changes = vec![Change::new([0; 16].into(), Some(put))];
        store.shelf.lock().commit(&commit, true, store.clock.now());
    }

    fn holds(store: &MemoryStore, user: usize) -> bool {
        let mut shelf = store.shelf.lock();
        shelf.stored(&id(user), store.clock.now()).is_some()
    }

    #[test]
    fn who_was_used_least_recently_leaves() {
        let store = MemoryStore::with_max_bytes(20_000);
        for user in 0..50 {
            commit(&store, user, 1000);
            assert!(holds(&store, 0), "used after {user}");
            assert!(store.shelf.lock().bytes <= 20_000);
        }
        assert!(holds(&store, 49));
        assert!(!holds(&store, 1));
    }

    #[test]
    fn who_is_too_large_for_the_store_drives_nobody_out() {
        let store = MemoryStore::with_max_bytes(20_000);
        commit(&store, 0, 1000);
        commit(&store, 1, 30_000);
        assert!(holds(&store, 0));
        assert!(!holds(&store, 1));
    }
}
