//! `Timeouts`: how long the store may take.

use std::fmt;
use std::time::Duration;

use crate::error::ConfigError;
use crate::time::setting;

const ATTEMPT: Duration = Duration::from_millis(250);

/// How long L2 may take.
///
/// ```
/// use std::time::Duration;
/// use tower_token_cache::Timeouts;
///
/// let far_away = Timeouts::new()
///     .attempt(Duration::from_millis(500))
///     .operation(Duration::from_secs(2));
/// # let _ = far_away;
/// ```
#[derive(Clone)]
#[must_use = "it has no effect until it is given to `Builder::timeouts`"]
pub struct Timeouts {
    attempt: Option<Duration>,
    pub(crate) operation: Duration,
}

impl Timeouts {
    /// Defaults to 250 ms for one attempt, and to 1 s for all attempts together.
    pub fn new() -> Self {
        Self {
            attempt: None,
            operation: Duration::from_secs(1),
        }
    }

    /// How long one attempt at an L2 operation may take: above 0, and at most
    /// [`operation`](Self::operation). Defaults to 250 ms, or to `operation` if that is less: hundreds of times what a healthy Redis needs, and a
    /// pause that a user hardly notices. It is measured in five steps that are waited for one by one, so that
    /// an overloaded process does not take its own delay for the store's. In SQL databases, over compare-and-set
    /// ([`CasAdapter`](crate::store::CasAdapter)) and between two stores ([`MigratingStore`](crate::store::MigratingStore)) an
    /// operation takes several round-trips, and this is for each of them.
    pub fn attempt(mut self, timeout: Duration) -> Self {
        self.attempt = Some(setting(timeout));
        self
    }

    /// How long a call waits for L2, all attempts included: every call of [`Tokens`](crate::Tokens) and
    /// [`TokenCache`](crate::TokenCache) ends some 50 ms after it at the latest, also one of several steps.
    /// Such a call goes on in the background, and its answer is that the outcome is not known. All steps of an acquisition
    /// share this time: a read, the lease, a read under it, and the commit. Once it is used up, what is left is done without
    /// L2, or fails, as the [policy](crate::FailurePolicy) says. On top come its [call](crate::Acquisitions::timeout), and before
    /// that another instance's [lease](crate::Acquisitions::lease_ttl). An L2 that answers others meanwhile is busy, and not
    /// away: an acquisition waits for its lease up to `lease_ttl` then, and fails rather than redeem a refresh token without
    /// one. Defaults to 1 s: four attempts, and no longer than a
    /// user waits. Where L2 is farther away, set it to four attempts or more.
    pub fn operation(mut self, timeout: Duration) -> Self {
        self.operation = setting(timeout);
        self
    }

    pub(crate) fn attempt_time(&self) -> Duration {
        self.attempt.unwrap_or(ATTEMPT.min(self.operation))
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if self.operation.is_zero() {
            return Err(ConfigError::new("Timeouts::operation", "must be above 0"));
        }
        if self.attempt_time().is_zero() || self.attempt_time() > self.operation {
            return Err(ConfigError::new(
                "Timeouts::attempt",
                "must be above 0 and at most `Timeouts::operation`",
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for Timeouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeouts")
            .field("attempt", &self.attempt_time())
            .field("operation", &self.operation)
            .finish()
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self::new()
    }
}
