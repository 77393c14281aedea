//! Random numbers from a seed: the same seed, the same faults and the same load.

use std::sync::Mutex;
use std::time::Duration;

use common::random::SplitMix64;

/// Shared by what draws from it.
pub(crate) struct Random(Mutex<SplitMix64>);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Mutex::new(SplitMix64::new(seed)))
    }

    /// Another generator, which draws other numbers.
    pub(crate) fn fork(&self, number: u64) -> Self {
        Self::new(self.next() ^ number)
    }

    fn next(&self) -> u64 {
        self.0.lock().unwrap().draw()
    }

    pub(crate) fn below(&self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub(crate) fn one_of<T: Copy>(&self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Milliseconds from `from` to below `to`.
    pub(crate) fn millis(&self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.next() % (to - from))
    }
}
