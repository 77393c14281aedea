//! What L2 says, and whether it may enter memory.

use std::time::Duration;

use crate::codec::Value;
use crate::engine::limits::CLOCK_SKEW;
use crate::engine::namespace::Number;
use crate::engine::partition::entry::Unopened;
use crate::engine::partition::life::Life;
use crate::engine::partition::pending::Landing;
use crate::engine::partition::rules::Rules;
use crate::engine::partition::state::{SignOut, State};
use crate::engine::vouch::STALE;
use crate::key::TokenKey;
use crate::sabotage::{self, Sabotage};
use crate::store::{CommitId, Remaining, Revision};
use crate::time::{Moment, Now, Timestamp};

/// A partition as read from L2, decoded.
pub(crate) struct Fetched {
    pub(crate) generation: u64,
    pub(crate) version: u64,
    pub(crate) commit: Option<CommitId>,
    pub(crate) life: Option<Life>,
    pub(crate) cleared_for: Option<Duration>,
    pub(crate) remaining: Remaining,
    pub(crate) entries: Vec<(TokenKey, Value)>,
    pub(crate) unopenable: Unopened,
    /// When the read began, and the epoch of the feed then.
    pub(crate) asked_at: Moment,
    pub(crate) epoch: u32,
    /// Where L2 no longer has the life that memory knows: what it has lost; `None` when it was not asked.
    pub(crate) loss: Option<Loss>,
}

/// What L2 has lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// This partition.
    Alone,
    /// Everything; whether what memory has of this partition goes on.
    Everything { goes_on: bool },
}

/// What was known of a partition when a read of L2 began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Floor {
    pub(crate) prefix: Option<Number>,
    sign_out: SignOut,
    doubts: u32,
    // With the commit: the next life of a partition counts its versions from 1 again.
    revision: Revision,
}

/// What L2 says of a commit that it has taken.
#[derive(Clone, Copy)]
pub(crate) struct Made {
    pub(crate) version: u64,
    pub(crate) previous: Option<CommitId>,
    pub(crate) life: Option<Life>,
    pub(crate) remaining: Remaining,
}

/// What became of a partition that was read from L2.
#[derive(Debug, PartialEq)]
pub(crate) enum Admission {
    /// It is in memory.
    Admitted {
        /// Pending changes that were dropped, because they were made before a sign-out.
        dropped: usize,
        /// What memory had and L2 has lost.
        lost: Vec<(TokenKey, Value)>,
    },
    /// A commit or sign-out has overtaken the read: read again.
    Overtaken,
}

impl State {
    pub(crate) fn floor(&self) -> Floor {
        Floor {
            prefix: self.prefix,
            sign_out: self.sign_out,
            doubts: self.doubts,
            revision: self.revision(),
        }
    }

    /// Takes a partition that was read from L2 into memory, unless something has overtaken it.
    pub(crate) fn admit(
        &mut self,
        fetched: Fetched,
        floor: Floor,
        now: Now,
        rules: &Rules,
    ) -> Admission {
        if self.is_clearing() && self.prefix == floor.prefix {
            return Admission::Admitted {
                dropped: 0,
                lost: Vec::new(),
            };
        }
        if self.has_outlived_generation(now) {
            self.generation = None;
            self.forget_life();
        }
        let known = self.floor();
        let revision = Revision {
            generation: fetched.generation,
            version: fetched.version,
            commit: fetched.commit,
        };
        let older = revision.count() < known.revision.count();
        let gone = self.has_lost_life(fetched.generation, fetched.life, now);
        // Not as it was known before the read began: the store has lost data, and what it has now is
        // the truth. Not as it became known meanwhile: the read was overtaken.
        let contradicts = older || gone;
        let overtaken = known.prefix != floor.prefix
            || known.sign_out != floor.sign_out
            || (contradicts && known != floor);
        if overtaken && !sabotage::is(Sabotage::BackFillUnchecked) {
            return Admission::Overtaken;
        }
        if gone && fetched.loss.is_none() {
            return Admission::Overtaken;
        }
        let outlives = match fetched.loss {
            Some(Loss::Everything { goes_on }) => self.outlives_a_loss(goes_on),
            _ => false,
        };
        let ended = gone && !outlives;
        let lost = match ended {
            true => Vec::new(),
            false => self.lost_in(&fetched, !contradicts, now, rules),
        };
        let given_up = match ended {
            // Signed out elsewhere and its tombstone lost, evicted, or removed by hand.
            true => self.end_what_began(),
            false => 0,
        };
        self.cleared_at = fetched
            .cleared_for
            .map(|time| now.wall.saturating_sub(time));
        let since = self.pending.as_ref().and_then(|pending| pending.since());
        let signed_out = match self.generation {
            Some(known) => fetched.generation > known,
            None => since.is_some_and(|since| self.cleared_since(since)),
        };
        let replayed = sabotage::is(Sabotage::ReplayAcrossSignOut);
        let dropped = match signed_out && !replayed {
            true => self.drop_changes(),
            false => 0,
        };
        let dropped = dropped + given_up;
        let newest = self.latest_to_expire(now);
        self.generation = Some(fetched.generation.max(known.revision.generation));
        self.version = fetched.version;
        self.commit = fetched.commit;
        self.life = fetched.life;
        self.losses = rules.losses.count();
        self.complete = true;
        self.checked_at = fetched.asked_at;
        self.epoch = fetched.epoch;
        self.dispelled = floor.doubts;
        self.unopenable = fetched.unopenable;
        self.set_remaining(fetched.remaining, now, rules);
        self.forget_loaded_entries();
        if fetched.generation >= known.revision.generation {
            for (name, value) in fetched.entries {
                self.lay(name, Some(value), false);
            }
        }
        for (name, value) in newest {
            let found = self.entries.get(name.as_ref());
            if found.is_some_and(|found| found.value.expires_at() < value.expires_at()) {
                self.lay(name, Some(value), false);
            }
        }
        self.lay_pending();
        Admission::Admitted { dropped, lost }
    }

