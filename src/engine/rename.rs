//! Moving a partition's tokens to another, as when a session gets a new id at sign-in.
//!
//! A refresh token does not move while it is being redeemed: the moved one would be spent, and its successor
//! would be refused with the old session. So a move takes the same locks and leases as redemptions.

use std::collections::HashSet;
use std::sync::Arc;

use crate::codec::Value;
use crate::engine::acquire::held_still::{HeldStill, IsBeingRedeemed};
use crate::engine::core::Engine;
use crate::engine::error::L2Error;
use crate::engine::load::fetch::MAX_READS;
use crate::engine::namespace::Number;
use crate::engine::partition::entries::{check_size, size_of_entry};
use crate::engine::partition::observed::Observed;
use crate::engine::partition::state::State;
use crate::error::{Error, StoreError, StoreErrorKind};
use crate::key::{PartitionKey, TokenKey};
use crate::policy::FailurePolicy;
use crate::store::{Commit, CommitId, Origin, Outcome, PartitionId};

/// A partition as it was read from L2.
struct Whole {
    under: Option<Number>,
    generation: u64,
    version: u64,
    entries: Vec<(TokenKey, Value)>,
    observed: Observed,
}

impl Whole {
    fn refresh_tokens(&self) -> Vec<TokenKey> {
        refresh_tokens(&self.entries)
    }

    /// An error if these and the entries of `target` are too much for one partition.
    fn fits_into(&self, target: &Self) -> Result<(), Error> {
        let names: HashSet<_> = self.entries.iter().map(|(name, _)| name).collect();
        let left = target.entries.iter();
        let left = left.filter(|(name, _)| !names.contains(name));
        let all = self.entries.iter().chain(left);
        let size = all.map(|(name, value)| size_of_entry(name, value)).sum();
        check_size(if self.entries.is_empty() { 0 } else { size })
    }
}

/// The entries of the refresh tokens among these, of all clients. Sorted: two moves wait in one order.
fn refresh_tokens(entries: &[(TokenKey, Value)]) -> Vec<TokenKey> {
    let names = entries.iter().map(|(name, _)| name);
    let mut names = Vec::from_iter(names.filter(|name| name.is_refresh_token()).cloned());
    names.sort_unstable();
    names
}

impl From<IsBeingRedeemed> for Error {
    fn from(IsBeingRedeemed: IsBeingRedeemed) -> Self {
        Self::Unavailable(StoreError::new(StoreErrorKind::Timeout))
    }
}

impl Engine {
    /// Moves all entries from one partition to another, in one step of the store, and signs `from` out. While
    /// L2 cannot be asked, the move is made in memory, and both halves are sent to L2 later.
    ///
    /// It goes on if the caller stops waiting: once L2 has moved the tokens, memory has to follow.
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
        let deadline = self.deadline() + self.l2.timeouts.operation;
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
        let mut held = HeldStill::new(self, from, self.deadline());
        // One id for all attempts: where the store takes two steps, a repeated attempt goes on with the
        // first.
        let id = self.queue.next_id();
        for _ in 0..MAX_READS {
            let (source, target) = match self.read_both(from, to).await {
                Ok(both) => both,
                Err(failure) => {
                    self.degrade(policy, failure)?;
                    return self
                        .relocate_in_memory(from, to, policy, observed, held)
                        .await;
                }
            };
            let seen = *observed.get_or_insert(source.observed);
            let ended = |state: &mut State| state.signed_out_since(&seen);
            // Where L1 does not keep the partition, only what was read from L2 shows the sign-out.
            if seen.is_before(&source.observed)
                || self.partitions.with(from, |_, state| ended(state))
            {
                return Err(Error::SignedOut);
            }
            source.fits_into(&target)?;
            let (Some(under), true) = (source.under, source.under == target.under) else {
                continue;
            };
            let locked = held.lock(&source.refresh_tokens(), source.observed).await?;
            let leased = match held.lease(source.generation).await {
                Ok(leased) => leased?,
                Err(failure) => {
                    self.degrade(policy, failure)?;
                    return self
                        .relocate_in_memory(from, to, policy, observed, held)
                        .await;
                }
            };
            if !(locked && leased) {
                // A refresh token may have been replaced during the wait.
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
                        // L2 may have moved the tokens: memory must not be used before it is compared.
                        self.partitions.with(key, |_, state| state.mark_stale());
                    }
                    return Err(Error::Unavailable(failure.error));
                }
            };
            match outcome {
                Outcome::Committed { .. } => {
                    let now = self.now();
                    let dropped = self.partitions.with_under(from, under, |_, state| {
                        let dropped = state.sign_out(id, now.moment);
                        state.cleared(id, source.generation + 1, now);
                        dropped
                    });
                    // The namespace's number was raised meanwhile.
                    let dropped = dropped.ok_or(Error::SignedOut)?;
                    self.counters.signed_out_changes.add(dropped as u64);
                    // Memory has the state from before the move. If the load below fails, the next read asks
                    // L2.
                    self.partitions.with(to, |_, state| state.mark_stale());
                    self.relist(from, to, &source.entries);
                    let _ = self.load(to).await;
                    return Ok(());
                }
                // One of the partitions has changed: read both again.
                Outcome::Stale { .. } | Outcome::Conflict | Outcome::Lost => {}
            }
        }
        Err(Error::unavailable())
    }

    async fn read_both(
        self: &Arc<Self>,
        from: &PartitionKey,
        to: &PartitionKey,
    ) -> Result<(Whole, Whole), L2Error> {
        Ok((self.read_whole(from).await?, self.read_whole(to).await?))
    }

    /// Reads the partition from L2, after its pending changes are written.
    async fn read_whole(self: &Arc<Self>, key: &PartitionKey) -> Result<Whole, L2Error> {
        self.flush(key).await?;
        let (whole, _) = self
            .fetch(key, |state, now| Whole {
                under: state.number,
                generation: state.generation.unwrap_or(0),
                // A partition that has ended is as good as absent.
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
        let writer = self.l2.codec.writer(&partition, generation);
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
            lifetime: self.rules.lifetimes.partition,
        }
    }

    async fn relocate_in_memory(
        self: &Arc<Self>,
        from: &PartitionKey,
        to: &PartitionKey,
        policy: FailurePolicy,
        observed: &mut Option<Observed>,
        mut held: HeldStill,
    ) -> Result<(), Error> {
        let entries = loop {
            let now = self.now();
            let (entries, here) = self.partitions.with(from, |_, state| {
                (state.usable_entries(now), state.observe(now))
            });
            if held.lock(&refresh_tokens(&entries), here).await? {
                break entries;
            }
        };
        // Another instance may take a session value meanwhile, so that none may be written under another key.
        let changes = entries
            .into_iter()
            .filter(|(name, _)| !name.is_session_value())
            .map(|(name, value)| (name, Some(value)))
            .collect();
        self.change(to, changes, policy, &mut None).await?;
        self.enqueue(to);
        // The sign-out is queued. L2 is known not to answer, so it is not waited for.
        drop(self.clear_out(from, observed)?);
        Ok(())
    }
}
