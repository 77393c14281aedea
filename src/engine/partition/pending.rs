//! The work in progress of a partition: changes that L2 does not have, a sign-out, and a load.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::codec::Value;
use crate::engine::error::L2Error;
use crate::engine::journal::unacknowledged::{SignOuts, Unacknowledged};
use crate::engine::partition::by_name::ByName;
use crate::engine::partition::change::{
    AcquiredBatch, CommitAck, CommitAckSender, CommitBase, InFlight, PendingChange, Written,
};
use crate::engine::partition::life::Life;
use crate::engine::partition::waiters::Waiters;
use crate::engine::revocations::Revocable;
use crate::engine::sync::once;
use crate::error::StoreErrorKind;
use crate::key::TokenKey;
use crate::mutation::{self, Mutation};
use crate::store::{CommitId, Expected};
use crate::time::Moment;

/// The most changes in one commit, so that it stays far below the timeouts of L2.
const MAX_CHANGES: usize = 256;
/// The most bytes of values in one commit: one token set of the largest size.
const MAX_BYTES: usize = 1 << 20;

#[derive(Default)]
pub(crate) struct Pending {
    pub(crate) sign_out: Option<PendingSignOut>,
    /// The refresh tokens to revoke once L2 has the sign-out; `None` where none are.
    pub(crate) revoke: Option<Vec<Revocable>>,
    /// Counts the sign-out among the unacknowledged ones.
    pub(crate) unacknowledged: Option<Unacknowledged>,
    pub(crate) changes: ByName<PendingChange>,
    /// Acquired tokens; they are sent before `changes`.
    pub(crate) acquired: VecDeque<AcquiredBatch>,
    /// The commit that was sent, and whose reply is awaited or was lost.
    pub(crate) in_flight: Option<InFlight>,
    /// A task is sending this partition's work.
    pub(crate) sending: bool,
    /// It waits in the queue for the task that writes.
    pub(crate) queued: bool,
    /// The ticket by which changes wait for the head of a response.
    pub(crate) deferred: Option<u64>,
    /// Sending has failed: it is queued again after a pause.
    pub(crate) stalled: bool,
    /// The sliding lifetime in L2 is to begin anew.
    pub(crate) touch: bool,
    /// The load in progress; its end wakes all callers that wait for it.
    pub(crate) loading: Option<once::Receiver<Result<(), L2Error>>>,
    /// How much work keeps it in memory: reads of L2, and flights.
    pub(crate) held: u32,
    /// Waiters for what the next commit takes along, and for a sign-out.
    waiters: Waiters,
    /// Waiters for the commit in flight.
    commit_waiters: Waiters,
    /// The acquisition that waits for the commit in flight, which is not visible until then.
    ack: Option<CommitAckSender>,
}

/// A sign-out that L2 has not acknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingSignOut {
    /// Identifies it when it is sent again.
    pub(crate) id: CommitId,
    /// When it began.
    pub(crate) since: Moment,
    /// The generation that it ends, if that is known.
    pub(crate) ends: Option<u64>,
    /// L2 was asked for that generation since it began.
    pub(crate) is_confirmed: bool,
}

impl Pending {
    /// Whether a visible change of `name` is pending.
    pub(crate) fn holds(&self, name: &str) -> bool {
        let in_flight = self.in_flight.as_ref().filter(|_| self.ack.is_none());
        self.changes.get(name).is_some()
            || in_flight.is_some_and(|commit| commit.changes.get(name).is_some())
            || self
                .seen_batches()
                .any(|batch| batch.changes.get(name).is_some())
    }

