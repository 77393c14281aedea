//! Touches, by which use of a partition extends its life in L2.

use crate::engine::partition::rules::Rules;
use crate::engine::partition::state::State;
use crate::time::{Moment, Now};

impl State {
    /// Queues a touch that was found due, and marks it as done in the same step: a touch that was marked but
    /// not queued would let a session end that is in use. `false` if another caller has queued it since.
    pub(crate) fn hand_on_touch(&mut self, now: Now, rules: &Rules) -> bool {
        let is_early = self.touch_at(rules).is_some_and(|at| now.moment < at);
        if is_early || self.ended(now) {
            return false;
        }
        self.touched_at = now.moment;
        // Users whose session is in L1 stay signed in while L2 cannot be touched.
        let idle_end = rules
            .lifetimes
            .partition
            .sliding
            .map(|sliding| now.moment.saturating_add(sliding));
        self.end = [self.hard_end, idle_end].into_iter().flatten().min();
        self.pending().touch = true;
        true
    }

    /// The feed has announced a change, and the revision is the same: most likely another instance has
    /// touched the partition. If it were touched here as well, each touch would make all other instances
    /// revalidate and touch in turn. It stays unknown when the partition ends now.
    pub(crate) fn touched_elsewhere(&mut self, moment: Moment) {
        self.touched_at = self.touched_at.max(moment);
    }
}