    /// Whether memory is as good as L2 if L2 has the same revision.
    pub(crate) fn is_comparable(&self, now: Now) -> bool {
        self.complete && self.fresh(now) && !self.ended(now)
    }

    /// L2 has the same as memory, as it began to be asked at this moment and in this epoch. `false` when
    /// memory has changed meanwhile, or L2 has something else.
    pub(crate) fn confirmed(
        &mut self,
        revision: Revision,
        floor: Floor,
        (asked_at, epoch): (Moment, u32),
    ) -> bool {
        let known = self.revision();
        let same = match sabotage::is(Sabotage::VersionsWithoutHistory) {
            true => (revision.generation, revision.version) == (known.generation, known.version),
            false => revision == known,
        };
        let same = self.complete && self.floor() == floor && same;
        if same {
            if self.is_hinted() && self.epoch != STALE {
                self.touched_elsewhere(asked_at);
            }
            self.checked_at = asked_at;
            self.epoch = epoch;
            self.dispelled = floor.doubts;
        }
        same
    }

    /// The latest state that memory knows of.
    fn revision(&self) -> Revision {
        Revision {
            generation: self.generation.unwrap_or(0),
            version: self.version,
            commit: self.commit,
        }
    }

    /// Perhaps L2 has another state, by a move or a sign-out: it is asked before this is used, and what
    /// it does not have is gone.
    pub(crate) fn distrust(&mut self) {
        self.epoch = STALE;
        self.doubt();
    }

    /// L2 is asked once more before this is used; who is asking now may get an answer from before.
    pub(crate) fn doubt(&mut self) {
        self.doubts = self.doubts.wrapping_add(1);
    }

    /// Whether sign-outs elsewhere were heard of until now, as far as anybody is to tell.
    pub(crate) fn heard(&self, rules: &Rules) -> bool {
        let changed = self.is_hinted() || self.links.are_told_of() || self.links.are_over();
        let heard = rules.vouch.was_told_in(self.epoch) && !changed;
        heard || sabotage::is(Sabotage::RecoveryAfterSignOut)
    }

    /// What memory has and L2 has lost: it had a later version than this one. Only what was heard
    /// of until L2 lost it counts: it might have been signed out elsewhere.
    fn lost_in(
        &self,
        fetched: &Fetched,
        is_sound: bool,
        now: Now,
        rules: &Rules,
    ) -> Vec<(TokenKey, Value)> {
        let heard = match fetched.loss {
            Some(Loss::Everything { goes_on }) => goes_on,
            _ => self.heard(rules),
        };
        if is_sound || !self.complete || !heard {
            return Vec::new();
        }
        // What is about to end may have ended in L2 already.
        let later = now.moment.saturating_add(CLOCK_SKEW);
        if self.ended_by(later) {
            return Vec::new();
        }
        let missing = |name: &TokenKey| !fetched.entries.iter().any(|(kept, _)| kept == name);
        let entries = self.stored_entries(now).into_iter();
        entries.filter(|(name, _)| missing(name)).collect()
    }

    /// L2 has taken the commit `id`. Returns how many changes it held.
    pub(crate) fn committed(&mut self, id: CommitId, made: Made, now: Now, rules: &Rules) -> usize {
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
                self.lay(name.clone(), change.value.clone(), false);
            }
            self.lay_pending();
        }
        let written = commit.changes.len();
        drop(commit);
        self.pending().land(Landing::Stored);
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
        self.pending().land(Landing::Conflict);
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

    /// What a broken engine keeps of memory, because its clock says that it is newer.
    fn latest_to_expire(&self, now: Now) -> Vec<(TokenKey, Value)> {
        match sabotage::is(Sabotage::WallClockOrdering) {
            true => self.usable_entries(now),
            false => Vec::new(),
        }
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
            true => self.distrust(),
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

    fn set_remaining(&mut self, remaining: Remaining, now: Now, rules: &Rules) {
        let at = |rest: Option<Duration>| rest.map(|rest| now.moment.saturating_add(rest));
        self.end = at(remaining.idle);
        self.hard_end = at(remaining.hard);
        let fresh = |rest: Duration| rest.mul_f64(rules.expiration_ratio);
        let limited = rules.expiration_ratio < 1.0;
        self.fresh_until = at(remaining.idle.filter(|_| limited).map(fresh));
    }
}
