//! A part of the table with its own lock.

use std::sync::Arc;

use hashbrown::HashTable;

use crate::engine::partition::state::Partition;
use crate::key::PartitionKey;

/// The partitions of some keys: see `Partitions` for the three buckets.
#[derive(Default)]
pub(crate) struct Stripe {
    pub(crate) active: Bucket,
    pub(crate) kept: Bucket,
    pub(crate) empty: Bucket,
    /// The bytes added to `empty` since it was last cleared.
    pub(crate) empty_bytes: usize,
}

/// Partitions by key. Each partition knows its own key.
#[derive(Default)]
pub(crate) struct Bucket(pub(crate) HashTable<Arc<Partition>>);

impl Stripe {
    pub(crate) fn clear_empty(&mut self) {
        self.empty.0.clear();
        self.empty_bytes = 0;
    }
}

impl Bucket {
    /// Shrinks the table if less than a quarter of it is used.
    pub(crate) fn fit(&mut self, hash: impl Fn(&Arc<Partition>) -> u64) {
        if self.0.len() < self.0.capacity() / 4 {
            self.0.shrink_to(2 * self.0.len(), hash);
        }
    }

    pub(crate) fn get(&self, hash: u64, key: &PartitionKey) -> Option<&Arc<Partition>> {
        self.0.find(hash, |partition| partition.key == *key)
    }

    pub(crate) fn has(&self, hash: u64, partition: &Arc<Partition>) -> bool {
        let found = self.0.find(hash, |other| Arc::ptr_eq(other, partition));
        found.is_some()
    }

    pub(crate) fn remove(&mut self, hash: u64, partition: &Arc<Partition>) {
        let is_it = |other: &Arc<Partition>| Arc::ptr_eq(other, partition);
        if let Ok(found) = self.0.find_entry(hash, is_it) {
            found.remove();
        }
    }
}
