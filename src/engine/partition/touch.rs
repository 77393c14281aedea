//! Use that L2 is told of.

use crate::engine::partition::rules::Rules;
use crate::engine::partition::state::State;
use crate::time::{Moment, Now};

impl State {
    /// Hands a touch that was found due on to the flush, in the step that marks it as taken care of:
    /// one that was marked and not handed on would end a session that is in use. `false` where
    /// somebody has done so meanwhile.
    pub(crate) fn hand_on_touch(&mut self, now: Now, rules: &Rules) -> bool {
        let is_early = self.touch_at(rules).is_some_and(|at| now.moment < at);
        if is_early || self.ended(now) {
            return false;
        }
        self.touched_at = now.moment;
        // Users of L1 stay signed in while L2 cannot be told that they were here.
        let idle_end = rules
            .sliding
            .map(|sliding| now.moment.saturating_add(sliding));
        self.end = [self.hard_end, idle_end].into_iter().flatten().min();
        self.pending().touch = true;
        true
    }

    /// It was told of, and is as it was: another instance has touched it, most likely. Were it touched here
    /// as well, each touch would have all others compare, and bring theirs. When it ends is not known by that.
    pub(crate) fn touched_elsewhere(&mut self, moment: Moment) {
        self.touched_at = self.touched_at.max(moment);
    }
}
