//! What the change feed has announced of a partition.

use crate::engine::limits::RECHECK;
use crate::engine::partition::state::State;
use crate::mutation::{self, Mutation};
use crate::time::Now;

/// How a change that the feed announces is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hint {
    /// L2 is asked before memory is used.
    Foreign,
    /// It may be this process's own write: memory is compared with L2 in the background.
    Own,
    /// The same, and that comparison is due already.
    Known,
}

impl State {
    /// The feed has announced that the partition may have changed.
    pub(crate) fn hint(&mut self, now: Now) -> Hint {
        // Commits touch, too.
        let is_recent = self.is_writing() || now.moment < self.touched_at.saturating_add(RECHECK);
        let due = std::mem::take(&mut self.own_due);
        if !is_recent || due == 0 {
            match mutation::is(Mutation::HintAdopted) {
                true => self.version += 1,
                false => self.invalidate(),
            }
            return Hint::Foreign;
        }
        self.own_due = due - 1;
        match std::mem::replace(&mut self.own_hint, true) {
            true => Hint::Known,
            false => Hint::Own,
        }
    }

    pub(crate) fn forget_own_hint(&mut self) {
        self.own_hint = false;
    }

    /// This process is about to send a change, which the feed announces once. If the change is sent again,
    /// there may be one announcement fewer than expected.
    pub(crate) fn expect_own_hint(&mut self) {
        self.own_due = self.own_due.saturating_add(1);
    }
}
