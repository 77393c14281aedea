//! When keys are made, and when they are used.

use std::time::Duration;

use super::error::{KeyRingError, KeyRingErrorKind};
use super::keys::Keys;
use crate::time::Timestamp;

/// The schedule of a ring with a repository.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    pub(super) rotate_every: Option<Duration>,
    pub(super) activation_delay: Duration,
    pub(super) refresh_every: Duration,
}

const HOUR: Duration = Duration::from_secs(3600);

impl Default for Schedule {
    fn default() -> Self {
        Self {
            rotate_every: Some(90 * 24 * HOUR),
            activation_delay: 24 * HOUR,
            refresh_every: HOUR / 12,
        }
    }
}

impl Schedule {
    pub(super) fn validate(&self) -> Result<(), KeyRingError> {
        let known_in_time = self.refresh_every.saturating_mul(2) <= self.activation_delay;
        let known_for_long = self
            .rotate_every
            .is_none_or(|every| self.activation_delay.saturating_mul(2) <= every);
        match !self.refresh_every.is_zero() && known_in_time && known_for_long {
            true => Ok(()),
            false => Err(KeyRingErrorKind::Schedule.into()),
        }
    }

    /// From when on the key seals that has to be made now; `None` when none has to.
    pub(super) fn due(&self, keys: Option<&Keys>, now: Timestamp) -> Option<Timestamp> {
        let Some(newest) = keys.and_then(|keys| keys.valid().next_back()) else {
            // The first, or all others are revoked: it is needed at once.
            return Some(now);
        };
        let ahead = self.rotate_every?.saturating_sub(self.activation_delay);
        let due = newest.stored.activates.saturating_add(ahead) <= now;
        due.then(|| now.saturating_add(self.activation_delay))
    }
}
