//! Futures that are dropped at a step of one's choice, over a store that has many.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::task::yield_now;
use tower_token_cache::store::{
    Cleared, Commit, CommitId, Feed, Lease, LeaseState, Loaded, Origin, Outcome, PartitionId,
    Raise, Remaining, Revision, StoreFuture,
};
use tower_token_cache::{MemoryStore, StoreError, TokenStore};

/// Polls a future this often, with everything else that can go on in between going on, and drops it.
/// What it has come to, if it was done by then.
pub async fn poll_times<F: Future>(future: F, times: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..times {
        let poll = std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context)));
        if let Poll::Ready(output) = poll.await {
            return Some(output);
        }
        yield_now().await;
    }
    None
}

/// A store in memory of which every operation takes a step before and a step after it is done.
/// Clones share everything.
#[derive(Clone, Default)]
pub struct SteppingStore(MemoryStore);

macro_rules! stepped {
    ($call:expr) => {
        Box::pin(async move {
            yield_now().await;
            let answer = $call.await;
            yield_now().await;
            answer
        })
    };
}

impl TokenStore for SteppingStore {
    fn load<'a>(
        &'a self,
        group: &'a [PartitionId],
    ) -> StoreFuture<'a, Vec<Result<Loaded, StoreError>>> {
        stepped!(self.0.load(group))
    }

    fn revisions<'a>(
        &'a self,
        group: &'a [PartitionId],
    ) -> StoreFuture<'a, Vec<Result<Revision, StoreError>>> {
        stepped!(self.0.revisions(group))
    }

    fn commit<'a>(
        &'a self,
        group: &'a [Commit],
    ) -> StoreFuture<'a, Vec<Result<Outcome, StoreError>>> {
        stepped!(self.0.commit(group))
    }

    fn touch<'a>(
        &'a self,
        group: &'a [PartitionId],
    ) -> StoreFuture<'a, Vec<Result<Remaining, StoreError>>> {
        stepped!(self.0.touch(group))
    }

    fn clear<'a>(
        &'a self,
        partition: &'a PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> StoreFuture<'a, Result<Cleared, StoreError>> {
        stepped!(self.0.clear(partition, expected, id))
    }

    fn raise<'a>(
        &'a self,
        id: &'a PartitionId,
        raise: Raise,
        keep: Option<Duration>,
    ) -> StoreFuture<'a, Result<u64, StoreError>> {
        stepped!(self.0.raise(id, raise, keep))
    }

    fn feed(&self, namespace: &str) -> Option<Feed> {
        self.0.feed(namespace)
    }

    fn relocate<'a>(
        &'a self,
        from: &'a Origin,
        commit: &'a Commit,
    ) -> StoreFuture<'a, Result<Outcome, StoreError>> {
        stepped!(self.0.relocate(from, commit))
    }

    fn acquire_lease<'a>(
        &'a self,
        lease: &'a Lease,
        ttl: Duration,
    ) -> StoreFuture<'a, Result<LeaseState, StoreError>> {
        stepped!(self.0.acquire_lease(lease, ttl))
    }

    fn renew_lease<'a>(
        &'a self,
        lease: &'a Lease,
        ttl: Duration,
    ) -> StoreFuture<'a, Result<bool, StoreError>> {
        stepped!(self.0.renew_lease(lease, ttl))
    }

    fn release_lease<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, Result<bool, StoreError>> {
        stepped!(self.0.release_lease(lease))
    }
}
