//! Keeping the refresh tokens of a partition from being redeemed while the partition moves.

use std::pin::pin;
use std::sync::Arc;

use futures_util::future::try_join_all;
use tokio::time::{Instant, timeout_at};

use crate::engine::acquire::exclusion::Exclusion;
use crate::engine::acquire::lease::{OwnLease, owner};
use crate::engine::acquire::lease_wait::LeaseWait;
use crate::engine::core::Engine;
use crate::engine::error::L2Error;
use crate::engine::partition::observed::Observed;
use crate::key::{PartitionKey, TokenKey};
use crate::store::LeaseState;

/// The refresh tokens of a partition that no flight redeems, on any instance, until this is dropped.
pub(crate) struct HeldStill {
    engine: Arc<Engine>,
    partition: PartitionKey,
    /// Until then flights that redeem one are waited for.
    by: Instant,
    tokens: Vec<HeldToken>,
}

struct HeldToken {
    entry: TokenKey,
    guard: Exclusion,
    /// The generation of the lease, if it is held.
    generation: Option<u64>,
}

/// A refresh token is being redeemed, and that takes too long.
pub(crate) struct IsBeingRedeemed;

impl HeldStill {
    pub(crate) fn new(engine: &Arc<Engine>, partition: &PartitionKey, by: Instant) -> Self {
        Self {
            engine: engine.clone(),
            partition: partition.clone(),
            by,
            tokens: Vec::new(),
        }
    }

    fn find(&self, entry: &TokenKey) -> Option<&HeldToken> {
        self.tokens.iter().find(|token| token.entry == *entry)
    }

    /// Takes the locks of these refresh tokens, against flights of this process. Returns whether all were held
    /// before.
    pub(crate) async fn lock(
        &mut self,
        entries: &[TokenKey],
        observed: Observed,
    ) -> Result<bool, IsBeingRedeemed> {
        let mut held = true;
        for entry in entries {
            if self.find(entry).is_some() {
                continue;
            }
            held = false;
            let (engine, partition) = (&self.engine, &self.partition);
            let lock = engine.lock_redemption(partition, entry, observed);
            let lock = timeout_at(self.by, lock).await;
            self.tokens.push(HeldToken {
                entry: entry.clone(),
                guard: Exclusion {
                    lease: None,
                    lock: Some(lock.map_err(|_| IsBeingRedeemed)?),
                },
                generation: None,
            });
        }
        Ok(held)
    }

    /// Takes the leases of the locked refresh tokens too, against other instances. Returns whether all were
    /// held before.
    pub(crate) async fn lease(
        &mut self,
        generation: u64,
    ) -> Result<Result<bool, IsBeingRedeemed>, L2Error> {
        let (engine, key, by) = (&self.engine, &self.partition, self.by);
        let partition = engine.id(key).await?;
        let missing = self.tokens.iter_mut();
        let missing = missing.filter(|token| token.generation != Some(generation));
        let taken = missing.map(async |token| {
            token.guard.lease = None;
            let owner = owner(u64::from_be_bytes(engine.queue.next_id().0));
            let partition = partition.clone();
            let lease = OwnLease::new(engine, partition, &token.entry, generation, owner);
            token.guard.lease = taken(lease, engine, key, by).await?;
            let is_held = token.guard.lease.is_some();
            token.generation = is_held.then_some(generation);
            Ok::<_, L2Error>(is_held)
        });
        let taken = try_join_all(taken).await?;
        Ok(match taken.contains(&false) {
            true => Err(IsBeingRedeemed),
            false => Ok(taken.is_empty()),
        })
    }
}

/// The lease, once it is granted; `None` where that takes too long.
async fn taken(
    mut lease: OwnLease,
    engine: &Engine,
    partition: &PartitionKey,
    by: Instant,
) -> Result<Option<OwnLease>, L2Error> {
    let mut lease_wait = LeaseWait::new(engine);
    let changes = engine.coherence.changes(partition);
    loop {
        // Registered before the question, so that no notification falls in between.
        let mut changed = pin!(changes.value().notified());
        changed.as_mut().enable();
        let LeaseState::Held { remaining } = lease.request().await? else {
            return Ok(Some(lease));
        };
        if Instant::now() >= by {
            return Ok(None);
        }
        lease_wait.pause_while_held(remaining, changed).await;
    }
}
