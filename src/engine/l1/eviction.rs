//! The bound on L1's memory, and the order of eviction.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;

use crate::engine::partition::state::Partition;

/// Approximate LRU by weight; moka keeps the order and the weights. A hit refreshes a partition's recency
/// only if at least 1/16 of the partitions were inserted since its last refresh, so that most hits do not
/// touch moka. While L1 holds fewer than sixteen partitions, every hit refreshes it.
pub(crate) struct Eviction {
    order: Cache<Entry, Arc<Partition>>,
    /// Evicted partitions that are still in the table.
    evicted: Arc<Mutex<Vec<Arc<Partition>>>>,
    /// The number of insertions, modulo 2^32.
    arrivals: AtomicU32,
    /// After this many insertions a hit refreshes the recency.
    recency_window: AtomicU32,
}

/// A partition's address, which is its own while the order has the partition.
type Entry = usize;

/// The order of recency may be wrong by this part of L1: a sixteenth.
const RECENCY_PARTS: u64 = 16;

impl Eviction {
    pub(crate) fn new(max_bytes: u64) -> Self {
        let evicted = Arc::<Mutex<Vec<_>>>::default();
        let sink = evicted.clone();
        let listener = move |_: Arc<Entry>, partition, cause: RemovalCause| {
            if cause.was_evicted() {
                sink.lock().push(partition);
            }
        };
        let order = Cache::builder()
            // Admits every new partition; the default policy may refuse one in favour of an old one.
            .eviction_policy(EvictionPolicy::lru())
            .max_capacity(max_bytes)
            .weigher(|_, partition: &Arc<Partition>| partition.weight())
            .eviction_listener(listener)
            .build();
        Self {
            order,
            evicted,
            arrivals: AtomicU32::new(0),
            recency_window: AtomicU32::new(0),
        }
    }

    /// Inserts a partition, or updates its weight.
    pub(crate) fn insert(&self, partition: &Arc<Partition>, weight: u32) {
        let arrivals = self.arrivals.fetch_add(1, Ordering::Relaxed);
        partition.used.store(arrivals, Ordering::Relaxed);
        partition.weight.store(weight, Ordering::Relaxed);
        self.order.insert(entry(partition), partition.clone());
        let recency_window = self.order.entry_count() / RECENCY_PARTS;
        let recency_window = u32::try_from(recency_window).unwrap_or(u32::MAX);
        self.recency_window.store(recency_window, Ordering::Relaxed);
    }

    /// Whether a use now is to be noted, because the last one is too old.
    pub(crate) fn is_use_due(&self, partition: &Partition) -> bool {
        let used = partition.used.load(Ordering::Relaxed);
        let since = self.arrivals.load(Ordering::Relaxed).wrapping_sub(used);
        since >= self.recency_window.load(Ordering::Relaxed)
    }

    /// Notes a use of this partition now.
    pub(crate) fn note_use(&self, partition: &Arc<Partition>) {
        let arrivals = self.arrivals.load(Ordering::Relaxed);
        partition.used.store(arrivals, Ordering::Relaxed);
        self.order.get(&entry(partition));
    }

    pub(crate) fn has(&self, partition: &Arc<Partition>) -> bool {
        self.order.contains_key(&entry(partition))
    }

    pub(crate) fn remove(&self, partition: &Arc<Partition>) {
        self.order.invalidate(&entry(partition));
    }

    pub(crate) fn clear(&self) {
        self.order.invalidate_all();
    }

    /// Takes the partitions that were evicted since the last call.
    pub(crate) fn take_evicted(&self) -> Vec<Arc<Partition>> {
        std::mem::take(&mut *self.evicted.lock())
    }

    /// Evicts now whatever exceeds the bound.
    pub(crate) fn run_pending(&self) {
        self.order.run_pending_tasks();
    }

    /// The number of partitions, and their weight.
    pub(crate) fn size(&self) -> (u64, u64) {
        (self.order.entry_count(), self.order.weighted_size())
    }
}

fn entry(partition: &Arc<Partition>) -> Entry {
    Arc::as_ptr(partition).addr()
}
