//! What memory may answer, and when it must be compared with L2.

use crate::codec::Value;
use crate::engine::limits::RECHECK;
use crate::engine::partition::entry::Entry;
use crate::engine::partition::links::Links;
use crate::engine::partition::rules::Rules;
use crate::engine::partition::state::State;
use crate::engine::trust::{Era, FeedState};
use crate::lookup::Lookup;
use crate::time::{Moment, Now};

/// What memory can answer for an entry.
pub(crate) enum Answer {
    /// This answer, which is current within the configured bounds.
    Known(Lookup<Value>),
    /// This value, but only if L2 cannot be asked.
    Stale(Value),
    /// Nothing: L2 must be asked.
    Unknown,
}

/// Maintenance that a read has found due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Maintenance {
    pub(crate) touch: bool,
    pub(crate) revalidate: bool,
}

impl State {
    /// The value of an entry that needs no further check: the path of a hit.
    pub(crate) fn fresh_value(&self, name: &str, now: Now, era: Era) -> Option<&Value> {
        // What others change and sign out arrives as a hint, and sets the moment to zero (`hints`); so does what is pending.
        if now.moment >= self.fresh_hit_until || era != self.era || self.links.may_be_signed_out() {
            return None;
        }
        let entry = self.entries.get(name)?;
        entry.is_unexpired(now.wall).then_some(&entry.value)
    }

    /// The value of an entry that may be served if L2 cannot be asked. Not where a touch is due: `read` makes it.
    pub(crate) fn stale_value(&self, name: &str, now: Now, rules: &Rules) -> Option<&Value> {
        let touch_is_due = self.touch_at(rules).is_some_and(|at| at <= now.moment);
        if self.ended(now) || touch_is_due || self.links.are_over() || self.is_announced(rules) {
            return None;
        }
        let entry = self.entries.get(name)?;
        entry.is_unexpired(now.wall).then_some(&entry.value)
    }

    /// What memory answers for the entry `name`.
    pub(crate) fn answer(&self, name: &str, now: Now, rules: &Rules) -> Answer {
        let waits = self.waits(name);
        if let Some(entry) = self
            .entries
            .get(name)
            .filter(|entry| entry.is_unexpired(now.wall))
        {
            let current = self.complete && self.fresh(now) && self.is_coherent(now, rules);
            if waits || entry.local || (current && !self.ended(now)) {
                return Answer::Known(Lookup::Hit(entry.value.clone()));
            }
            // A change that the feed has announced may be a sign-out.
            if !self.ended(now) && !self.is_announced(rules) {
                return Answer::Stale(entry.value.clone());
            }
        }
        if waits {
            return Answer::Known(Lookup::Absent);
        }
        if !self.absences_are_known(now, rules) {
            return Answer::Unknown;
        }
        Answer::Known(match self.unopenable.holds(name) {
            true => Lookup::Unopenable,
            false => Lookup::Absent,
        })
    }

    /// What memory answers for the entry `name` right after it was read from L2.
    pub(crate) fn answer_as_read(&self, name: &str, now: Now) -> Lookup<Value> {
        let usable = |entry: &&Entry| {
            let lives = entry.local || self.waits(name) || !self.ended(now);
            lives && entry.is_unexpired(now.wall)
        };
        match self.entries.get(name).filter(usable) {
            Some(entry) => Lookup::Hit(entry.value.clone()),
            None if !self.waits(name) && self.unopenable.holds(name) => Lookup::Unopenable,
            None => Lookup::Absent,
        }
    }

    /// Whether memory may answer that an entry is absent.
    pub(crate) fn absences_are_known(&self, now: Now, rules: &Rules) -> bool {
        let until = self
            .checked_at
            .saturating_add(rules.lifetimes.negative_entry);
        let known = self.complete && self.is_coherent(now, rules) && now.moment < until;
        self.is_signing_out() || known
    }

