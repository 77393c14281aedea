//! How long a lease is ours.

use std::time::Duration;

use tokio::time::Instant;

use crate::time::Clock;

/// Until when something is ours, whatever becomes of this process: a machine that sleeps may count no
/// time, and has lost it all the same.
#[derive(Clone, Debug)]
pub(crate) struct Until {
    at: Instant,
    sleeps: u32,
    clock: Clock,
}

impl Until {
    /// Nothing yet.
    pub(crate) fn now(clock: &Clock) -> Self {
        Self {
            at: Instant::now(),
            sleeps: clock.sleeps(),
            clock: clock.clone(),
        }
    }

    pub(crate) fn plus(self, time: Duration) -> Self {
        Self {
            at: self.at + time,
            ..self
        }
    }

    /// If nothing happens to the machine.
    pub(crate) fn at(&self) -> Instant {
        self.at
    }

    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.at || self.clock.sleeps() != self.sleeps
    }
}
