//! What happens to a partition whose life is gone from L2.

use std::sync::Arc;
use std::time::Duration;

use crate::codec::Value;
use crate::engine::limits::CLOCK_SKEW;
use crate::engine::partition::change::{CommitBase, InFlight, PendingChange};
use crate::engine::partition::life::Life;
use crate::engine::partition::state::State;
use crate::key::TokenKey;
use crate::mutation::{self, Mutation};
use crate::store::{CommitId, Expected, TOMBSTONE};
use crate::time::{Moment, Now};

/// How much later than L2 this process may notice that a life has ended: replies take time.
const SEEN_LATER: Duration = Duration::from_secs(2);

impl State {
    /// The life that a change made at this moment continues.
    pub(crate) fn life_at(&self, moment: Moment) -> Option<Life> {
        self.life.filter(|_| !self.ended_by(moment))
    }

    /// Whether L2 no longer has the life that memory knows, although that life should not have ended.
    pub(crate) fn has_lost_life(&self, generation: u64, found: Option<Life>, now: Now) -> bool {
        let known = self.life_at(now.moment.saturating_add(SEEN_LATER));
        let known = known.filter(|_| !mutation::is(Mutation::LifeIgnored));
        known.is_some_and(|known| {
            let other = found.is_none_or(|found| found.sealed == known.sealed && found != known);
            other && generation <= self.generation.unwrap_or(0)
        })
    }

    /// Ends everything that began here in the life that L2 no longer has. Returns how many changes are
    /// dropped.
    pub(crate) fn life_is_over(&mut self) -> usize {
        self.forget_entries();
        self.forget_life();
        self.signed_out_elsewhere()
    }

    /// Whether the tombstone of the generation is gone by now, so that L2 counts from the start again.
    pub(crate) fn has_outlived_generation(&self, now: Now) -> bool {
        let gone = self.cleared_at.map(|at| at.saturating_add(TOMBSTONE));
        let gone = gone.map(|at| at.saturating_add(CLOCK_SKEW));
        self.life_at(now.moment).is_none() && gone.is_some_and(|at| at <= now.moment)
    }

    /// Whether the partition continues although L2 has lost everything. A session that is linked to users
    /// continues only if the feed was followed until then, and announced no sign-out of theirs.
    pub(crate) fn outlives_a_loss(&self, heard: bool) -> bool {
        heard || self.links.is_empty()
    }

    /// Forgets what is known of the partition in L2.
    pub(crate) fn forget_life(&mut self) {
        self.life = None;
        self.version = 0;
        self.commit = None;
        self.complete = false;
        self.end = None;
        self.hard_end = None;
    }

    /// Whether the commit `id` is still in flight.
    pub(crate) fn has_in_flight(&self, id: CommitId) -> bool {
        let in_flight = self.pending.as_ref().and_then(|it| it.in_flight.as_ref());
        in_flight.is_some_and(|commit| commit.id == id)
    }

    /// The entries in memory besides the commit in flight, to be written with it to an L2 that has lost
    /// everything. There are none unless the feed was followed until then: the partition might have been
    /// signed out elsewhere.
    pub(crate) fn to_be_written_again(&self, heard: bool, now: Now) -> Vec<(TokenKey, Value)> {
        let in_flight = self.pending.as_ref().and_then(|it| it.in_flight.as_ref());
        let is_in_flight = |name: &TokenKey| {
            in_flight.is_some_and(|commit| commit.changes.get(name.as_ref()).is_some())
        };
        let entries = match heard {
            true => self.recoverable_entries(now),
            false => Vec::new(),
        };
        let entries = entries.into_iter();
        entries.filter(|(name, _)| !is_in_flight(name)).collect()
    }

    /// Begins a new life with the commit in flight, and with the entries `again`.
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
