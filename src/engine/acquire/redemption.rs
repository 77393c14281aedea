//! Who redeems a refresh token, within this process. Other instances are kept off by the lease.

use std::pin::pin;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

use crate::engine::limits::RECHECK;
use crate::engine::partition::observed::Observed;
use crate::engine::sync::in_use::{InUse, Use};
use crate::key::{PartitionKey, TokenKey};

/// A partition, and the entry of the refresh token that is redeemed.
pub(crate) type Redemption = (PartitionKey, TokenKey);

/// The refresh tokens that flights redeem, or wait to redeem.
#[derive(Default)]
pub(crate) struct Redemptions(InUse<Redemption, Redeeming>);

/// The right to redeem a refresh token. Released on drop.
pub(crate) struct RedemptionLock {
    _guard: OwnedMutexGuard<()>,
    _use: Use<Redemption, Redeeming>,
}

#[derive(Default)]
struct Redeeming {
    lock: Arc<tokio::sync::Mutex<()>>,
    /// What the last holder of the lock observed.
    holder: Mutex<Option<Observed>>,
}

impl Redemptions {
    /// Acquires the right to redeem this refresh token. A holder whose session is `over` does not keep flights
    /// of the next session waiting.
    pub(crate) async fn lock(
        &self,
        partition: &PartitionKey,
        refresh_token: &TokenKey,
        observed: Observed,
        over: impl Fn(&Observed) -> bool,
    ) -> RedemptionLock {
        let redemption = (partition.clone(), refresh_token.clone());
        loop {
            let shared = self.0.enter(&redemption);
            let redeeming = shared.value().clone();
            let mut locked = pin!(redeeming.lock.clone().lock_owned());
            let guard = loop {
                if redeeming.holder.lock().as_ref().is_some_and(&over) {
                    self.0.replace(&shared);
                    break None;
                }
                // Checked again at intervals: the feed may announce a sign-out meanwhile.
                if let Ok(guard) = timeout(RECHECK, &mut locked).await {
                    break Some(guard);
                }
            };
            let Some(guard) = guard.filter(|_| shared.is_current()) else {
                continue;
            };
            *redeeming.holder.lock() = Some(observed);
            return RedemptionLock {
                _guard: guard,
                _use: shared,
            };
        }
    }
}
