//! `Lifetimes`: how long a partition lives.

use std::time::Duration;

use crate::error::ConfigError;
use crate::store::Lifetime;
use crate::time::setting;

/// How long a partition lives, and how long it is believed that there is none.
///
/// The earliest end wins. A token's own expiry counts besides. `None` is without end.
///
/// ```
/// use std::time::Duration;
/// use tower_token_cache::Lifetimes;
///
/// const HOUR: Duration = Duration::from_secs(3600);
/// let session = Lifetimes::new().sliding(HOUR).absolute(12 * HOUR);
/// # let _ = session;
/// ```
#[derive(Clone, Debug)]
#[must_use = "it has no effect until it is given to `Builder::lifetimes`"]
pub struct Lifetimes {
    pub(crate) partition: Lifetime,
    pub(crate) negative_entry: Duration,
    /// [`absolute`](Self::absolute) was called, if with `None`: no other default replaces it.
    absolute_is_set: bool,
}

impl Lifetimes {
    /// Defaults to 14 days after the last change, and to 1 s for a negative entry.
    pub fn new() -> Self {
        Self {
            partition: Lifetime {
                since_write: Some(Duration::from_secs(14 * 24 * 3600)),
                ..Lifetime::default()
            },
            negative_entry: Duration::from_secs(1),
            absolute_is_set: false,
        }
    }

    /// How long a partition lives after its last commit: at least 1 ms. Defaults to 14 days, as in the system
    /// this crate follows: a user who comes back weekly stays signed in.
    pub fn after_write(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.partition.since_write = limit.into().map(setting);
        self
    }

    /// How long a partition lives after it was last used: at least 1 ms. Touches are sent to L2 in the
    /// background, at most ten per lifetime. Defaults to `None`, as touches cost L2 work.
    pub fn sliding(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.partition.sliding = limit.into().map(setting);
        self
    }

    /// How long a partition lives after it was created, whatever happens to it: at least 1 ms. What
    /// [`move_to`](crate::Tokens::move_to) moves is in another partition: the time begins anew, as the move belongs to a
    /// sign-in. Defaults to `None`: when a user has to sign in again is for the application to say. Sessions in cookies default to
    /// `CookieStore::MAX_SESSION_AGE`.
    pub fn absolute(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.partition.since_creation = limit.into().map(setting);
        self.absolute_is_set = true;
        self
    }

    /// How long "there is no such token" is believed without asking L2 again. Defaults to 1 s: enough against
    /// bursts, short enough for a sign-in on another instance.
    pub fn negative_entry(mut self, lifetime: Duration) -> Self {
        self.negative_entry = setting(lifetime);
        self
    }

    /// The same with another default of [`absolute`](Self::absolute).
    pub(crate) fn with_default_absolute(mut self, default: Option<Duration>) -> Self {
        if !self.absolute_is_set {
            self.partition.since_creation = default;
        }
        self
    }

    /// The lifetimes as text, to compare two caches of one name: what is set to its default is the default.
    pub(crate) fn fingerprint(&self) -> String {
        format!("{:?} {:?}", self.partition, self.negative_entry)
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let limits = [
            ("Lifetimes::after_write", self.partition.since_write),
            ("Lifetimes::sliding", self.partition.sliding),
            ("Lifetimes::absolute", self.partition.since_creation),
        ];
        for (option, limit) in limits {
            if limit.is_some_and(|limit| limit < Duration::from_millis(1)) {
                return Err(ConfigError::new(option, "must be at least one millisecond"));
            }
        }
        Ok(())
    }
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self::new()
    }
}
