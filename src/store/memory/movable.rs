//! Partitions that are moved to another store, or from one.

use super::MemoryStore;
use crate::error::StoreError;
use crate::store::partition::Partition;
use crate::store::{CommitId, Listed, Listing, Movable, Origin, PartitionId, Portable};

/// Partitions on a page of a listing.
const PAGE: usize = 500;

impl Movable for MemoryStore {
    async fn export(&self, partition: &PartitionId) -> Result<Option<Portable>, StoreError> {
        let now = self.clock.now();
        let mut shelf = self.shelf.lock();
        let stored = shelf.stored(partition, now);
        Ok(stored.map(|stored| stored.portable(now)))
    }

    async fn adopt(&self, partition: &PartitionId, it: &Portable) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let mut shelf = self.shelf.lock();
        Ok(shelf.update(partition, now, |stored| Partition::adopt(stored, it, now)))
    }

    async fn withdraw(&self, from: &Origin, id: CommitId) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let mut shelf = self.shelf.lock();
        Ok(shelf.update(&from.partition, now, |stored| {
            Partition::withdraw(stored, from, id, now)
        }))
    }

    async fn remove(&self, partition: &PartitionId, last: CommitId) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let mut shelf = self.shelf.lock();
        let is_last = |stored: &mut Partition| stored.record.last() == Some(last);
        Ok(shelf.update(partition, now, |stored| stored.take_if(is_last).is_some()))
    }
}

/// In the order of their digests; the cursor is the last one.
impl Listed for MemoryStore {
    async fn list(&self, namespace: &str, cursor: Option<&[u8]>) -> Result<Listing, StoreError> {
        let shelf = self.shelf.lock();
        let ids = shelf.partitions.iter().map(|(id, _)| id);
        let here = |id: &&PartitionId| {
            id.namespace() == namespace && cursor.is_none_or(|last| &id.digest()[..] > last)
        };
        let mut partitions: Vec<_> = ids.filter(here).cloned().collect();
        partitions.sort_unstable_by_key(|id| *id.digest());
        let more = partitions.len() > PAGE;
        partitions.truncate(PAGE);
        let last = partitions.last().filter(|_| more);
        let next = last.map(|id| id.digest().to_vec());
        Ok(Listing { partitions, next })
    }
}
