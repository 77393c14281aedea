//! Changes: seen in memory at once, and queued for L2.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::codec::Value;
use crate::engine::budget::Permit;
use crate::engine::core::Engine;
use crate::engine::error::L2Error;
use crate::engine::load::fetch::Hold;
use crate::engine::partition::change::{PendingChange, Written};
use crate::engine::partition::observed::Observed;
use crate::engine::partition::state::State;
use crate::engine::runtime::bounded::Bounded;
use crate::error::{Error, StoreErrorKind};
use crate::event::{EventKind, SignedOutBy};
use crate::key::{PartitionKey, TokenKey};
use crate::lookup::Durability;
use crate::policy::FailurePolicy;

/// Resolves when the changes that waited at its start, and those that came before they were written, are written
/// or have failed.
pub(crate) type CommitWait = Bounded<oneshot::Receiver<Result<Written, L2Error>>>;

impl Engine {
    /// Changes entries; `None` removes one. On return every handle in this process sees them.
    pub(crate) async fn change(
        self: &Arc<Self>,
        key: &PartitionKey,
        changes: Vec<(TokenKey, Option<Value>)>,
        policy: FailurePolicy,
        observed: &mut Option<Observed>,
    ) -> Result<(), Error> {
        if self.queue.is_closed() {
            return Err(Error::ShutDown);
        }
        let deadline = self.deadline();
        let local = policy == FailurePolicy::Bypass;
        // Without L1 only this keeps what is read below, for the sum of the sizes.
        let is_kept = local || self.rules.l1.max_bytes.is_some();
        let _held = (!is_kept).then(|| Hold::new(self, key));
        if !local {
            self.know_generation(key, policy, observed).await?;
        }
        let (permit, crowded) = match local {
            true => (None, false),
            false => {
                let sizes = changes.iter();
                let sizes = sizes.map(|(name, value)| PendingChange::size(name, value.as_ref()));
                let (permit, crowded) = self.reserve(changes.len(), sizes.sum(), deadline).await?;
                (Some(permit), crowded)
            }
        };
        let now = self.now();
        self.partitions.with(key, |partition, state| {
            let observed = observed.get_or_insert_with(|| state.observe(now));
            if state.signed_out_since(observed) {
                self.counters.signed_out_changes.add(1);
                return Err(Error::SignedOut);
            }
            let values = changes.iter();
            let values =
                values.filter_map(|(name, value)| Some((name, value.as_ref()?.footprint())));
            state.has_room_for(values, now)?;
            state.adopt(observed, now);
            state.change(changes, permit, now);
            if !local {
                // Listed in `late_heads`, until the head queues it.
                self.defer(partition, state);
            }
            Ok(())
        })?;
        if !local {
            self.sweep_deferred();
        }
        if crowded {
            // A failure leaves the change pending, as any other.
            let _ = self.finish(policy, self.commit_until(key, deadline).await)?;
        }
        if self.queue.is_closed() {
            // `close` may have queued what waits before this change was added.
            self.enqueue(key);
        }
        Ok(())
    }

