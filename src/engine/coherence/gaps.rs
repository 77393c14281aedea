//! Gaps of the feed: the times when any partition may have changed.

use crate::engine::limits::RECHECK;
use crate::time::Moment;

/// Gaps that follow each other, for example because another database of the server is emptied again and
/// again. Then the feed is no help: memory is compared at intervals, as without a feed.
#[derive(Default)]
pub(crate) struct Gaps {
    last: Option<Moment>,
    /// How many came in a row, each within `RECHECK` of the one before, after the first.
    row: u32,
}

/// So many gaps in a row are still handled one by one.
const FEW: u32 = 5;

impl Gaps {
    /// Notes a gap. Returns whether there are too many in a row.
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

    /// Whether the last gap was just now.
    pub(crate) fn go_on(&self, now: Moment) -> bool {
        self.last
            .is_some_and(|last| now < last.saturating_add(RECHECK))
    }

    /// The row has ended. Returns whether some gaps were not handled.
    pub(crate) fn end(&mut self) -> bool {
        let were_many = self.are_many();
        self.row = 0;
        were_many
    }
}
