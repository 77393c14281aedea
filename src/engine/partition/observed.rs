//! What a handle has observed of its partition.

use std::num::NonZeroU64;

use crate::engine::limits::RECHECK;
use crate::engine::namespace::Number;
use crate::engine::partition::life::Life;
use crate::engine::partition::state::{SignOut, State};
use crate::key::{PartitionKey, PartitionKind};
use crate::store::TOMBSTONE;
use crate::time::{Moment, Now};

/// What a handle observed when it first used the partition. Its changes are refused if the partition was
/// signed out after that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observed {
    generation: Option<Count>,
    number: Option<Number>,
    /// The life that the handle observed, or that its first change began.
    life: Option<Life>,
    /// When that life expires, as far as is known.
    life_ends: Moment,
    sign_out: SignOut,
    /// When the observation was made.
    since: Moment,
    /// When the observation was made, or when L2 last confirmed it.
    good_at: Moment,
    is_confirmed: bool,
    /// When a call to L2 last failed for the handle.
    l2_failed_at: Option<Moment>,
}

/// A generation, stored so that an `Option` of it is no larger: every request holds one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Count(NonZeroU64); // the generation plus one

impl From<u64> for Count {
    fn from(count: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(count))
    }
}

impl From<Count> for u64 {
    fn from(count: Count) -> Self {
        count.0.get() - 1
    }
}

impl Observed {
    /// The generation, or 0 while it is not known.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.map_or(0, u64::from)
    }

    /// Whether the partition was signed out between this observation and a later one, as far as both know.
    pub(crate) fn is_before(&self, later: &Self) -> bool {
        let both = self.generation.zip(later.generation);
        both.is_some_and(|(seen, later)| seen < later)
    }

    /// Takes over the generation, if it was not known when the observation was made.
    pub(crate) fn learn(&mut self, state: &State) {
        if !state.is_signing_out() {
            let known = state.generation.map(Count::from);
            self.generation = self.generation.or(known);
            if self.life.is_none() || self.life == state.life {
                self.see_life(state.life, state);
            }
            self.number = self.number.or(state.number);
        }
    }

    /// Whether memory was compared with L2 since the handle began, or need not be. A change must not be made
    /// under a generation that had ended before.
    pub(crate) fn is_confirmed(&self, state: &State) -> bool {
        self.is_confirmed || self.good_at <= state.checked_at
    }

    /// Whether the tombstone of a sign-out after this observation may be gone by now, so that the sign-out
    /// could not be noticed any more.
    pub(crate) fn is_old(&self, now: Now) -> bool {
        self.good_at < now.moment.saturating_sub(TOMBSTONE / 2)
    }

    /// L2 was asked: whether it still has what the handle observed. The partition of an application has no
    /// sign-ins, so that its life does not matter.
    pub(crate) fn confirm(&mut self, state: &State, key: &PartitionKey, now: Now) -> bool {
        let generation = state.generation.map(Count::from);
        let life = self.life.is_some() && self.life == state.life_at(now.moment);
        let lasts = life || key.kind() == PartitionKind::Application;
        let confirmed = !self.is_old(now) || (generation == self.generation && lasts);
        if confirmed {
            (self.good_at, self.is_confirmed) = (now.moment, true);
            if let Some(life) = state.life_at(now.moment) {
                self.see_life(Some(life), state);
            }
        }
        confirmed
    }

    fn see_life(&mut self, life: Option<Life>, state: &State) {
        self.life = life;
        self.life_ends = state.end.unwrap_or(Moment::MAX);
    }

    /// Takes over what a later observation of the same handle has learnt.
    pub(crate) fn follow(&mut self, later: &Self) {
        self.l2_failed_at = self.l2_failed_at.max(later.l2_failed_at);
        if later.is_confirmed {
            self.good_at = self.good_at.max(later.good_at);
            self.is_confirmed = true;
        }
        if later.life.is_some() {
            (self.life, self.life_ends) = (later.life, later.life_ends);
        }
    }

    pub(crate) fn note_l2_failure(&mut self, now: Now) {
        self.l2_failed_at = Some(now.moment);
    }

    /// Whether L2 has failed so recently that the handle should not wait for it again.
    pub(crate) fn gave_up_on_l2(&self, now: Now) -> bool {
        let lasts = |at: Moment| now.moment < at.saturating_add(RECHECK);
        self.l2_failed_at.is_some_and(lasts)
    }
}

impl State {
    /// The observation of a handle that first uses the partition now.
    pub(crate) fn observe(&self, now: Now) -> Observed {
        let generation = match self.pending_sign_out() {
            // The handle comes after a sign-out that L2 has not acknowledged, and is not ended by it.
            Some(pending) => pending.ends.or(self.generation).map(|ended| ended + 1),
            None => self.generation,
        };
        Observed {
            generation: generation.map(Count::from),
            number: self.number,
            life: self.life_at(now.moment),
            life_ends: self.end.unwrap_or(Moment::MAX),
            sign_out: self.sign_out,
            since: now.moment,
            good_at: now.moment,
            is_confirmed: false,
            l2_failed_at: None,
        }
    }

    /// Whether the partition was signed out after the observation was made.
    pub(crate) fn signed_out_since(&self, observed: &Observed) -> bool {
        let ended = match (observed.generation, self.generation) {
            (Some(seen), Some(now)) => Count::from(now) > seen,
            (None, Some(_)) => self.cleared_since(observed.since),
            _ => false,
        };
        let revoked = match observed.number {
            Some(seen) => self.number > Some(seen),
            // The observation may be from before all users were signed out.
            None => self.number.is_some() && observed.since < self.began,
        };
        ended || revoked || self.sign_out > observed.sign_out
    }

    /// Takes over the generation that a handle observed, if memory has none: L1 is off, or has evicted the
    /// partition since. L2 checks it in any case. A life that has expired is not continued, just as when
    /// memory has the partition.
    pub(crate) fn adopt(&mut self, observed: &Observed, now: Now) {
        if self.generation.is_none() {
            self.generation = observed.generation.map(u64::from);
            self.life = observed.life.filter(|_| now.moment < observed.life_ends);
            let end = self.life.map(|_| observed.life_ends);
            self.end = end.filter(|end| *end < Moment::MAX);
        }
    }
}
