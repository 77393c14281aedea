//! Excluding all others while a flight works: by the lock the other flights of this process, by the lease the other instances. How both
//! end.

use std::sync::Arc;

use crate::engine::acquire::lease::OwnLease;
use crate::engine::acquire::redemption::RedemptionLock;
use crate::engine::core::Engine;
use crate::engine::partition::observed::Observed;
use crate::key::{PartitionKey, TokenKey};

/// The lease, against other instances, and the lock, against other flights. Released on drop.
#[derive(Default)]
pub(crate) struct Exclusion {
    pub(crate) lease: Option<OwnLease>,
    pub(crate) lock: Option<RedemptionLock>,
}

impl Exclusion {
    /// Keeps other instances excluded until L2 has the acquired tokens.
    pub(crate) async fn end_when_written(mut self, partition: PartitionKey, name: TokenKey) {
        match self.lease.take() {
            Some(lease) if !lease.engine.has_written(&partition, &name) => {
                self.lock = None;
                lease.keep_until_written(partition, name).await;
            }
            Some(lease) => lease.release().await,
            None => {}
        }
    }

    pub(crate) async fn end(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.release().await;
        }
        self.lock = None;
    }
}

impl Engine {
    /// Acquires the right to redeem this refresh token of the partition, within this process.
    pub(crate) async fn lock_redemption(
        self: &Arc<Self>,
        key: &PartitionKey,
        refresh_token: &TokenKey,
        observed: Observed,
    ) -> RedemptionLock {
        let over = |holder: &Observed| self.find(key).lock().signed_out_since(holder);
        let redemptions = &self.flights.redemptions;
        let lock = redemptions.lock(key, refresh_token, observed, over);
        lock.await
    }

    /// Whether L2 has all known changes of these tokens, or will never get them. Acquired tokens are visible by then, so that
    /// `waits` knows them.
    pub(crate) fn has_written(&self, partition: &PartitionKey, name: &TokenKey) -> bool {
        let waits = self.partitions.with_known(partition, |state| {
            state.waits(name.refresh_token().as_ref()) || state.waits(name.as_ref())
        });
        !waits.unwrap_or(false) || self.queue.is_closed()
    }
}
