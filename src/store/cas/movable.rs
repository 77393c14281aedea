//! Partitions that are moved to another store, or from one.

use super::{CasAdapter, CasStore};
use crate::error::StoreError;
use crate::store::partition::Partition;
use crate::store::{CommitId, Movable, Origin, PartitionId, Portable};

impl<C: CasStore> Movable for CasAdapter<C> {
    async fn export(&self, partition: &PartitionId) -> Result<Option<Portable>, StoreError> {
        let found = self.read(partition).await?;
        Ok(found.map(|(partition, now)| partition.portable(now)))
    }

    async fn adopt(&self, partition: &PartitionId, it: &Portable) -> Result<bool, StoreError> {
        let adopt = |stored: &mut Option<Partition>, now| Partition::adopt(stored, it, now);
        self.update(partition, adopt).await
    }

    async fn withdraw(&self, from: &Origin, id: CommitId) -> Result<bool, StoreError> {
        let withdraw =
            |stored: &mut Option<Partition>, now| Partition::withdraw(stored, from, id, now);
        self.update(&from.partition, withdraw).await
    }

    async fn remove(&self, partition: &PartitionId, last: CommitId) -> Result<bool, StoreError> {
        self.delete_if(partition, |stored| stored.record.last() == Some(last))
            .await
    }
}
