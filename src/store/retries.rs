//! Compare-and-set again, after another has come first.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::error::{StoreError, StoreErrorKind};
use crate::random;

/// How long one operation tries. The engine stops waiting earlier; this bound is for direct callers.
const PATIENCE: Duration = Duration::from_secs(5);
/// The first pause is shorter than this, and so is each later one than twice the bound before it.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// The attempts of one operation.
pub(in crate::store) struct Retries {
    deadline: Instant,
    pause: Duration,
}

impl Retries {
    pub(in crate::store) fn new() -> Self {
        Self {
            deadline: Instant::now() + PATIENCE,
            pause: FIRST_PAUSE,
        }
    }

    /// Pauses for a random time. Those who collided then come one after the other.
    pub(in crate::store) async fn pause(&mut self) -> Result<(), StoreError> {
        if Instant::now() >= self.deadline {
            return Err(StoreError::new(StoreErrorKind::Timeout));
        }
        sleep(self.pause.mul_f64(random::fraction())).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}
