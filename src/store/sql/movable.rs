//! Partitions that are moved to another store, or from one.

use super::dialect::{Dialect, PAGE};
use super::handle::SqlStore;
use super::operations::Attempts;
use crate::error::StoreError;
use crate::store::found::Depth;
use crate::store::partition::Partition;
use crate::store::{CommitId, Listed, Listing, Movable, Origin, PartitionId, Portable};

impl<D: Dialect> Movable for SqlStore<D> {
    async fn export(&self, partition: &PartitionId) -> Result<Option<Portable>, StoreError> {
        let (now, found) = self.read(&[partition], Depth::Values).await?;
        let found = found.first().and_then(|found| found.partition.as_ref());
        Ok(found.map(|partition| partition.portable(now)))
    }

    async fn adopt(&self, partition: &PartitionId, it: &Portable) -> Result<bool, StoreError> {
        let adopt = |stored: &mut _, now| Partition::adopt(stored, it, now);
        let adopted = self.change_one(partition, adopt).await;
        self.sweep_when_due();
        adopted
    }

    async fn withdraw(&self, from: &Origin, id: CommitId) -> Result<bool, StoreError> {
        let withdraw = |stored: &mut _, now| Partition::withdraw(stored, from, id, now);
        self.change_one(&from.partition, withdraw).await
    }

    async fn remove(&self, partition: &PartitionId, last: CommitId) -> Result<bool, StoreError> {
        let is_last = |stored: &mut Partition| stored.record.last() == Some(last);
        let remove = |stored: &mut Option<Partition>, _| stored.take_if(is_last).is_some();
        self.change_one(partition, remove).await
    }
}

/// In the order of their digests; the cursor is the last one, and holds for ever. Rows do not say of which namespace
/// they are: all partitions of the tables are listed as of the namespace that is asked for. Move tables that several
/// namespaces share by [use](crate::store::MigratingStore) alone.
impl<D: Dialect> Listed for SqlStore<D> {
    async fn list(&self, namespace: &str, cursor: Option<&[u8]>) -> Result<Listing, StoreError> {
        let after = cursor.unwrap_or_default();
        let mut attempts = Attempts::new();
        loop {
            let mut taken = self.take().await?;
            let asked = self.dialect.list(&mut taken.connection, after);
            let answer = self.in_time(asked).await?;
            if let Some(digests) = self.settle(&mut attempts, taken, answer).await? {
                let next = digests.get(PAGE - 1).cloned();
                let digests = digests.into_iter();
                let digests = digests.filter_map(|it| <[u8; 32]>::try_from(it).ok());
                let id = |digest| PartitionId::from_digest(namespace, digest);
                return Ok(Listing::new(digests.map(id).collect(), next));
            }
        }
    }
}