    /// The visible changes that L2 does not have: those in flight, then the newer ones.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&TokenKey, &PendingChange)> {
        let in_flight = self.in_flight.iter().filter(|_| self.ack.is_none());
        in_flight
            .flat_map(|commit| commit.changes.iter())
            .chain(self.seen_batches().flat_map(|batch| batch.changes.iter()))
            .chain(self.changes.iter())
    }

    fn seen_batches(&self) -> impl Iterator<Item = &AcquiredBatch> {
        self.acquired.iter().filter(|batch| batch.ack.is_none())
    }

    /// Makes those acquired tokens visible although L2 does not have them whose acquisition no longer waits.
    pub(crate) fn reveal(&mut self) {
        for ack in self.acks() {
            ack.take_if(|waiter| waiter.is_closed());
        }
    }

    fn acks(&mut self) -> impl Iterator<Item = &mut Option<CommitAckSender>> {
        let batches = self.acquired.iter_mut().map(|batch| &mut batch.ack);
        batches.chain([&mut self.ack])
    }

    /// Whether the commit in flight is not visible, because an acquisition waits for it.
    pub(crate) fn is_hidden(&self) -> bool {
        self.ack.is_some()
    }

    /// Sends the outcome to the acquisition that waits for the commit in flight.
    pub(crate) fn acknowledge(&mut self, ack: CommitAck) {
        if let Some(waiter) = self.ack.take() {
            let _ = waiter.send(Ok(ack));
        }
    }

    /// When the oldest change was made.
    pub(crate) fn since(&self) -> Option<Moment> {
        self.all().map(|change| change.made).min()
    }

    pub(crate) fn has_older_than(&self, limit: Moment) -> bool {
        self.all().any(|change| change.made < limit)
    }

    /// All changes, including those that are not visible yet.
    fn all(&self) -> impl Iterator<Item = &PendingChange> {
        self.all_named().map(|(_, change)| change)
    }

    /// The same with their names.
    pub(crate) fn all_named(&self) -> impl Iterator<Item = (&TokenKey, &PendingChange)> {
        let in_flight = self
            .in_flight
            .iter()
            .flat_map(|commit| commit.changes.iter());
        let acquired = self.acquired.iter().flat_map(|batch| batch.changes.iter());
        in_flight.chain(acquired).chain(self.changes.iter())
    }

    /// Drops all changes, and returns how many there were.
    pub(crate) fn drop_changes(&mut self) -> usize {
        self.ack = None;
        let in_flight = self.in_flight.take();
        let dropped = in_flight.map_or(0, |commit| commit.changes.len());
        let acquired = std::mem::take(&mut self.acquired);
        let acquired: usize = acquired.iter().map(|batch| batch.changes.len()).sum();
        let dropped = dropped + acquired + std::mem::take(&mut self.changes).len();
        if dropped > 0 {
            self.end_waiters();
        }
        dropped
    }

    /// Drops what a sign-out at `limit` has ended, and returns how many changes there were.
    pub(crate) fn end_older_than(&mut self, limit: Moment) -> usize {
        let dropped = self.drop_older_than(limit);
        if dropped > 0 {
            self.end_waiters();
        }
        dropped
    }

    fn end_waiters(&mut self) {
        self.commit_waiters.end();
        self.waiters.end();
    }

    /// Drops the changes that were made before `limit`, and batches with such a change. Returns how many
    /// there were.
    pub(crate) fn drop_older_than(&mut self, limit: Moment) -> usize {
        let is_old = |(_, change): (&TokenKey, &PendingChange)| change.made < limit;
        let mut dropped = 0;
        if let Some(commit) = self
            .in_flight
            .take_if(|commit| commit.changes.iter().any(is_old))
        {
            self.ack = None;
            dropped += commit.changes.len();
            // The newer part is sent again, in another commit.
            if let Some(changes) = Arc::into_inner(commit.changes) {
                dropped -= self.put_back(changes, limit);
            }
        }
        self.acquired.retain(|batch| {
            let keep = !batch.changes.iter().any(is_old);
            dropped += if keep { 0 } else { batch.changes.len() };
            keep
        });
        let before = self.changes.len();
        self.changes.retain(|change| change.made >= limit);
        dropped + before - self.changes.len()
    }

    /// Requeues a commit that L2 cannot take and has not applied: together with newer changes it may become one
    /// that L2 can take. Tokens that replace what was expected stay as they are.
    pub(crate) fn take_back(&mut self) {
        let is_free = |commit: &mut InFlight| {
            commit.expected.is_none()
                && commit.again.is_empty()
                && Arc::get_mut(&mut commit.changes).is_some()
        };
        let commit = self.in_flight.take_if(is_free);
        if let Some(changes) = commit.and_then(|commit| Arc::into_inner(commit.changes)) {
            self.put_back(changes, Moment::default());
        }
    }

    /// Requeues the changes that were made at `limit` or later, beneath newer ones. Returns how many they
    /// are.
    fn put_back(&mut self, changes: ByName<PendingChange>, limit: Moment) -> usize {
        let mut kept = 0;
        let newer = std::mem::replace(&mut self.changes, changes);
        self.changes.retain(|change| {
            let keeps = change.made >= limit;
            kept += usize::from(keeps);
            keeps
        });
        for (name, change) in newer.into_entries() {
            self.changes.insert(name, change);
        }
        kept
    }

    /// Whether changes or a sign-out are pending.
    pub(crate) fn is_dirty(&self) -> bool {
        self.sign_out.is_some() || self.has_changes()
    }

    pub(crate) fn has_changes(&self) -> bool {
        !self.changes.is_empty() || !self.acquired.is_empty() || self.in_flight.is_some()
    }

    /// Whether something is pending, and nothing is in progress.
    pub(crate) fn only_waits(&self) -> bool {
        self.is_dirty() && self.loading.is_none() && self.held == 0 && !self.sending
    }

    /// Whether something is being sent to L2, or is about to be.
    pub(crate) fn is_writing(&self) -> bool {
        self.in_flight.is_some() || self.sign_out.is_some() || self.sending || self.touch
    }

    /// Whether anything at all is pending or in progress.
    pub(crate) fn is_active(&self) -> bool {
        self.is_dirty()
            || self.loading.is_some()
            || self.held > 0
            || self.sending
            || self.touch
            || !self.waiters.is_empty()
            || !self.commit_waiters.is_empty()
    }

    /// Receives the outcome once L2 has what is pending now, or sending has failed.
    pub(crate) fn wait(&mut self) -> oneshot::Receiver<Result<Written, L2Error>> {
        self.waiters.wait()
    }

    /// Some of that work has ended.
    pub(crate) fn end_hold(&mut self) {
        self.held -= 1;
    }

    /// The next commit to send. One whose reply was lost is sent again as it was, before anything newer.
    pub(crate) fn next_commit(
        &mut self,
        base: CommitBase,
        life: Option<Life>,
        next_id: impl FnOnce() -> CommitId,
    ) -> InFlight {
        let mut commit = self.take_next(base, life, next_id);
        if let Some(in_flight) = &mut self.in_flight {
            commit.sent = std::mem::replace(&mut in_flight.sent, true);
        }
        commit
    }

    fn take_next(
        &mut self,
        base: CommitBase,
        life: Option<Life>,
        next_id: impl FnOnce() -> CommitId,
    ) -> InFlight {
        if let Some(commit) = &mut self.in_flight {
            if mutation::is(Mutation::FreshCommitIds) {
                commit.id = next_id();
            }
            return commit.clone();
        }
        if let Some(batch) = self.acquired.pop_front() {
            self.ack = batch.ack;
            return self.send_off(next_id(), base, life, batch.changes, batch.expected);
        }
        let rest = self.changes.split_off(self.that_fit());
        if rest.is_empty() {
            self.commit_waiters.join(&mut self.waiters);
        }
        let changes = Arc::new(std::mem::replace(&mut self.changes, rest));
        self.send_off(next_id(), base, life, changes, None)
    }

    /// How many changes the next commit takes.
    fn that_fit(&self) -> usize {
        let mut bytes = 0;
        let fits = |(_, change): &(&TokenKey, &PendingChange)| {
            bytes += change.value.as_ref().map_or(0, Value::footprint);
            bytes <= MAX_BYTES
        };
        let changes = self.changes.iter().take(MAX_CHANGES);
        changes.take_while(fits).count().max(1)
    }

    fn send_off(
        &mut self,
        id: CommitId,
        base: CommitBase,
        life: Option<Life>,
        changes: Arc<ByName<PendingChange>>,
        expected: Option<Expected>,
    ) -> InFlight {
        let commit = InFlight {
            id,
            expected,
            changes,
            again: Arc::default(),
            life,
            sent: false,
            base,
        };
        self.in_flight = Some(commit.clone());
        commit
    }

    /// Notifies the waiters whose changes are written.
    pub(crate) fn notify_written(&mut self) {
        if self.in_flight.is_none() {
            self.commit_waiters.notify(None);
        }
        if !self.is_dirty() {
            self.waiters.notify(None);
        }
    }

    /// Sending has failed: notifies all waiters. All acquired batches become visible with that, also those that were not sent yet: L2
    /// will get them later. A commit that L2 cannot take, and never will, is made anew; if the next one takes along all that waits, the
    /// failure concerns only those who wait for this one. Returns whether others wait.
    pub(crate) fn sending_failed(&mut self, failure: &L2Error) -> bool {
        let too_large = failure.error.kind() == StoreErrorKind::TooLarge;
        if too_large || mutation::is(Mutation::LateCommitForgotten) {
            self.take_back();
        }
        fail(&mut self.ack, failure);
        self.commit_waiters.notify(Some(failure));
        if too_large && self.in_flight.is_none() && self.that_fit() >= self.changes.len() {
            return !self.waiters.is_empty()
                || self.acquired.iter().any(|batch| batch.ack.is_some());
        }
        self.acks().for_each(|ack| fail(ack, failure));
        self.waiters.notify(Some(failure));
        false
    }
}

fn fail(ack: &mut Option<CommitAckSender>, failure: &L2Error) {
    if let Some(waiter) = ack.take() {
        let _ = waiter.send(Err(failure.clone()));
    }
}

impl Pending {
    /// Counts the sign-out of this partition while it is pending. Called after every change.
    #[inline]
    pub(crate) fn count_sign_out(&mut self, sign_outs: &SignOuts) {
        match (self.sign_out.is_some(), self.unacknowledged.is_some()) {
            (true, false) => self.unacknowledged = Some(sign_outs.begin()),
            (false, true) => {
                if let Some(unacknowledged) = self.unacknowledged.take() {
                    unacknowledged.acknowledged();
                }
            }
            _ => {}
        }
    }
}