    /// Whether memory can be trusted to have what L2 has, within the bound on staleness.
    pub(crate) fn is_coherent(&self, now: Now, rules: &Rules) -> bool {
        let bound = match rules.trust.feed_state(now.moment) {
            FeedState::None => self.stale_at(rules),
            FeedState::Alive => None,
            // The feed vouches for what was checked before `until` up to that moment only.
            FeedState::Lost if self.checked_at <= rules.trust.until() => return false,
            FeedState::Lost => Some(self.checked_at.saturating_add(RECHECK)),
        };
        let doubted = self.is_invalidated() || rules.trust.doubts_number();
        let current = self.era == rules.trust.era() && !doubted;
        current && bound.is_none_or(|bound| now.moment < bound)
    }

    /// Whether memory was marked stale or invalidated, and is not only unproven.
    pub(crate) fn is_contradicted(&self) -> bool {
        self.era == Era::STALE || self.is_invalidated()
    }

    fn is_invalidated(&self) -> bool {
        self.is_hinted() || self.links.may_be_signed_out()
    }

    /// Whether the feed has announced a change since L2 was last asked.
    pub(crate) fn is_hinted(&self) -> bool {
        self.invalidations != self.validated
    }

    /// Whether the feed has announced a change of the partition, of its users or of the namespace's number
    /// since L2 was last asked. It may be a sign-out.
    fn is_announced(&self, rules: &Rules) -> bool {
        self.is_hinted() || self.links.are_announced() || rules.trust.doubts_number()
    }

    /// When memory must be compared with L2 before it is used; `None` if a feed announces changes.
    fn stale_at(&self, rules: &Rules) -> Option<Moment> {
        let bound = rules.l1.max_staleness.filter(|_| rules.trust.is_none())?;
        Some(self.checked_at.saturating_add(bound))
    }

    /// Maintenance that is due now.
    pub(crate) fn due(&self, now: Now, rules: &Rules) -> Maintenance {
        let revalidate =
            !self.is_active() && self.revalidate_at(rules).is_some_and(|at| at <= now.moment);
        let touch = self.touch_at(rules).is_some_and(|at| at <= now.moment);
        // A touch does not revive a partition that has ended.
        let touch = touch && !self.ended(now);
        Maintenance { touch, revalidate }
    }

    fn revalidate_at(&self, rules: &Rules) -> Option<Moment> {
        let silent = self.complete && rules.trust.is_none();
        let interval = rules.l1.revalidate_every.filter(|_| silent)?;
        Some(self.checked_at.saturating_add(interval))
    }

    /// When L2 is to be touched: after a tenth of the sliding lifetime, which is the most by which the
    /// partition can end early.
    pub(crate) fn touch_at(&self, rules: &Rules) -> Option<Moment> {
        let sliding = rules
            .lifetimes
            .partition
            .sliding
            .filter(|_| self.version > 0)?;
        Some(self.touched_at.saturating_add(sliding / 10))
    }

    /// Computes until when a hit needs no further check. Called after every change.
    pub(crate) fn update_deadlines(&mut self, rules: &Rules) {
        if !self.is_active() {
            self.pending = None;
        }
        if std::mem::take(&mut self.relinked) {
            self.links = Links::of(&self.entries, &rules.users);
        }
        let dirty = self
            .pending
            .as_ref()
            .is_some_and(|pending| pending.is_dirty());
        let limits = [
            self.fresh_until,
            self.end,
            self.stale_at(rules),
            self.revalidate_at(rules),
            self.touch_at(rules),
        ];
        self.fresh_hit_until = match self.complete && !dirty && !self.is_invalidated() {
            true => limits.into_iter().flatten().min().unwrap_or(Moment::MAX),
            false => Moment::default(),
        };
    }

    pub(crate) fn ended(&self, now: Now) -> bool {
        self.ended_by(now.moment)
    }

    pub(crate) fn ended_by(&self, moment: Moment) -> bool {
        self.end.is_some_and(|end| end <= moment)
    }

    pub(crate) fn fresh(&self, now: Now) -> bool {
        self.fresh_until.is_none_or(|until| now.moment < until)
    }
}
