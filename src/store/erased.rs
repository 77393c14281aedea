//! `DynStore`: any store, as the engine holds it.

use std::pin::Pin;
use std::time::Duration;

use super::{
    Cleared, Commit, CommitId, Feed, Lease, LeaseState, Loaded, Origin, Outcome, PartitionId,
    Raise, Remaining, Revision, TokenStore,
};
use crate::error::StoreError;

/// The one box of each call to a store.
type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// [`TokenStore`] with boxed futures, which is what makes it object-safe.
pub(crate) trait DynStore: Send + Sync {
    fn is_persistent(&self) -> bool;
    fn load<'a>(&'a self, group: &'a [PartitionId]) -> Boxed<'a, Vec<Result<Loaded, StoreError>>>;
    fn server(&self, partition: &PartitionId) -> usize;
    fn revisions<'a>(
        &'a self,
        group: &'a [PartitionId],
    ) -> Boxed<'a, Vec<Result<Revision, StoreError>>>;
    fn commit<'a>(&'a self, group: &'a [Commit]) -> Boxed<'a, Vec<Result<Outcome, StoreError>>>;
    fn touch<'a>(
        &'a self,
        group: &'a [PartitionId],
    ) -> Boxed<'a, Vec<Result<Remaining, StoreError>>>;
    fn clear<'a>(
        &'a self,
        partition: &'a PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> Boxed<'a, Result<Cleared, StoreError>>;
    fn raise<'a>(
        &'a self,
        partition: &'a PartitionId,
        raise: Raise,
        keep: Option<Duration>,
    ) -> Boxed<'a, Result<u64, StoreError>>;
    fn feed(&self, namespace: &str) -> Option<Feed>;
    fn relocate<'a>(
        &'a self,
        from: &'a Origin,
        commit: &'a Commit,
    ) -> Boxed<'a, Result<Outcome, StoreError>>;
    fn identity(&self) -> u64;
    fn acquire_lease<'a>(
        &'a self,
        lease: &'a Lease,
        ttl: Duration,
    ) -> Boxed<'a, Result<LeaseState, StoreError>>;
    fn renew_lease<'a>(
        &'a self,
        lease: &'a Lease,
        ttl: Duration,
    ) -> Boxed<'a, Result<bool, StoreError>>;
    fn release_lease<'a>(&'a self, lease: &'a Lease) -> Boxed<'a, Result<bool, StoreError>>;
}

impl<S: TokenStore> DynStore for S {
    fn is_persistent(&self) -> bool {
        TokenStore::is_persistent(self)
    }

    fn load<'a>(&'a self, group: &'a [PartitionId]) -> Boxed<'a, Vec<Result<Loaded, StoreError>>> {
        Box::pin(TokenStore::load(self, group))
    }

    fn server(&self, partition: &PartitionId) -> usize {
        TokenStore::server(self, partition)
    }

    fn revisions<'a>(
        &'a self,
        group: &'a [PartitionId],
    ) -> Boxed<'a, Vec<Result<Revision, StoreError>>> {
        Box::pin(TokenStore::revisions(self, group))
    }

    fn commit<'a>(&'a self, group: &'a [Commit]) -> Boxed<'a, Vec<Result<Outcome, StoreError>>> {
        Box::pin(TokenStore::commit(self, group))
    }

    fn touch<'a>(
        &'a self,
        group: &'a [PartitionId],
    ) -> Boxed<'a, Vec<Result<Remaining, StoreError>>> {
        Box::pin(TokenStore::touch(self, group))
    }

    fn clear<'a>(
        &'a self,
        partition: &'a PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> Boxed<'a, Result<Cleared, StoreError>> {
        Box::pin(TokenStore::clear(self, partition, expected, id))
    }

    fn raise<'a>(
        &'a self,
        partition: &'a PartitionId,
        raise: Raise,
        keep: Option<Duration>,
    ) -> Boxed<'a, Result<u64, StoreError>> {
        Box::pin(TokenStore::raise(self, partition, raise, keep))
    }

    fn feed(&self, namespace: &str) -> Option<Feed> {
        TokenStore::feed(self, namespace)
    }

    fn relocate<'a>(
        &'a self,
        from: &'a Origin,
        commit: &'a Commit,
    ) -> Boxed<'a, Result<Outcome, StoreError>> {
        Box::pin(TokenStore::relocate(self, from, commit))
    }

    fn identity(&self) -> u64 {
        TokenStore::identity(self)
    }

    fn acquire_lease<'a>(
        &'a self,
        lease: &'a Lease,
        ttl: Duration,
    ) -> Boxed<'a, Result<LeaseState, StoreError>> {
        Box::pin(TokenStore::acquire_lease(self, lease, ttl))
    }

    fn renew_lease<'a>(
        &'a self,
        lease: &'a Lease,
        ttl: Duration,
    ) -> Boxed<'a, Result<bool, StoreError>> {
        Box::pin(TokenStore::renew_lease(self, lease, ttl))
    }

    fn release_lease<'a>(&'a self, lease: &'a Lease) -> Boxed<'a, Result<bool, StoreError>> {
        Box::pin(TokenStore::release_lease(self, lease))
    }
}
