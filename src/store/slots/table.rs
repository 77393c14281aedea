//! The slots by partition, and which of them are in nobody's use.

use std::collections::HashMap;
use std::time::Duration;

use hashlink::LruCache;

use crate::store::PartitionId;
use crate::store::partition::Partition;
use crate::time::Timestamp;

pub(super) struct Table {
    pub(super) slots: HashMap<PartitionId, Slot>,
    /// The bytes of the slots without a pin, in the order of their last use.
    idle: LruCache<PartitionId, u64>,
    idle_bytes: u64,
}

#[derive(Default)]
pub(super) struct Slot {
    pub(super) partition: Option<Partition>,
    /// When it was last changed: later than every state that it came from, whatever clocks say.
    pub(super) changed_at: Timestamp,
    pub(super) pins: u32,
    /// Requests that can still take it away.
    pub(super) takers: u32,
    /// How often a commit was refused because of its size, and the last such size.
    pub(super) refusals: u64,
    pub(super) refused_size: usize,
    /// Whether the rest of the fleet was asked for its generation since the last pin.
    pub(super) verified: bool,
    /// How often the partition was verified or changed.
    pub(super) checks: u64,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            slots: HashMap::new(),
            idle: LruCache::new_unbounded(),
            idle_bytes: 0,
        }
    }
}

impl Table {
    pub(super) fn take_from_idle(&mut self, id: &PartitionId) {
        self.idle_bytes -= self.idle.remove(id).unwrap_or(0);
    }

    /// Puts a slot that nobody pins among the idle, and drops those that were used least recently
    /// when there are too many.
    pub(super) fn rest(&mut self, id: &PartitionId, max_bytes: u64) {
        let Some(slot) = self.slots.get(id).filter(|slot| slot.pins == 0) else {
            return;
        };
        let Some(partition) = &slot.partition else {
            self.slots.remove(id);
            return;
        };
        let bytes = partition.footprint();
        self.idle_bytes += bytes;
        self.idle.insert(id.clone(), bytes);
        while self.idle_bytes > max_bytes
            && let Some((oldest, bytes)) = self.idle.remove_lru()
        {
            self.idle_bytes -= bytes;
            self.slots.remove(&oldest);
        }
    }
}

impl Slot {
    pub(super) fn stored(&self, now: Timestamp) -> Option<Partition> {
        let stored = self.partition.as_ref();
        stored
            .filter(|partition| !partition.is_forgotten(now))
            .cloned()
    }

    pub(super) fn next_change(&self, now: Timestamp) -> Timestamp {
        now.max(self.changed_at.saturating_add(Duration::from_millis(1)))
    }
}
