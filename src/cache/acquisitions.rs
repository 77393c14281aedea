//! `Acquisitions`: when and how tokens are acquired.

use std::time::Duration;

use crate::error::ConfigError;
use crate::time::setting;

/// When tokens are acquired, and how many calls to the provider that makes.
///
/// ```
/// use std::time::Duration;
/// use tower_token_cache::Acquisitions;
///
/// let careful = Acquisitions::new().timeout(Duration::from_secs(20)).max(16);
/// # let _ = careful;
/// ```
#[derive(Clone, Debug)]
#[must_use = "it has no effect until it is given to `Builder::acquisitions`"]
pub struct Acquisitions {
    pub(crate) refresh_before: Duration,
    pub(crate) timeout: Duration,
    pub(crate) lease_ttl: Duration,
    pub(crate) max: u32,
}

impl Acquisitions {
    /// Defaults to 64 calls at a time, a minute each, five minutes before a token's expiry, and to leases of
    /// 30 s.
    pub fn new() -> Self {
        Self {
            refresh_before: Duration::from_secs(300),
            timeout: Duration::from_secs(60),
            lease_ttl: Duration::from_secs(30),
            max: 64,
        }
    }

    /// How long before its expiry a token is replaced: it is served at once, and its successor is acquired in
    /// the background, by one instance. A jitter of ±10 %, fixed per token and instance, spreads the
    /// instances and users. A refresh time that the provider gives has precedence; a token with a short
    /// lifetime is replaced in its last fifth. Defaults to 5 minutes, in which an outage of the provider goes
    /// unnoticed.
    pub fn refresh_before(mut self, time: Duration) -> Self {
        self.refresh_before = setting(time);
        self
    }

    /// How long an acquisition may wait for its call to the provider, and how long that call may then take:
    /// above 0. The error of both is [`TimedOut`](crate::AcquireErrorKind::TimedOut). The wait does not
    /// shorten the call: a call that has begun may have spent the refresh token. While another instance has
    /// the lease, the wait may take up to [`lease_ttl`](Self::lease_ttl) longer, as that instance may have
    /// died. Defaults to 60 s: a provider that answers later has lost the browser. Keep the timeout of your
    /// own HTTP client below it.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = setting(timeout);
        self
    }

    /// How long a lease, the right to acquire a token, outlives an instance that dies with it: at least 10 ms.
    /// It is renewed every third of that time. Defaults to 30 s: shorter pauses of a process go unnoticed.
    pub fn lease_ttl(mut self, ttl: Duration) -> Self {
        self.lease_ttl = setting(ttl);
        self
    }

    /// How many calls to the provider this instance makes at a time: above 0. Defaults to 64: some hundreds a
    /// second, below what providers allow.
    ///
    /// A call counts only while it runs. Calls that a request waits for go first. At most a quarter of the
    /// slots goes to refreshes ahead of need, and at most a quarter to one partition, unless it is an
    /// [application's](crate::PartitionKey::application). Partitions take turns. A call whose waiting
    /// requests have all given up before it began is not made.
    ///
    /// A call that has taken a second no longer counts, until there are seven times as many such calls as
    /// this number: a provider that hangs does not stop the users of another one. So at most eight times as
    /// many calls are open, 512 by default.
    ///
    /// Up to 16,384 acquisitions wait or are under way, of these 4,096 ahead of need and 1,024 of one
    /// partition (some 4 KB each, besides the requests that wait for them). Beyond that the answer is
    /// [`Error::Overloaded`](crate::Error::Overloaded) at once.
    pub fn max(mut self, calls: u32) -> Self {
        self.max = calls;
        self
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if self.timeout.is_zero() {
            return Err(ConfigError::new("Acquisitions::timeout", "must be above 0"));
        }
        if self.lease_ttl < Duration::from_millis(10) {
            return Err(ConfigError::new(
                "Acquisitions::lease_ttl",
                "must be at least 10 milliseconds",
            ));
        }
        if self.max == 0 {
            return Err(ConfigError::new("Acquisitions::max", "must be above 0"));
        }
        Ok(())
    }
}

impl Default for Acquisitions {
    fn default() -> Self {
        Self::new()
    }
}
