//! Merging what was read from L2 into memory, and when it is refused.

use std::time::Duration;

use crate::codec::Value;
use crate::engine::limits::CLOCK_SKEW;
use crate::engine::namespace::Number;
use crate::engine::partition::entry::Unopened;
use crate::engine::partition::life::Life;
use crate::engine::partition::rules::Rules;
use crate::engine::partition::state::{SignOut, State};
use crate::engine::trust::Era;
use crate::key::TokenKey;
use crate::mutation::{self, Mutation};
use crate::store::{CommitId, Remaining, Revision};
use crate::time::{Moment, Now};

/// A partition as read from L2, decoded.
pub(crate) struct DecodedLoad {
    pub(crate) generation: u64,
    pub(crate) version: u64,
    pub(crate) commit: Option<CommitId>,
    pub(crate) life: Option<Life>,
    pub(crate) cleared_for: Option<Duration>,
    pub(crate) remaining: Remaining,
    pub(crate) entries: Vec<(TokenKey, Value)>,
    pub(crate) unopenable: Unopened,
    /// When the read began, and the feed's era at that moment.
    pub(crate) asked_at: Moment,
    pub(crate) era: Era,
    /// What L2 has lost, if it no longer has the life that memory knows; `None` if that was not checked.
    pub(crate) loss: Option<Loss>,
}

/// What L2 has lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// This partition only.
    Alone,
    /// All data. `goes_on`: whether this partition continues with what memory has.
    Everything { goes_on: bool },
}

/// What was known of a partition when a read of L2 began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReadStart {
    pub(crate) number: Option<Number>,
    sign_out: SignOut,
    invalidations: u32,
    // Includes the commit, because the next life of a partition counts its versions from 1 again.
    revision: Revision,
}

/// The outcome of merging what was read from L2.
#[derive(Debug, PartialEq)]
pub(crate) enum Merged {
    /// What was read is in memory.
    Taken {
        /// Pending changes that were dropped, because they were made before a sign-out.
        dropped: usize,
        /// Entries that memory had and L2 has lost.
        lost: Vec<(TokenKey, Value)>,
    },
    /// A commit or sign-out has overtaken the read: read again.
    Overtaken,
}

impl State {
    pub(crate) fn floor(&self) -> ReadStart {
        ReadStart {
            number: self.number,
            sign_out: self.sign_out,
            invalidations: self.invalidations,
            revision: self.revision(),
        }
    }

    /// Merges a partition that was read from L2 into memory, unless a commit or sign-out has overtaken the
    /// read.
    pub(crate) fn merge(
        &mut self,
        fetched: DecodedLoad,
        floor: ReadStart,
        now: Now,
        rules: &Rules,
    ) -> Merged {
        if self.is_signing_out() && self.number == floor.number {
            return Merged::Taken {
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
        // If this contradicts what was known before the read began, the store has lost data, and what it has
        // now counts. If it contradicts what became known since, the read was overtaken.
        let contradicts = older || gone;
        let overtaken = known.number != floor.number
            || known.sign_out != floor.sign_out
            || (contradicts && known != floor);
        if overtaken && !mutation::is(Mutation::BackFillUnchecked) {
            return Merged::Overtaken;
        }
        if gone && fetched.loss.is_none() {
            return Merged::Overtaken;
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
            // It was signed out elsewhere and its tombstone lost, or evicted, or removed by hand.
            true => self.signed_out_elsewhere(),
            false => 0,
        };
        self.cleared_at = fetched.cleared_for.map(|time| now.ago(time));
        let since = self.pending.as_ref().and_then(|pending| pending.since());
        let signed_out = match self.generation {
            Some(known) => fetched.generation > known,
            None => since.is_some_and(|since| self.cleared_since(since)),
        };
        let replayed = mutation::is(Mutation::ReplayAcrossSignOut);
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
        self.era = fetched.era;
        self.validated = floor.invalidations;
        self.unopenable = fetched.unopenable;
        self.set_remaining(fetched.remaining, now, rules);
        self.forget_loaded_entries();
        if fetched.generation >= known.revision.generation {
            for (name, value) in fetched.entries {
                self.apply(name, Some(value), false);
            }
        }
        for (name, value) in newest {
            let found = self.entries.get(name.as_ref());
            if found.is_some_and(|found| found.value.expires_at() < value.expires_at()) {
                self.apply(name, Some(value), false);
            }
        }
        self.overlay_pending();
        Merged::Taken { dropped, lost }
    }

    /// Whether memory may be used once L2 is known to have the same revision.
    pub(crate) fn is_comparable(&self, now: Now) -> bool {
        self.complete && self.fresh(now) && !self.ended(now)
    }

    /// Confirms memory if L2 has the same revision, by a question that was asked at this moment and in this
    /// era. `false` if memory has changed since, or L2 has another revision.
    pub(crate) fn confirmed(
        &mut self,
        revision: Revision,
        floor: ReadStart,
        (asked_at, era): (Moment, Era),
    ) -> bool {
        let known = self.revision();
        let same = match mutation::is(Mutation::VersionsWithoutHistory) {
            true => (revision.generation, revision.version) == (known.generation, known.version),
            false => revision == known,
        };
        let same = self.complete && self.floor() == floor && same;
        if same {
            if self.is_hinted() && self.era != Era::STALE {
                self.touched_elsewhere(asked_at);
            }
            self.checked_at = asked_at;
            self.era = era;
            self.validated = floor.invalidations;
        }
        same
    }

    /// The latest revision that memory knows.
    fn revision(&self) -> Revision {
        Revision {
            generation: self.generation.unwrap_or(0),
            version: self.version,
            commit: self.commit,
        }
    }

    /// L2 may have another state, because of a move or a sign-out. It is asked before this is used, and
    /// entries that it does not have are dropped.
    pub(crate) fn mark_stale(&mut self) {
        self.era = Era::STALE;
        self.invalidate();
    }

    /// L2 is asked again before this is used. A read in progress does not count: its answer may be older.
    pub(crate) fn invalidate(&mut self) {
        self.invalidations = self.invalidations.wrapping_add(1);
    }

    /// Whether the feed would have announced every sign-out elsewhere until now, as far as can be known, and
    /// has announced none.
    pub(crate) fn heard(&self, rules: &Rules) -> bool {
        let changed = self.is_hinted() || self.links.are_announced() || self.links.are_over();
        let heard = rules.trust.was_heard_in(self.era) && !changed;
        heard || mutation::is(Mutation::RecoveryAfterSignOut)
    }

    /// The entries that memory has and L2 has lost, because it had a later version than this one. There are
    /// none unless the feed was followed until the loss: the partition might have been signed out elsewhere.
    fn lost_in(
        &self,
        fetched: &DecodedLoad,
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
        // A partition that is about to end may have ended in L2 already.
        let later = now.moment.saturating_add(CLOCK_SKEW);
        if self.ended_by(later) {
            return Vec::new();
        }
        let missing = |name: &TokenKey| !fetched.entries.iter().any(|(kept, _)| kept == name);
        let entries = self.recoverable_entries(now).into_iter();
        entries.filter(|(name, _)| missing(name)).collect()
    }
}
