//! What L2 made of what this process has sent.

use std::time::Duration;

use crate::codec::Value;
use crate::engine::partition::change::CommitAck;
use crate::engine::partition::life::Life;
use crate::engine::partition::rules::Rules;
use crate::engine::partition::state::{SignOut, State};
use crate::key::TokenKey;
use crate::sabotage::{self, Sabotage};
use crate::store::{CommitId, Remaining};
use crate::time::{Moment, Now, Timestamp};

/// What L2 says of a commit that it has taken.
#[derive(Clone, Copy)]
pub(crate) struct CommitReply {
    pub(crate) version: u64,
    pub(crate) previous: Option<CommitId>,
    pub(crate) life: Option<Life>,
    pub(crate) remaining: Remaining,
}

impl State {
    /// L2 has taken the commit `id`. Returns how many changes it held.
    pub(crate) fn committed(
        &mut self,
        id: CommitId,
        made: CommitReply,
        now: Now,
        rules: &Rules,
    ) -> usize {
        let version = made.version;
        let in_flight = &mut self.pending().in_flight;
        let Some(commit) = in_flight.take_if(|commit| commit.id == id) else {
            return 0;
        };
        // Right after what memory had when it was sent: nobody else has committed in between. Where a
        // load has brought what others committed after it, memory has it under these changes.
        let follows = version == commit.base.version + 1
            && (made.previous == commit.base.commit
                || sabotage::is(Sabotage::VersionsWithoutHistory));
        self.complete &= follows && version >= self.version;
        if self.complete {
            self.checked_at = now.moment;
            // Whatever others have done since then was told.
            self.epoch = self.epoch.max(commit.base.epoch);
        }
        if version >= self.version {
            (self.version, self.commit) = (version, Some(id));
        }
        self.life = made.life;
        self.losses = rules.losses.count();
        self.touched_at = now.moment;
        self.set_remaining(made.remaining, now, rules);
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
        // What L2 has instead has to be read first.
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
        if sabotage::is(Sabotage::ReplayAcrossSignOut) {
            self.generation = Some(generation);
            return 0;
        }
        self.forget_entries();
        let dropped = self.drop_changes();
        self.cleared(generation, now);
        dropped
    }

    /// Empties the partition; until L2 acknowledges it, nothing that L2 holds counts. Returns how
    /// many changes that waited are dropped.
    pub(crate) fn sign_out(&mut self, id: CommitId, since: Timestamp) -> usize {
        let dropped = self.drop_changes();
        self.forget_entries();
        self.sign_out = SignOut::next();
        let generation = self.generation;
        let pending = self.pending();
        pending.clear.get_or_insert(generation);
        pending.clear_confirmed = false;
        pending.clear_since = since;
        // What came after an earlier one, which L2 may have, is not spared as of a repeated one.
        pending.clear_id = id;
        dropped
    }

    /// The sign-out that waits is to end this generation, which L2 has. Returns how many changes
    /// are dropped that were made after it, and before one on another instance; what has begun in
    /// between is refused.
    pub(crate) fn ends(&mut self, latest: Option<u64>, cleared_at: Option<Timestamp>) -> usize {
        let since = self.pending.as_ref().and_then(|pending| pending.since());
        let known = self.pending().clear.replace(latest).flatten();
        let signed_out_at = self.pending().clear_since;
        self.pending().clear_confirmed = true;
        self.cleared_at = cleared_at;
        let ended = latest > known.or(Some(0));
        if ended && self.cleared_since(signed_out_at) {
            self.sign_out = SignOut::next();
        }
        match ended && since.is_some_and(|since| self.cleared_since(since)) {
            true => self.drop_changes(),
            false => 0,
        }
    }

    /// Others have signed the partition out, perhaps after what has begun here since the sign-out that
    /// waits. Returns how many changes are dropped; what is still under way is refused.
    pub(crate) fn end_what_began(&mut self) -> usize {
        self.sign_out = SignOut::next();
        self.drop_changes()
    }

    /// L2 has signed the partition out.
    pub(crate) fn cleared(&mut self, generation: u64, now: Now) {
        self.pending().clear = None;
        self.pending().clear_confirmed = false;
        self.generation = Some(generation);
        self.cleared_at = Some(now.wall);
        self.touched_at = now.moment;
        self.forget_life();
    }

    /// L2 has started the sliding lifetime anew, or says that there is none.
    pub(crate) fn touched(&mut self, remaining: Remaining, now: Now, rules: &Rules) {
        match remaining == Remaining::default() {
            true => self.mark_stale(),
            false => {
                self.touched_at = now.moment;
                self.set_remaining(remaining, now, rules);
            }
        }
    }

    /// Drops changes that waited for so long that a sign-out's tombstone may be gone.
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
        let fresh = |rest: Duration| rest.mul_f64(rules.expiration_ratio);
        let limited = rules.expiration_ratio < 1.0;
        self.fresh_until = at(remaining.idle.filter(|_| limited).map(fresh));
    }

    /// What a broken engine keeps of memory, because its clock says that it is newer.
    pub(crate) fn latest_to_expire(&self, now: Now) -> Vec<(TokenKey, Value)> {
        match sabotage::is(Sabotage::WallClockOrdering) {
            true => self.usable_entries(now),
            false => Vec::new(),
        }
    }
}
