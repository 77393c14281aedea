//! How L2's replies to commits and touches change the state.

use std::time::Duration;

use crate::codec::Value;
use crate::engine::partition::change::{CommitAck, CommitBase};
use crate::engine::partition::life::Life;
use crate::engine::partition::rules::Rules;
use crate::engine::partition::state::State;
use crate::key::TokenKey;
use crate::mutation::{self, Mutation};
use crate::store::{CommitId, Remaining};
use crate::time::{Moment, Now};

/// L2's reply to a commit that it has applied.
#[derive(Clone, Copy)]
pub(crate) struct CommitReply {
    pub(crate) version: u64,
    pub(crate) previous: Option<CommitId>,
    pub(crate) life: Option<Life>,
    pub(crate) remaining: Remaining,
}

impl State {
    /// L2 has applied the commit `id`. Returns how many changes it held.
    pub(crate) fn committed(
        &mut self,
        id: CommitId,
        reply: CommitReply,
        now: Now,
        rules: &Rules,
    ) -> usize {
        let in_flight = &mut self.pending().in_flight;
        let Some(commit) = in_flight.take_if(|commit| commit.id == id) else {
            return 0;
        };
        self.follow(id, commit.base, reply, now, rules);
        let hidden = self.pending().is_hidden();
        if hidden {
            for (name, change) in commit.changes.iter() {
                self.apply(name.clone(), change.value.clone(), false);
            }
            self.overlay_pending();
        }
        let written = commit.changes.len();
        drop(commit);
        self.pending().acknowledge(CommitAck::Stored);
        written
    }

    /// Memory has the version of the commit `id`, which was made when it had `base`.
    pub(crate) fn follow(
        &mut self,
        id: CommitId,
        base: CommitBase,
        reply: CommitReply,
        now: Now,
        rules: &Rules,
    ) {
        let version = reply.version;
        // The commit directly follows what memory had when it was sent: no other commit came between. If a
        // load has brought later commits of other instances since, memory has those beneath these changes.
        let follows = version == base.version + 1
            && (reply.previous == base.commit || mutation::is(Mutation::VersionsWithoutHistory));
        self.complete &= follows && version >= self.version;
        if self.complete {
            self.checked_at = now.moment;
            // The feed announces what other instances have changed since that era.
            self.era = self.era.max(base.era);
        }
        if version >= self.version {
            (self.version, self.commit) = (version, Some(id));
        }
        self.life = reply.life;
        self.losses = rules.losses.count();
        self.touched_at = now.moment;
        self.set_remaining(reply.remaining, now, rules);
    }

    /// L2 has refused the commit `id`, because what it was to replace has been replaced. Returns
    /// how many changes are lost with it.
    pub(crate) fn conflicted(&mut self, id: CommitId) -> usize {
        let in_flight = &mut self.pending().in_flight;
        let Some(commit) = in_flight.take_if(|commit| commit.id == id) else {
            return 0;
        };
        let dropped = commit.changes.len();
        drop(commit);
        self.pending().acknowledge(CommitAck::Conflict);
        // What L2 has instead must be read first.
        self.complete = false;
        dropped
    }

    /// L2 has refused the commit `id`, because the partition was signed out elsewhere. Returns how
    /// many changes are lost with it.
    pub(crate) fn refused(&mut self, id: CommitId, generation: u64, now: Now) -> usize {
        let in_flight = &self.pending().in_flight;
        if in_flight.as_ref().is_none_or(|commit| commit.id != id) {
            return 0;
        }
        if mutation::is(Mutation::ReplayAcrossSignOut) {
            self.generation = Some(generation);
            return 0;
        }
        self.forget_entries();
        let dropped = self.drop_changes();
        self.cleared(id, generation, now);
        dropped
    }

    /// L2 has restarted the sliding lifetime, or reports that there is none.
    pub(crate) fn touched(&mut self, remaining: Remaining, now: Now, rules: &Rules) {
        match remaining == Remaining::default() {
            true => self.mark_stale(),
            false => {
                self.touched_at = now.moment;
                self.set_remaining(remaining, now, rules);
            }
        }
    }

    /// Drops changes that have been pending for so long that a sign-out's tombstone may be gone.
    pub(crate) fn drop_older_than(&mut self, limit: Moment) -> usize {
        let pending = self.pending.as_ref();
        if !pending.is_some_and(|pending| pending.has_older_than(limit)) {
            return 0;
        }
        self.complete = false;
        self.pending().drop_older_than(limit)
    }

    pub(crate) fn drop_changes(&mut self) -> usize {
        self.pending
            .as_mut()
            .map_or(0, |pending| pending.drop_changes())
    }

    pub(crate) fn set_remaining(&mut self, remaining: Remaining, now: Now, rules: &Rules) {
        let at = |rest: Option<Duration>| rest.map(|rest| now.moment.saturating_add(rest));
        self.end = at(remaining.idle);
        self.hard_end = at(remaining.hard);
        let fresh = |rest: Duration| rest.mul_f64(rules.l1.expiration_ratio);
        let limited = rules.l1.expiration_ratio < 1.0;
        self.fresh_until = at(remaining.idle.filter(|_| limited).map(fresh));
    }

    /// Mutation: the entries that are kept because the clock says that they are newer.
    pub(crate) fn latest_to_expire(&self, now: Now) -> Vec<(TokenKey, Value)> {
        match mutation::is(Mutation::WallClockOrdering) {
            true => self.usable_entries(now),
            false => Vec::new(),
        }
    }
}
