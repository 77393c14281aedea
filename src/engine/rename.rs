//! Moving a partition's tokens to another, as when a session gets a new id at sign-in.
//!
//! A refresh token that is being redeemed does not move: what would arrive is spent, and its successor
//! would be refused with the session that is left. So a move takes the turn of those who redeem.

use std::pin::pin;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use crate::codec::Value;
use crate::engine::acquire::lease::{HeldLease, owner};
use crate::engine::acquire::lease_wait::{LeaseWait, RedemptionGuard};
use crate::engine::core::Engine;
use crate::engine::error::L2Error;
use crate::engine::load::fetch::MAX_READS;
use crate::engine::namespace::Number;
use crate::engine::partition::observed::Observed;
use crate::engine::partition::state::State;
use crate::error::{Error, StoreError, StoreErrorKind};
use crate::key::{PartitionKey, REFRESH_TOKEN, TokenKey};
use crate::policy::FailurePolicy;
use crate::store::{Commit, CommitId, Origin, Outcome, PartitionId};

/// A partition to be moved.
struct Whole {
    under: Option<Number>,
    generation: u64,
    version: u64,
    entries: Vec<(TokenKey, Value)>,
    observed: Observed,
}

impl Whole {
    fn has_refresh_token(&self) -> bool {
        let mut names = self.entries.iter().map(|(name, _)| name.as_ref());
        names.any(|name| name == REFRESH_TOKEN)
    }
}

/// A redemption of what is to be moved takes too long.
fn is_being_redeemed() -> Error {
    Error::Unavailable(StoreError::new(StoreErrorKind::Timeout))
}

impl Engine {
    /// Moves everything from one partition to another, in one step of the store; `from` is signed
    /// out. While L2 cannot be asked it is done in memory, and both halves are replayed.
    ///
    /// A caller that goes away leaves it to end: once L2 has moved the tokens, memory has to know.
    pub(crate) async fn relocate(
        self: &Arc<Self>,
        from: &PartitionKey,
        to: &PartitionKey,
        policy: FailurePolicy,
        observed: &mut Option<Observed>,
    ) -> Result<(), Error> {
        let (from, to, mut seen) = (from.clone(), to.clone(), *observed);
        let moves = |engine: Arc<Self>| async move {
            let moved = engine.relocate_here(&from, &to, policy, &mut seen).await;
            (moved, seen)
        };
        let deadline = self.deadline() + self.l2.hard_timeout;
        match self.detached(deadline, moves).await {
            Ok((moved, seen)) => {
                *observed = seen;
                moved
            }
            Err(failure) => Err(Error::Unavailable(failure.error)),
        }
    }

    async fn relocate_here(
        self: &Arc<Self>,
        from: &PartitionKey,
        to: &PartitionKey,
        policy: FailurePolicy,
        observed: &mut Option<Observed>,
    ) -> Result<(), Error> {
        if self.queue.is_closed() {
            return Err(Error::ShutDown);
        }
        if from == to {
            return Ok(());
        }
        let still_by = self.deadline();
        let mut guard = RedemptionGuard::default();
        // The generation that the lease is for.
        let mut held = None;
        let now = self.now();
        let here = self.partitions.with(from, |_, state| state.observe(now));
        let lock = timeout_at(still_by, self.lock_partition(from, here)).await;
        guard.lock = Some(lock.map_err(|_| is_being_redeemed())?);
        // The same throughout: where the store takes two steps, a repeated one goes on.
        let id = self.queue.next_id();
        for _ in 0..MAX_READS {
            let (source, target) = match self.read_both(from, to).await {
                Ok(both) => both,
                Err(failure) => {
                    self.degrade(policy, failure)?;
                    return self.relocate_in_memory(from, to, policy, observed).await;
                }
            };
            let seen = *observed.get_or_insert(source.observed);
            let ended = |state: &mut State| state.signed_out_since(&seen);
            // Where L1 does not keep the partition, what was read says it.
            if seen.is_before(&source.observed)
                || self.partitions.with(from, |_, state| ended(state))
            {
                return Err(Error::SignedOut);
            }
            let (Some(under), true) = (source.under, source.under == target.under) else {
                continue;
            };
            if source.has_refresh_token() && held != Some(source.generation) {
                held = Some(source.generation);
                guard.lease = match self.hold_still(from, source.generation, still_by).await {
                    Ok(lease) => Some(lease.ok_or_else(is_being_redeemed)?),
                    Err(failure) => {
                        self.degrade(policy, failure)?;
                        return self.relocate_in_memory(from, to, policy, observed).await;
                    }
                };
                // It may have been replaced while this waited.
                continue;
            }
            let origin = Origin {
                partition: self.l2.id(from, under),
                generation: source.generation,
                version: source.version,
            };
            let target_id = self.l2.id(to, under);
            let commit = self.commit_of(id, target_id, target.generation, &source.entries);
            let outcome = match self.l2.relocate(&origin, &commit).await {
                Ok(outcome) => outcome,
                Err(failure) => {
                    for key in [from, to] {
                        // Perhaps L2 has another state: nobody is to use what memory has unasked.
                        self.partitions.with(key, |_, state| state.mark_stale());
                    }
                    return Err(Error::Unavailable(failure.error));
                }
            };
            match outcome {
                Outcome::Committed { .. } => {
                    let now = self.now();
                    let dropped = self.partitions.with_under(from, under, |_, state| {
                        let dropped = state.sign_out(id, now.wall);
                        state.cleared(source.generation + 1, now);
                        dropped
                    });
                    // Everybody was signed out meanwhile.
                    let dropped = dropped.ok_or(Error::SignedOut)?;
                    self.counters.signed_out_changes.add(dropped as u64);
                    // What it had is not what it has; whoever reads it next asks L2 if this fails.
                    self.partitions.with(to, |_, state| state.mark_stale());
                    self.relist(from, to, &source.entries);
                    let _ = self.load(to).await;
                    return Ok(());
                }
                // One of them has changed: read again.
                Outcome::Stale { .. } | Outcome::Conflict | Outcome::Lost => {}
            }
        }
        Err(Error::unavailable())
    }

