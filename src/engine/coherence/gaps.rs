//! Times when anything may have changed.

use crate::engine::limits::RECHECK;
use crate::time::Moment;

/// The times when anything may have changed. Where they follow each other, as by somebody who empties another
/// database of the server again and again, a feed is no help: memory is compared at intervals, as without one.
#[derive(Default)]
pub(crate) struct Gaps {
    last: Option<Moment>,
    /// How many came without a pause.
    row: u32,
}

/// As many gaps without a pause are heard of one by one.
const FEW: u32 = 5;

impl Gaps {
    /// One more. Whether it is too many.
    pub(crate) fn add(&mut self, now: Moment) -> bool {
        self.row = match self.go_on(now) {
            true => self.row.saturating_add(1),
            false => 0,
        };
        self.last = Some(now);
        self.are_many()
    }

    pub(crate) fn are_many(&self) -> bool {
        self.row > FEW
    }

    /// Whether the last was just now.
    pub(crate) fn go_on(&self, now: Moment) -> bool {
        self.last
            .is_some_and(|last| now < last.saturating_add(RECHECK))
    }

    /// There are no more. Whether some were passed over.
    pub(crate) fn end(&mut self) -> bool {
        let were_many = self.are_many();
        self.row = 0;
        were_many
    }
}
