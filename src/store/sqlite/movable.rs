//! Partitions that are moved to another store, or from one.

use super::SqliteStore;
use super::code::store_error;
use crate::error::StoreError;
use crate::store::found::{Depth, Found};
use crate::store::partition::Partition;
use crate::store::{CommitId, Listed, Listing, Movable, Origin, PartitionId, Portable};

/// Partitions on a page of a listing.
const PAGE: usize = 500;

impl SqliteStore {
    async fn export_one(&self, id: &PartitionId) -> sqlx::Result<Option<Portable>> {
        let portable = |found: &Found, now| {
            let stored = found.partition.as_ref();
            stored.map(|partition| partition.portable(now))
        };
        let read = self.read(&[id], Depth::Values, portable).await?;
        Ok(read.into_iter().flatten().next())
    }

    async fn adopt_one(&self, id: &PartitionId, portable: &Portable) -> sqlx::Result<bool> {
        let adopt = |stored: &mut _, now| Partition::adopt(stored, portable, now);
        let adopted = self.change_one(id, adopt).await?;
        self.sweep(self.clock.now()).await;
        Ok(adopted)
    }

    async fn withdraw_one(&self, from: &Origin, id: CommitId) -> sqlx::Result<bool> {
        let withdraw = |stored: &mut _, now| Partition::withdraw(stored, from, id, now);
        let withdrawn = self.change_one(&from.partition, withdraw).await?;
        self.scrubber.scrub().await;
        Ok(withdrawn)
    }

    async fn remove_one(&self, id: &PartitionId, last: CommitId) -> sqlx::Result<bool> {
        let is_last = |stored: &mut Partition| stored.record.last() == Some(last);
        let remove = |stored: &mut Option<Partition>, _| stored.take_if(is_last).is_some();
        let removed = self.change_one(id, remove).await?;
        self.scrubber.scrub().await;
        Ok(removed)
    }

    async fn digests_after(&self, last: &[u8]) -> sqlx::Result<Vec<Vec<u8>>> {
        let mut reader = self.reader().await?;
        let query = "SELECT id FROM partitions WHERE id > ? ORDER BY id LIMIT ?";
        let query = sqlx::query_scalar(query).bind(last);
        let query = query.bind(PAGE as u32);
        let digests = query.fetch_all(&mut reader.connection).await?;
        reader.keep();
        Ok(digests)
    }
}

impl Movable for SqliteStore {
    async fn export(&self, partition: &PartitionId) -> Result<Option<Portable>, StoreError> {
        self.export_one(partition).await.map_err(store_error)
    }

    async fn adopt(&self, partition: &PartitionId, it: &Portable) -> Result<bool, StoreError> {
        self.adopt_one(partition, it).await.map_err(store_error)
    }

    async fn withdraw(&self, from: &Origin, id: CommitId) -> Result<bool, StoreError> {
        self.withdraw_one(from, id).await.map_err(store_error)
    }

    async fn remove(&self, partition: &PartitionId, last: CommitId) -> Result<bool, StoreError> {
        self.remove_one(partition, last).await.map_err(store_error)
    }
}

/// In the order of their digests; the cursor is the last one, and holds for ever. Rows do not say of which namespace
/// they are: all partitions of the file are listed as of the namespace that is asked for. Move a file that several
/// namespaces share by [use](crate::store::MigratingStore) alone.
impl Listed for SqliteStore {
    async fn list(&self, namespace: &str, cursor: Option<&[u8]>) -> Result<Listing, StoreError> {
        let digests = self.digests_after(cursor.unwrap_or_default()).await;
        let digests = digests.map_err(store_error)?;
        let next = digests.get(PAGE - 1).cloned();
        let digest = |digest: Vec<u8>| <[u8; 32]>::try_from(digest).ok();
        let digests = digests.into_iter().filter_map(digest);
        let id = |digest| PartitionId::from_digest(namespace, digest);
        Ok(Listing {
            partitions: digests.map(id).collect(),
            next,
        })
    }
}
