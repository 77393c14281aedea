//! `L1`: the settings of the in-memory cache.

use std::time::Duration;

use crate::error::ConfigError;
use crate::time::setting;

/// Settings of the in-memory cache.
///
/// ```
/// use tower_token_cache::L1;
///
/// let l1 = L1::new().max_bytes(64 << 20).expiration_ratio(0.5);
/// # let _ = l1;
/// ```
#[derive(Clone, Debug)]
#[must_use = "it has no effect until it is given to `Builder::l1`"]
pub struct L1 {
    pub(crate) max_bytes: Option<u64>,
    pub(crate) expiration_ratio: f64,
    pub(crate) revalidate_every: Option<Duration>,
    pub(crate) max_staleness: Option<Duration>,
}

impl L1 {
    /// Defaults to 500 MiB: about 65,000 users of 7 KB.
    pub fn new() -> Self {
        Self {
            max_bytes: Some(500 * 1024 * 1024),
            expiration_ratio: 1.0,
            revalidate_every: Some(Duration::from_secs(10)),
            max_staleness: Some(Duration::from_secs(60)),
        }
    }

    /// Keeps nothing in memory between requests: every request asks L2. Requests for one partition at the
    /// same time still share one read.
    pub fn disabled() -> Self {
        Self {
            max_bytes: None,
            ..Self::new()
        }
    }

    /// The memory that L1 may use, in bytes, index and allocator overhead included. When it is full, a new
    /// user is admitted, and the one used least recently is evicted; recency is tracked to 1/16 of L1.
    /// Defaults to 500 MiB.
    pub fn max_bytes(mut self, max_bytes: u64) -> Self {
        self.max_bytes = Some(max_bytes);
        self
    }

    /// How long a partition is served from L1 before L2 is asked again, as a part of its remaining lifetime
    /// in L2: in (0, 1]. Defaults to 1: as long as it lives.
    pub fn expiration_ratio(mut self, ratio: f64) -> Self {
        self.expiration_ratio = ratio;
        self
    }

    /// Where the store has no [feed](crate::store::FeedEvent): how often a partition in use is compared with
    /// L2 in the background, so that changes by other instances are seen; `None` is never. Requests do not
    /// wait for it. Defaults to 10 s: one question in ten seconds for a busy user, and none for the others.
    pub fn revalidate_every(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.revalidate_every = interval.into().map(setting);
        self
    }

    /// Where the store has no [feed](crate::store::FeedEvent): for how long a partition is served without
    /// being compared with L2; a later request waits for that. `None` is without bound. Defaults to 60 s: the
    /// longest that a sign-out on another instance goes unnoticed.
    pub fn max_staleness(mut self, bound: impl Into<Option<Duration>>) -> Self {
        self.max_staleness = bound.into().map(setting);
        self
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if !(self.expiration_ratio > 0.0 && self.expiration_ratio <= 1.0) {
            return Err(ConfigError::new(
                "L1::expiration_ratio",
                "must be above 0 and at most 1",
            ));
        }
        if self.max_bytes == Some(0) {
            return Err(ConfigError::new(
                "L1::max_bytes",
                "must be above 0; use L1::disabled() to switch L1 off",
            ));
        }
        if self.revalidate_every == Some(Duration::ZERO) {
            return Err(ConfigError::new("L1::revalidate_every", "must be above 0"));
        }
        if self.max_staleness == Some(Duration::ZERO) {
            return Err(ConfigError::new("L1::max_staleness", "must be above 0"));
        }
        Ok(())
    }
}

impl Default for L1 {
    fn default() -> Self {
        Self::new()
    }
}