    /// Reserves room for so many changes of so many bytes. Where there is none now, waits for it, and returns
    /// `true`: the changes should be committed before the call returns.
    pub(crate) async fn reserve(
        self: &Arc<Self>,
        changes: usize,
        bytes: usize,
        deadline: Instant,
    ) -> Result<(Permit, bool), Error> {
        if let Some(permit) = self.budget.try_reserve(changes, bytes) {
            return Ok((permit, false));
        }
        // Only writes to L2 give room back. It is not waited for while it is known to be away.
        if self.l2.shards.refuse_writes() {
            return Err(Error::Overloaded);
        }
        // While L2 fails, everything that can be sent is being retried already.
        if self.queue.is_flowing() {
            self.queue_deferred();
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let room = self
            .bounded(left, self.budget.reserve(changes, bytes))
            .await;
        let permit = room.ok().flatten().ok_or(Error::Overloaded)?;
        Ok((permit, true))
    }

    /// Signs a session out, in memory at once. `observed` is then of the time after the sign-out.
    pub(crate) fn sign_out(
        self: &Arc<Self>,
        key: &PartitionKey,
        observed: &mut Option<Observed>,
        by: SignedOutBy,
    ) -> Result<CommitWait, Error> {
        let wait = self.sign_out_if(key, observed, Some(by), |_| true)?;
        wait.ok_or(Error::SignedOut)
    }

    /// The same for what is no session, or goes on elsewhere: nothing is revoked, and the application is not told.
    pub(crate) fn clear_out(
        self: &Arc<Self>,
        key: &PartitionKey,
        observed: &mut Option<Observed>,
    ) -> Result<CommitWait, Error> {
        let wait = self.sign_out_if(key, observed, None, |_| true)?;
        wait.ok_or(Error::SignedOut)
    }

    /// The same if the state allows it; else `None`.
    pub(crate) fn sign_out_if(
        self: &Arc<Self>,
        key: &PartitionKey,
        observed: &mut Option<Observed>,
        by: Option<SignedOutBy>,
        allows: impl FnOnce(&State) -> bool,
    ) -> Result<Option<CommitWait>, Error> {
        if self.queue.is_closed() {
            return Err(Error::ShutDown);
        }
        let (now, id) = (self.now(), self.queue.next_id());
        let ended = self.partitions.with(key, |_, state| {
            if !allows(state) {
                return None;
            }
            // A new session may be of the same grant, which many providers end with any of its tokens.
            if by == Some(SignedOutBy::Session) {
                state.revoke(&self.revocations);
            }
            let links = state.links.clone();
            let dropped = state.sign_out(id, now.moment);
            *observed = Some(state.observe(now));
            Some((dropped, links))
        });
        let Some((dropped, links)) = ended else {
            return Ok(None);
        };
        if let Some(by) = by {
            self.tell(Some(key), EventKind::SignedOut(by));
        }
        // In the background, from the lists of its users' sessions.
        self.unlist(key, &links);
        self.counters.signed_out_changes.add(dropped as u64);
        let wait = self.commit(key);
        Ok(Some(match &self.journal {
            // If L2 does not answer in time, the journal has it on disk before the caller goes on.
            Some(journal) => self.or_journal(journal, key, id, now.wall, wait),
            None => wait,
        }))
    }

    /// Whether a sign-out has ended changes that were waited for, or has ended the partition after `observed`
    /// was taken.
    pub(crate) fn is_over(
        &self,
        key: &PartitionKey,
        observed: &Observed,
        ended: &<CommitWait as Future>::Output,
    ) -> bool {
        let over = |state: &mut State| state.signed_out_since(observed);
        matches!(ended, Ok(Ok(Ok(Written::Ended))))
            || self.partitions.with_known(key, over).unwrap_or(false)
    }

    /// Whether this process knows that the partition, or a user that it is linked to, was signed out after
    /// `observed` was taken.
    pub(crate) fn has_ended(&self, key: &PartitionKey, observed: &Observed) -> bool {
        let over = |state: &mut State| state.signed_out_since(observed) || state.links.are_over();
        self.partitions.with_known(key, over).unwrap_or(false)
    }

    /// Writes the partition's pending changes now. The wait is at most the operation timeout.
    pub(crate) fn commit(self: &Arc<Self>, key: &PartitionKey) -> CommitWait {
        self.commit_until(key, self.deadline())
    }

    fn commit_until(self: &Arc<Self>, key: &PartitionKey, deadline: Instant) -> CommitWait {
        let wait = self.partitions.with(key, |partition, state| {
            let wait = state.pending().wait();
            state.pending().notify_written();
            self.push(partition, state);
            wait
        });
        self.wake();
        let wait = match self.queue.has_ended() {
            // Nothing will be written. The wait ends at once, because its sender is dropped.
            true => oneshot::channel().1,
            false => wait,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        self.bounded(left, wait)
    }

    /// Writes the partition's pending changes now, and returns how that ended.
    pub(crate) async fn flush(self: &Arc<Self>, key: &PartitionKey) -> Result<(), L2Error> {
        match self.commit(key).await {
            Ok(Ok(outcome)) => outcome.map(drop),
            Ok(Err(_)) => Err(L2Error::lost()),
            Err(_) => Err(L2Error::of(StoreErrorKind::Timeout)),
        }
    }

    /// The meaning of a finished [`CommitWait`] under a policy: written, or kept to be written.
    pub(crate) fn finish(
        &self,
        policy: FailurePolicy,
        ended: <CommitWait as Future>::Output,
    ) -> Result<Durability, Error> {
        let failure = match ended {
            Ok(Ok(Ok(_))) => return Ok(Durability::Stored),
            Ok(Ok(Err(failure))) => failure,
            Ok(Err(_)) => L2Error::lost(),
            Err(_) => L2Error::of(StoreErrorKind::Timeout),
        };
        self.degrade(policy, failure).map(|()| Durability::Pending)
    }
}