    /// Keeps other instances from redeeming the refresh token of this partition, once the one that does
    /// so now has ended; `None` where that takes too long.
    async fn hold_still(
        self: &Arc<Self>,
        key: &PartitionKey,
        generation: u64,
        by: Instant,
    ) -> Result<Option<HeldLease>, L2Error> {
        let owner = owner(u64::from_be_bytes(self.queue.next_id().0));
        let partition = self.id(key).await?;
        let mut held = HeldLease::new(self, partition, REFRESH_TOKEN, generation, owner);
        let mut turn = LeaseWait::new(self);
        let changes = self.coherence.changes(key);
        loop {
            // From before the question, so that no announcement falls in between.
            let mut changed = pin!(changes.value().notified());
            changed.as_mut().enable();
            let Some(remaining) = held.take().await? else {
                return Ok(Some(held));
            };
            if Instant::now() >= by {
                return Ok(None);
            }
            turn.is_held(remaining, changed).await;
        }
    }

    async fn read_both(
        self: &Arc<Self>,
        from: &PartitionKey,
        to: &PartitionKey,
    ) -> Result<(Whole, Whole), L2Error> {
        Ok((self.read_whole(from).await?, self.read_whole(to).await?))
    }

    /// The partition as it is in L2, after what waits has been written.
    async fn read_whole(self: &Arc<Self>, key: &PartitionKey) -> Result<Whole, L2Error> {
        self.flush(key).await?;
        let (whole, _) = self
            .fetch(key, |state, now| Whole {
                under: state.prefix,
                generation: state.generation.unwrap_or(0),
                // One that has ended is as good as absent.
                version: if state.ended(now) { 0 } else { state.version },
                entries: state.usable_entries(now),
                observed: state.observe(now),
            })
            .await?;
        Ok(whole)
    }

    fn commit_of(
        &self,
        id: CommitId,
        partition: PartitionId,
        generation: u64,
        entries: &[(TokenKey, Value)],
    ) -> Commit {
        let writer = self.l2.protection.writer(&partition, generation);
        let changes = entries.iter();
        let changes = changes.map(|(name, value)| writer.change(name.as_ref(), Some(value)));
        let changes = changes.collect();
        Commit {
            partition,
            id,
            generation,
            expected: None,
            life: None,
            repeats: None,
            base: 0,
            changes,
            lifetime: self.lifetime,
        }
    }

    async fn relocate_in_memory(
        self: &Arc<Self>,
        from: &PartitionKey,
        to: &PartitionKey,
        policy: FailurePolicy,
        observed: &mut Option<Observed>,
    ) -> Result<(), Error> {
        let now = self.now();
        let entries = self
            .partitions
            .with(from, |_, state| state.usable_entries(now));
        let changes = entries
            .into_iter()
            .map(|(name, value)| (name, Some(value)))
            .collect();
        self.change(to, changes, policy, &mut None).await?;
        self.enqueue(to);
        // It is on its way; nobody waits for a store that is away.
        drop(self.sign_out(from, observed)?);
        Ok(())
    }
}
