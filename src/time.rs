//! The two times of this crate, which are not compared with each other.
//!
//! [`Timestamp`] is what the wall clock shows: when tokens, records and keys end, and all that other
//! instances are told. [`Moment`] is time that passes here, whatever happens to the wall clock: how
//! old knowledge is, and how long something is left alone.

mod clock;

use std::fmt;
use std::num::NonZeroU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use self::clock::Clock;
pub(crate) use self::clock::Now;

/// Milliseconds since the Unix epoch. With feature `serde` it is `Serialize`, as their number.
///
/// An `Option` of it is no larger.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(NonZeroU64); // one more than the milliseconds

impl Timestamp {
    /// The end of representable time.
    pub const MAX: Self = Self(NonZeroU64::MAX);

    /// From milliseconds since the Unix epoch, at most [`MAX`](Self::MAX).
    pub const fn from_millis(millis: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(millis))
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0.get() - 1
    }

    /// The current wall-clock time.
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// This instant plus `duration`, at most the end of representable time.
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// This instant minus `duration`, at least the epoch.
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self::from_millis(self.as_millis().saturating_sub(millis(duration)))
    }

    /// The time from `earlier` to this instant, zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.as_millis().saturating_sub(earlier.as_millis()))
    }
}

/// The Unix epoch.
impl Default for Timestamp {
    fn default() -> Self {
        Self::from_millis(0)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.as_millis())
    }
}

/// Milliseconds since the Unix epoch, as a number.
#[cfg(feature = "serde")]
impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(self.as_millis())
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self::from_millis(time.duration_since(UNIX_EPOCH).map_or(0, millis))
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        UNIX_EPOCH
            .checked_add(Duration::from_millis(time.as_millis()))
            .unwrap_or(UNIX_EPOCH)
    }
}

/// A duration in whole milliseconds, saturating.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The longest time that a setting is taken for: longer than anything lives, and short enough that
/// every sum of times and every store can say when it ends.
const LONGEST: Duration = Duration::from_secs(1000 * 365 * 24 * 3600);

/// A setting as calculations take it: what is longer than [`LONGEST`] is as long as that.
pub(crate) fn setting(time: Duration) -> Duration {
    time.min(LONGEST)
}

/// A moment of this process, in milliseconds. An `Option` of it is no larger.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(NonZeroU64);

impl Moment {
    /// After all others.
    pub(crate) const MAX: Self = Self(NonZeroU64::MAX);

    pub(crate) fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    pub(crate) fn saturating_sub(self, duration: Duration) -> Self {
        let before = self.0.get().saturating_sub(millis(duration));
        Self(NonZeroU64::new(before).unwrap_or(NonZeroU64::MIN))
    }

    pub(crate) const fn as_millis(self) -> u64 {
        self.0.get()
    }

    /// A moment that was kept as a number; 0 is long before all others.
    pub(crate) fn from_millis(millis: u64) -> Self {
        Self(NonZeroU64::new(millis).unwrap_or(NonZeroU64::MIN))
    }

    /// The time from `earlier` to this, zero when `earlier` is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.get().saturating_sub(earlier.0.get()))
    }
}

/// Long before all others.
impl Default for Moment {
    fn default() -> Self {
        Self(NonZeroU64::MIN)
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}
