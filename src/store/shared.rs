//! A store that others hold, too.

use std::sync::Arc;
use std::time::Duration;

use super::{
    Cleared, Commit, CommitId, Feed, Lease, LeaseState, Listed, Listing, Loaded, Movable, Origin,
    Outcome, PartitionId, Portable, Raise, Remaining, Revision, TokenStore,
};
use crate::error::StoreError;

impl<S: TokenStore> TokenStore for Arc<S> {
    fn is_persistent(&self) -> bool {
        (**self).is_persistent()
    }

    async fn load(&self, group: &[PartitionId]) -> Vec<Result<Loaded, StoreError>> {
        (**self).load(group).await
    }

    fn server(&self, partition: &PartitionId) -> usize {
        (**self).server(partition)
    }

    async fn revisions(&self, group: &[PartitionId]) -> Vec<Result<Revision, StoreError>> {
        (**self).revisions(group).await
    }

    async fn commit(&self, group: &[Commit]) -> Vec<Result<Outcome, StoreError>> {
        (**self).commit(group).await
    }

    async fn touch(&self, group: &[PartitionId]) -> Vec<Result<Remaining, StoreError>> {
        (**self).touch(group).await
    }

    async fn clear(
        &self,
        partition: &PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> Result<Cleared, StoreError> {
        (**self).clear(partition, expected, id).await
    }

    async fn raise(
        &self,
        partition: &PartitionId,
        raise: Raise,
        keep: Option<Duration>,
    ) -> Result<u64, StoreError> {
        (**self).raise(partition, raise, keep).await
    }

    fn feed(&self, namespace: &str) -> Option<Feed> {
        (**self).feed(namespace)
    }

    async fn relocate(&self, from: &Origin, commit: &Commit) -> Result<Outcome, StoreError> {
        (**self).relocate(from, commit).await
    }

    fn identity(&self) -> u64 {
        (**self).identity()
    }

    async fn acquire_lease(&self, lease: &Lease, ttl: Duration) -> Result<LeaseState, StoreError> {
        (**self).acquire_lease(lease, ttl).await
    }

    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        (**self).renew_lease(lease, ttl).await
    }

    async fn release_lease(&self, lease: &Lease) -> Result<bool, StoreError> {
        (**self).release_lease(lease).await
    }
}

impl<S: Movable> Movable for Arc<S> {
    async fn export(&self, partition: &PartitionId) -> Result<Option<Portable>, StoreError> {
        (**self).export(partition).await
    }

    async fn adopt(&self, partition: &PartitionId, it: &Portable) -> Result<bool, StoreError> {
        (**self).adopt(partition, it).await
    }

    async fn withdraw(&self, from: &Origin, id: CommitId) -> Result<bool, StoreError> {
        (**self).withdraw(from, id).await
    }

    async fn remove(&self, partition: &PartitionId, last: CommitId) -> Result<bool, StoreError> {
        (**self).remove(partition, last).await
    }
}

impl<S: Listed> Listed for Arc<S> {
    async fn list(&self, namespace: &str, cursor: Option<&[u8]>) -> Result<Listing, StoreError> {
        (**self).list(namespace, cursor).await
    }
}
