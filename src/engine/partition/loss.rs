//! The life of a partition is gone.

use std::sync::Arc;
use std::time::Duration;

use crate::codec::Value;
use crate::engine::limits::CLOCK_SKEW;
use crate::engine::partition::change::{CommitBase, InFlight, PendingChange};
use crate::engine::partition::life::Life;
use crate::engine::partition::state::State;
use crate::key::TokenKey;
use crate::sabotage::{self, Sabotage};
use crate::store::{CommitId, Expected, TOMBSTONE};
use crate::time::{Moment, Now};

/// An end that L2 has seen may be seen here so much later: answers take their time.
const SEEN_LATER: Duration = Duration::from_secs(2);

impl State {
    /// The life that changes made now go on with.
    pub(crate) fn life_at(&self, moment: Moment) -> Option<Life> {
        self.life.filter(|_| !self.ended_by(moment))
    }

    /// Whether L2 says that the life that memory knows is over, although it should not be.
    pub(crate) fn has_lost_life(&self, generation: u64, found: Option<Life>, now: Now) -> bool {
        let known = self.life_at(now.moment.saturating_add(SEEN_LATER));
        let known = known.filter(|_| !sabotage::is(Sabotage::LifeIgnored));
        known.is_some_and(|known| {
            let other = found.is_none_or(|found| found.sealed == known.sealed && found != known);
            other && generation <= self.generation.unwrap_or(0)
        })
    }

    /// What began here in the life that L2 no longer has is over. Returns how many changes are
    /// dropped.
    pub(crate) fn life_is_over(&mut self) -> usize {
        self.forget_entries();
        self.forget_life();
        self.end_what_began()
    }

    /// Whether the tombstone of the generation is gone by now, so that L2 counts anew.
    pub(crate) fn has_outlived_generation(&self, now: Now) -> bool {
        let gone = self.cleared_at.map(|at| at.saturating_add(TOMBSTONE));
        let gone = gone.map(|at| at.saturating_add(CLOCK_SKEW));
        self.life_at(now.moment).is_none() && gone.is_some_and(|at| at <= now.wall)
    }

    /// Whether the partition goes on where L2 has lost everything: a session that belongs to users only where
    /// it was heard of until then that they were not signed out.
    pub(crate) fn outlives_a_loss(&self, heard: bool) -> bool {
        heard || self.links.is_empty()
    }

    /// What L2 knew of the partition is of the past.
    pub(crate) fn forget_life(&mut self) {
        self.life = None;
        self.version = 0;
        self.commit = None;
        self.complete = false;
        self.end = None;
        self.hard_end = None;
    }

    /// Whether the commit `id` is still on its way.
    pub(crate) fn has_in_flight(&self, id: CommitId) -> bool {
        let in_flight = self.pending.as_ref().and_then(|it| it.in_flight.as_ref());
        in_flight.is_some_and(|commit| commit.id == id)
    }

    /// What memory has beside the commit in flight, to be written with it to an L2 that has lost
    /// everything. Only what was heard of until then: it might have been signed out elsewhere.
    pub(crate) fn to_be_written_again(&self, heard: bool, now: Now) -> Vec<(TokenKey, Value)> {
        let in_flight = self.pending.as_ref().and_then(|it| it.in_flight.as_ref());
        let flies = |name: &TokenKey| {
            in_flight.is_some_and(|commit| commit.changes.get(name.as_ref()).is_some())
        };
        let entries = match heard {
            true => self.stored_entries(now),
            false => Vec::new(),
        };
        let entries = entries.into_iter();
        entries.filter(|(name, _)| !flies(name)).collect()
    }

    /// Begins a new life with the commit in flight, and with `again`.
    pub(crate) fn begin_life(&mut self, again: Vec<(TokenKey, PendingChange)>) {
        let end = (self.end, self.hard_end);
        self.forget_life();
        (self.end, self.hard_end) = end;
        if let Some(commit) = &mut self.pending().in_flight {
            *commit = InFlight {
                expected: commit.expected.map(|expected| Expected {
                    version: 0,
                    ..expected
                }),
                life: None,
                sent: false,
                base: CommitBase {
                    version: 0,
                    commit: None,
                    ..commit.base
                },
                again: Arc::new(again.into_iter().collect()),
                ..commit.clone()
            };
        }
    }
}
