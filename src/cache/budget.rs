//! The bound on changes that wait for L2.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room for a number of changes and for their bytes, whichever is used up first.
pub(super) struct Budget {
    changes: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    max_changes: u32,
    max_bytes: u32,
}

/// One change's room, given back on drop.
#[derive(Debug)]
pub(super) struct Permit {
    _change: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

impl Budget {
    pub(super) fn new(max_changes: u32, max_bytes: u32) -> Self {
        Self {
            changes: Arc::new(Semaphore::new(max_changes as usize)),
            bytes: Arc::new(Semaphore::new(max_bytes as usize)),
            max_changes,
            max_bytes,
        }
    }

    /// Room for a change of this size, if there is any now.
    pub(super) fn try_reserve(&self, bytes: usize) -> Option<Permit> {
        let bytes = self.clamp(bytes);
        Some(Permit {
            _change: self.changes.clone().try_acquire_owned().ok()?,
            _bytes: self.bytes.clone().try_acquire_many_owned(bytes).ok()?,
        })
    }

    /// Room for a change of this size, as soon as there is any.
    pub(super) async fn reserve(&self, bytes: usize) -> Option<Permit> {
        let bytes = self.clamp(bytes);
        Some(Permit {
            _change: self.changes.clone().acquire_owned().await.ok()?,
            _bytes: self.bytes.clone().acquire_many_owned(bytes).await.ok()?,
        })
    }

    /// How many changes hold room now.
    pub(super) fn pending(&self) -> u64 {
        u64::from(self.max_changes) - self.changes.available_permits() as u64
    }

    /// Waits until all room is free.
    pub(super) async fn drained(&self) {
        // Fails only when closed, which it never is.
        let _ = self.changes.acquire_many(self.max_changes).await;
    }

    fn clamp(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.max_bytes)
    }
}
