//! `FaultyStore`: a `MemoryStore` that can be switched off.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tower_token_cache::store::{Commit, Loaded, Outcome, PartitionId, Remaining, StoreFuture};
use tower_token_cache::{MemoryStore, StoreError, StoreErrorKind, TokenStore};

/// Clones share contents and switch.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultyStore {
    inner: MemoryStore,
    down: Arc<AtomicBool>,
}

impl FaultyStore {
    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    fn check(&self) -> Result<(), StoreError> {
        match self.down.load(Ordering::SeqCst) {
            true => Err(StoreError::new(StoreErrorKind::Unreachable)),
            false => Ok(()),
        }
    }
}

impl TokenStore for FaultyStore {
    fn load<'a>(&'a self, id: &'a PartitionId) -> StoreFuture<'a, Result<Loaded, StoreError>> {
        Box::pin(async {
            self.check()?;
            self.inner.load(id).await
        })
    }

    fn commit<'a>(
        &'a self,
        group: &'a [Commit],
    ) -> StoreFuture<'a, Vec<Result<Outcome, StoreError>>> {
        Box::pin(async {
            match self.check() {
                Ok(()) => self.inner.commit(group).await,
                Err(error) => group.iter().map(|_| Err(error.clone())).collect(),
            }
        })
    }

    fn touch<'a>(
        &'a self,
        group: &'a [PartitionId],
    ) -> StoreFuture<'a, Vec<Result<Remaining, StoreError>>> {
        Box::pin(async {
            match self.check() {
                Ok(()) => self.inner.touch(group).await,
                Err(error) => group.iter().map(|_| Err(error.clone())).collect(),
            }
        })
    }

    fn clear<'a>(
        &'a self,
        id: &'a PartitionId,
        expected: Option<u64>,
    ) -> StoreFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            self.check()?;
            self.inner.clear(id, expected).await
        })
    }
}
