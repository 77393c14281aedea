//! `Numbers`: which changes of a log were read, when their numbers come in another order than their commits.
//! Public for the simulation.
#![cfg_attr(not(feature = "__tests"), allow(unreachable_pub))]

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::mutation::{self, Mutation};

/// How long a number that is missing is asked for. A change and its commit are sent together; one that takes longer
/// than this was never made.
pub(super) const GRACE: Duration = Duration::from_secs(60);

/// Between a number and the next one that is read there are no more than these that may still come: so many
/// transactions are not under way at a time. More are skipped by a restart of the server.
const UNDER_WAY: u64 = 1000;

/// With more missing numbers than these the log is of no use.
const MOST_MISSING: usize = 10_000;

/// The numbers that a reader of the log has read, or waits for.
#[derive(Debug, Default)]
pub struct Numbers {
    /// All up to this were read, but for those that are missing.
    last: u64,
    /// Numbers that were skipped, and since when.
    missing: BTreeMap<u64, Instant>,
}

impl Numbers {
    /// Everything up to this number has been committed, or never will be.
    pub fn after(settled: u64) -> Self {
        Self {
            last: settled,
            missing: BTreeMap::new(),
        }
    }

    /// The log begins with this number: what was before it is freed, or still under way.
    pub(super) fn from(first: u64) -> Self {
        Self::after(first.saturating_sub(1 + UNDER_WAY))
    }

    /// The latest number that was read.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Earlier numbers that were not read, and may still come.
    pub fn missing(&self) -> impl ExactSizeIterator<Item = u64> {
        self.missing.keys().copied()
    }

    /// Notes a number that was read.
    pub fn read(&mut self, number: u64, now: Instant) {
        if self.missing.remove(&number).is_some() || number <= self.last {
            return;
        }
        let skipped = number.saturating_sub(UNDER_WAY).max(self.last + 1)..number;
        if !mutation::is(Mutation::LateNumbersSkipped) {
            self.missing.extend(skipped.map(|number| (number, now)));
        }
        self.last = number;
    }

    /// Gives up what has been missing for too long. `false` where so much is missing that the log is of no use.
    pub fn settle(&mut self, now: Instant) -> bool {
        self.missing
            .retain(|_, since| now.duration_since(*since) < GRACE);
        self.missing.len() <= MOST_MISSING
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_number_that_was_skipped_is_asked_for_until_it_can_no_longer_come() {
        let mut numbers = Numbers::after(4);
        for number in [5, 8] {
            numbers.read(number, Instant::now());
        }
        assert_eq!(numbers.missing().collect::<Vec<_>>(), [6, 7]);
        numbers.read(7, Instant::now());
        tokio::time::advance(GRACE - Duration::from_millis(1)).await;
        assert!(numbers.settle(Instant::now()));
        assert_eq!(numbers.missing().collect::<Vec<_>>(), [6]);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(numbers.settle(Instant::now()));
        assert_eq!((numbers.missing().len(), numbers.last()), (0, 8));
    }

    #[tokio::test]
    async fn too_many_missing_numbers_are_noticed() {
        let now = Instant::now();
        let mut numbers = Numbers::after(0);
        for round in 1..=12 {
            numbers.read(round * 2000, now);
            assert_eq!(numbers.missing().len() as u64, round * UNDER_WAY);
            assert_eq!(numbers.settle(now), round <= 10);
        }
    }
}
