//! The bound on L1's memory: who leaves when it is full.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;

use crate::engine::partition::state::Partition;

/// moka keeps the order: who weighs how much, and who was used least recently. A hit does not go
/// through it: it hears of a use only when as many partitions have come since the last one that the
/// order could change by a sixteenth of L1, and of each one while L1 holds fewer than sixteen.
pub(crate) struct Eviction {
    order: Cache<Entry, Arc<Partition>>,
    /// Who had to leave, and is still found.
    evicted: Arc<Mutex<Vec<Arc<Partition>>>>,
    /// How many partitions have come, give or take a wrap-around.
    arrivals: AtomicU32,
    /// How many may come before a use counts as another.
    grain: AtomicU32,
}

/// Where a partition is in memory: it stays there while it is in the order.
type Entry = usize;

/// The part of L1 by which the order of uses may be wrong.
const GRAINS: u64 = 16;

impl Eviction {
    pub(crate) fn new(max_bytes: u64) -> Self {
        let evicted = Arc::<Mutex<Vec<_>>>::default();
        let leaving = evicted.clone();
        let listener = move |_: Arc<Entry>, partition, cause: RemovalCause| {
            if cause.was_evicted() {
                leaving.lock().push(partition);
            }
        };
        let order = Cache::builder()
            // Admits every newcomer; the default policy may refuse one in favour of the old.
            .eviction_policy(EvictionPolicy::lru())
            .max_capacity(max_bytes)
            .weigher(|_, partition: &Arc<Partition>| partition.weight())
            .eviction_listener(listener)
            .build();
        Self {
            order,
            evicted,
            arrivals: AtomicU32::new(0),
            grain: AtomicU32::new(0),
        }
    }

    /// Takes a partition in, or its new weight.
    pub(crate) fn take(&self, partition: &Arc<Partition>, weight: u32) {
        let arrivals = self.arrivals.fetch_add(1, Ordering::Relaxed);
        partition.used.store(arrivals, Ordering::Relaxed);
        partition.weight.store(weight, Ordering::Relaxed);
        self.order.insert(entry(partition), partition.clone());
        let grain = self.order.entry_count() / GRAINS;
        let grain = u32::try_from(grain).unwrap_or(u32::MAX);
        self.grain.store(grain, Ordering::Relaxed);
    }

    /// Whether it matters that this partition is used now.
    pub(crate) fn forgets(&self, partition: &Partition) -> bool {
        let used = partition.used.load(Ordering::Relaxed);
        let since = self.arrivals.load(Ordering::Relaxed).wrapping_sub(used);
        since >= self.grain.load(Ordering::Relaxed)
    }

    /// Notes that this partition is used now.
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

    /// Those who had to leave since this was last asked.
    pub(crate) fn take_evicted(&self) -> Vec<Arc<Partition>> {
        std::mem::take(&mut *self.evicted.lock())
    }

    /// Has everybody leave who has to.
    pub(crate) fn settle(&self) {
        self.order.run_pending_tasks();
    }

    /// How many there are, and what they weigh.
    pub(crate) fn size(&self) -> (u64, u64) {
        (self.order.entry_count(), self.order.weighted_size())
    }
}

fn entry(partition: &Arc<Partition>) -> Entry {
    Arc::as_ptr(partition).addr()
}
