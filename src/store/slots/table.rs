//! The slots by partition, and which of them are in nobody's use.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::store::PartitionId;
use crate::store::partition::Partition;
use crate::time::Timestamp;

#[derive(Default)]
pub(super) struct Table {
    pub(super) slots: HashMap<PartitionId, Slot>,
    /// The slots without a pin, in the order of their last use.
    idle: BTreeMap<u64, PartitionId>,
    idle_bytes: u64,
    tick: u64,
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
    /// Its place among the idle.
    idle: Option<(u64, u64)>,
}

impl Table {
    pub(super) fn take_from_idle(&mut self, id: &PartitionId) {
        if let Some((tick, bytes)) = self.slots.get_mut(id).and_then(|slot| slot.idle.take()) {
            self.idle.remove(&tick);
            self.idle_bytes -= bytes;
        }
    }

    /// Puts a slot that nobody pins among the idle, and drops those that were used least recently
    /// when there are too many.
    pub(super) fn rest(&mut self, id: &PartitionId, max_bytes: u64) {
        let Some(slot) = self.slots.get_mut(id).filter(|slot| slot.pins == 0) else {
            return;
        };
        let Some(partition) = &slot.partition else {
            self.slots.remove(id);
            return;
        };
        let bytes = u64::from(partition.footprint());
        self.tick += 1;
        slot.idle = Some((self.tick, bytes));
        self.idle.insert(self.tick, id.clone());
        self.idle_bytes += bytes;
        while self.idle_bytes > max_bytes {
            let Some((_, oldest)) = self.idle.first_key_value() else {
                return;
            };
            let oldest = oldest.clone();
            self.take_from_idle(&oldest);
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
