//! How long a lease is still held.

use std::time::Duration;

use tokio::time::Instant;

use crate::time::Clock;

/// The end of a lease, by the monotonic clock. That clock may not count the time in which the machine sleeps,
/// so any sleep ends it, too.
#[derive(Clone, Debug)]
pub(crate) struct Until {
    at: Instant,
    sleeps: u32,
    clock: Clock,
}

impl Until {
    /// Ends now.
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

    /// The end, if the machine does not sleep.
    pub(crate) fn at(&self) -> Instant {
        self.at
    }

    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.at || self.clock.sleeps() != self.sleeps
    }
}
