//! Wall-clock time as this crate keeps it: milliseconds since the Unix epoch.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch.
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

/// Where the cache reads the wall clock: token expiry, lifetimes and freshness follow it.
///
/// The system's clock is read to the tick (a few milliseconds) where the platform has a cheap way
/// to, because a precise reading is slow on some virtual machines, and each hit needs one. A tick
/// is added, so that it is behind, and a token served past its expiry, only by as much as a
/// machine that is short of CPU time ticks late.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<AtomicU64>>);

impl Clock {
    /// The system's wall clock.
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands still until [`advance`](Clock::advance) moves it, for tests. Clones
    /// show the same time.
    pub fn manual(start: Timestamp) -> Self {
        Self(Some(Arc::new(AtomicU64::new(start.as_millis()))))
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            None => coarse::now(),
            Some(time) => Timestamp::from_millis(time.load(Ordering::Relaxed)),
        }
    }

    /// Sets a manual clock to another time, as an operator or a time service does; the system's clock
    /// stays as it is.
    pub fn set(&self, to: Timestamp) {
        if let Some(time) = &self.0 {
            time.store(to.as_millis(), Ordering::Relaxed);
        }
    }

    /// Moves a manual clock forward; the system's clock stays as it is.
    pub fn advance(&self, by: Duration) {
        if let Some(time) = &self.0 {
            time.fetch_add(millis(by), Ordering::Relaxed);
        }
    }
}

/// The system's clock, to the next tick.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod coarse {
    use std::sync::LazyLock;

    use rustix::time::{ClockId, Timespec, clock_getres, clock_gettime};

    use super::Timestamp;

    pub(super) fn now() -> Timestamp {
        static TICK: LazyLock<u64> =
            LazyLock::new(|| millis(clock_getres(ClockId::RealtimeCoarse)) + 1);
        Timestamp::from_millis(millis(clock_gettime(ClockId::RealtimeCoarse)) + *TICK)
    }

    fn millis(time: Timespec) -> u64 {
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        seconds * 1000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_coarse_clock_is_hardly_behind_or_ahead() {
            // A machine that is short of CPU time ticks late.
            let tolerance = std::time::Duration::from_millis(500);
            for _ in 0..10_000 {
                let before = Timestamp::now();
                let coarse = now();
                let (ahead, behind) = (coarse.since(before), before.since(coarse));
                assert!(ahead.max(behind) < tolerance, "{ahead:?} {behind:?}");
            }
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod coarse {
    pub(super) use super::Timestamp;

    pub(super) fn now() -> Timestamp {
        Timestamp::now()
    }
}
