//! Excluding other flights and instances while a flight works, and the lease wait while another instance
//! does.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::futures::Notified;
use tokio::time::{Instant, timeout};

use crate::engine::acquire::lease::{LAST_POLL, OwnLease};
use crate::engine::acquire::redemption::RedemptionLock;
use crate::engine::core::Engine;
use crate::engine::partition::observed::Observed;
use crate::key::{PartitionKey, TokenKey};
use crate::random::{SLIGHTLY, jittered};

/// The first pause between two reads of L2 while another instance holds the lease; it grows.
const FIRST_POLL: Duration = Duration::from_millis(20);

/// The lease, against other instances, and the lock, against other flights. Released on drop.
#[derive(Default)]
pub(crate) struct RedemptionGuard {
    pub(crate) lease: Option<OwnLease>,
    pub(crate) lock: Option<RedemptionLock>,
}

impl RedemptionGuard {
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

    /// Whether L2 has all known changes of these tokens, or will never get them.
    pub(crate) fn has_written(&self, partition: &PartitionKey, name: &TokenKey) -> bool {
        let waits = self.partitions.with_known(partition, |state| {
            state.waits(name.refresh_token().as_ref()) || state.waits(name.as_ref())
        });
        !waits.unwrap_or(false) || self.queue.is_closed()
    }
}

/// How long a flight waits for the lease.
pub(crate) struct LeaseWait {
    pause: Duration,
    over: Instant,
}

impl LeaseWait {
    pub(crate) fn new(engine: &Engine) -> Self {
        let now = Instant::now();
        Self {
            pause: FIRST_POLL,
            over: now + engine.acquisitions.timeout + engine.acquisitions.lease_ttl,
        }
    }

    /// Pauses for the poll interval, or until the feed announces a change.
    pub(crate) async fn pause(&mut self, changed: Pin<&mut Notified<'_>>) {
        let _ = timeout(jittered(self.pause, SLIGHTLY), changed).await;
        self.pause = (self.pause * 3 / 2).min(LAST_POLL);
    }

    /// Pauses because another owner has the lease for `remaining`.
    pub(crate) async fn pause_while_held(
        &mut self,
        remaining: Duration,
        changed: Pin<&mut Notified<'_>>,
    ) {
        self.pause = self.pause.min(remaining.max(FIRST_POLL));
        self.pause(changed).await;
    }

    pub(crate) fn is_over(&self) -> bool {
        Instant::now() > self.over
    }
}
