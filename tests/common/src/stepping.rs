//! Futures that are dropped at a step of one's choice, over a store that has many.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::task::yield_now;
use tower_token_cache::store::{
    Cleared, Commit, CommitId, Feed, Lease, LeaseState, Loaded, Origin, Outcome, PartitionId,
    Raise, Remaining, Revision,
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

async fn stepped<T>(call: impl Future<Output = T>) -> T {
    yield_now().await;
    let answer = call.await;
    yield_now().await;
    answer
}

impl TokenStore for SteppingStore {
    async fn load(&self, group: &[PartitionId]) -> Vec<Result<Loaded, StoreError>> {
        stepped(self.0.load(group)).await
    }

    async fn revisions(&self, group: &[PartitionId]) -> Vec<Result<Revision, StoreError>> {
        stepped(self.0.revisions(group)).await
    }

    async fn commit(&self, group: &[Commit]) -> Vec<Result<Outcome, StoreError>> {
        stepped(self.0.commit(group)).await
    }

    async fn touch(&self, group: &[PartitionId]) -> Vec<Result<Remaining, StoreError>> {
        stepped(self.0.touch(group)).await
    }

    async fn clear(
        &self,
        partition: &PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> Result<Cleared, StoreError> {
        stepped(self.0.clear(partition, expected, id)).await
    }

    async fn raise(
        &self,
        id: &PartitionId,
        raise: Raise,
        keep: Option<Duration>,
    ) -> Result<u64, StoreError> {
        stepped(self.0.raise(id, raise, keep)).await
    }

    fn feed(&self, namespace: &str) -> Option<Feed> {
        self.0.feed(namespace)
    }

    async fn relocate(&self, from: &Origin, commit: &Commit) -> Result<Outcome, StoreError> {
        stepped(self.0.relocate(from, commit)).await
    }

    async fn acquire_lease(&self, lease: &Lease, ttl: Duration) -> Result<LeaseState, StoreError> {
        stepped(self.0.acquire_lease(lease, ttl)).await
    }

    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        stepped(self.0.renew_lease(lease, ttl)).await
    }

    async fn release_lease(&self, lease: &Lease) -> Result<bool, StoreError> {
        stepped(self.0.release_lease(lease)).await
    }
}
