//! Where both times are read.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::{Moment, Timestamp, millis};
use crate::mutation::{self, Mutation};

/// By how much the two clocks may move apart before that is a step or a sleep.
const STEP: i64 = 1000;
/// The first moment, so that there are long past ones: 35 years.
const FIRST: NonZeroU64 = NonZeroU64::MIN.saturating_add(1 << 40);

/// Where the cache reads the time: of the wall clock, which tokens and records end by, and of a clock
/// that only ever goes on, which tells how old what it knows is and when a pause is over. Setting the wall
/// clock changes nothing of the second, with one exception.
///
/// A machine that sleeps, or is stopped as a virtual one, may find on waking that the second clock has
/// stood still. The wall clock tells then: where it has gone ahead by more than a second, that much
/// time counts as passed, what is in memory is compared with L2 before it is used, and leases
/// are taken to be lost. So does a wall clock that is set ahead by hand, which costs some
/// questions.
///
/// The system's clocks are read to the tick (a few milliseconds) where the platform has a cheap way
/// to, because a precise reading is slow on some virtual machines, and each hit needs one. A tick
/// is added, so that it is behind, and a token served past its expiry, only by as much as a
/// machine that is short of CPU time ticks late.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<Manual>>);

/// One look at both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) wall: Timestamp,
    pub(crate) moment: Moment,
    /// How often the machine may have slept.
    pub(crate) sleeps: u32,
}

impl Now {
    /// The moment so long ago.
    pub(crate) fn ago(self, time: Duration) -> Moment {
        self.moment.saturating_sub(time)
    }

    /// When that moment was by the wall clock, as it is set now.
    pub(crate) fn wall_at(self, moment: Moment) -> Timestamp {
        self.wall.saturating_sub(self.moment.since(moment))
    }

    /// The moment of that time by the wall clock, as it is set now; the present one for a later time.
    pub(crate) fn moment_at(self, wall: Timestamp) -> Moment {
        self.ago(self.wall.since(wall))
    }
}

/// A clock that tests move.
#[derive(Debug)]
struct Manual {
    wall: AtomicU64,
    ran: AtomicU64,
    sleep: Sleep,
}

/// How long the machine may have slept, as the two clocks tell.
#[derive(Debug)]
struct Sleep {
    /// By how much the wall clock was ahead of the other when they were last compared.
    ahead: AtomicI64,
    total: AtomicU64,
    count: AtomicU32,
    stepping: Mutex<()>,
}

impl Sleep {
    fn new((wall, ran): (u64, u64)) -> Self {
        Self {
            ahead: AtomicI64::new(ahead(wall, ran)),
            total: AtomicU64::new(0),
            count: AtomicU32::new(0),
            stepping: Mutex::new(()),
        }
    }

    /// The time now by these two clocks.
    #[inline]
    fn now(&self, read: impl Fn() -> (u64, u64)) -> Now {
        let (mut wall, mut ran) = read();
        let known = self.ahead.load(Ordering::Acquire);
        if (ahead(wall, ran) - known).abs() > STEP {
            (wall, ran) = self.step(read);
        }
        let passed = ran.saturating_add(self.total.load(Ordering::Relaxed));
        Now {
            wall: Timestamp::from_millis(wall),
            moment: Moment(FIRST.saturating_add(passed)),
            sleeps: self.count.load(Ordering::Relaxed),
        }
    }

    #[cold]
    fn step(&self, read: impl Fn() -> (u64, u64)) -> (u64, u64) {
        let _alone = self.stepping.lock();
        // Once more: others may have noticed the same, or this thread was kept from its second look.
        let (wall, ran) = read();
        let now = ahead(wall, ran);
        let step = now - self.ahead.load(Ordering::Relaxed);
        if step > STEP && !mutation::is(Mutation::SleepUnnoticed) {
            self.total.fetch_add(step.unsigned_abs(), Ordering::Relaxed);
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        if step.abs() > STEP {
            self.ahead.store(now, Ordering::Release);
        }
        (wall, ran)
    }
}

fn ahead(wall: u64, ran: u64) -> i64 {
    // Both are far from where this could wrap, but for a manual clock at the end of time.
    wall.wrapping_sub(ran).cast_signed()
}

impl Clock {
    /// The system's clocks.
    pub fn system() -> Self {
        Self(None)
    }

    /// Clocks that stand still until [`advance`](Clock::advance) moves them, for tests. Clones
    /// show the same time.
    pub fn manual(start: Timestamp) -> Self {
        let start = start.as_millis();
        Self(Some(Arc::new(Manual {
            wall: AtomicU64::new(start),
            ran: AtomicU64::new(0),
            sleep: Sleep::new((start, 0)),
        })))
    }

    /// What the wall clock shows.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            None => Timestamp::from_millis(system::wall()),
            Some(manual) => Timestamp::from_millis(manual.wall.load(Ordering::Relaxed)),
        }
    }

    /// How long the machine has been up, by a clock that all its processes share, that runs on while it
    /// sleeps, and that cannot be set. Where there is none, by the wall clock.
    #[cfg(feature = "sqlite")]
    pub(crate) fn uptime(&self) -> Duration {
        Duration::from_millis(match &self.0 {
            None => system::uptime(),
            Some(manual) => manual.ran.load(Ordering::Relaxed),
        })
    }

    /// Both times.
    #[inline]
    pub(crate) fn read(&self) -> Now {
        match &self.0 {
            None => system::sleep().now(system::read),
            Some(manual) => manual.sleep.now(|| manual.read()),
        }
    }

    /// How often the machine may have slept.
    pub(crate) fn sleeps(&self) -> u32 {
        self.read().sleeps
    }

    /// Sets a manual wall clock to another time, as an operator or a time service does, and nothing else;
    /// the system's clock stays as it is. Ahead is also what a machine sees that has slept.
    pub fn set(&self, to: Timestamp) {
        if let Some(manual) = &self.0 {
            manual.wall.store(to.as_millis(), Ordering::Relaxed);
        }
    }

    /// Time passes on a manual clock; the system's clock stays as it is.
    pub fn advance(&self, by: Duration) {
        if let Some(manual) = &self.0 {
            manual.wall.fetch_add(millis(by), Ordering::Relaxed);
            manual.ran.fetch_add(millis(by), Ordering::Relaxed);
        }
    }

    /// Time passes on a manual clock whose wall clock stands still; the system's clock stays as it is.
    pub fn advance_frozen(&self, by: Duration) {
        if let Some(manual) = &self.0 {
            manual.ran.fetch_add(millis(by), Ordering::Relaxed);
        }
    }
}

impl Manual {
    fn read(&self) -> (u64, u64) {
        (
            self.wall.load(Ordering::Relaxed),
            self.ran.load(Ordering::Relaxed),
        )
    }
}

/// The system's clocks, in milliseconds.
mod system {
    use std::sync::LazyLock;

    use super::Sleep;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(super) use super::precise::{ran, wall};

    pub(super) fn read() -> (u64, u64) {
        (wall(), ran())
    }

    #[inline]
    pub(super) fn sleep() -> &'static Sleep {
        static SLEEP: LazyLock<Sleep> = LazyLock::new(|| Sleep::new(read()));
        &SLEEP
    }

    /// To the next tick.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(super) fn wall() -> u64 {
        use rustix::time::{ClockId, clock_getres};
        static TICK: LazyLock<u64> =
            LazyLock::new(|| millis(clock_getres(ClockId::RealtimeCoarse)) + 1);
        coarse(ClockId::RealtimeCoarse) + *TICK
    }

    /// Stands still while the machine sleeps.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn ran() -> u64 {
        coarse(rustix::time::ClockId::MonotonicCoarse)
    }

    #[cfg(all(feature = "sqlite", any(target_os = "linux", target_os = "android")))]
    pub(super) fn uptime() -> u64 {
        millis(rustix::time::clock_gettime(rustix::time::ClockId::Boottime))
    }

    #[cfg(all(
        feature = "sqlite",
        not(any(target_os = "linux", target_os = "android"))
    ))]
    pub(super) fn uptime() -> u64 {
        wall()
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn coarse(clock: rustix::time::ClockId) -> u64 {
        millis(rustix::time::clock_gettime(clock))
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn millis(time: rustix::time::Timespec) -> u64 {
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        seconds * 1000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod precise {
    use std::sync::LazyLock;
    use std::time::Instant;

    use crate::time::{Timestamp, millis};

    pub(super) fn wall() -> u64 {
        Timestamp::now().as_millis()
    }

    pub(super) fn ran() -> u64 {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        millis(START.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn the_systems_clock_is_hardly_behind_or_ahead() {
        // A machine that is short of CPU time ticks late.
        let tolerance = Duration::from_millis(500);
        let first = Clock::system().read();
        for _ in 0..10_000 {
            let before = Timestamp::now();
            let coarse = Clock::system().now();
            let (ahead, behind) = (coarse.since(before), before.since(coarse));
            assert!(ahead.max(behind) < tolerance, "{ahead:?} {behind:?}");
        }
        let last = Clock::system().read();
        assert!(last.moment >= first.moment && last.sleeps == first.sleeps);
    }

    #[test]
    fn a_wall_clock_that_is_set_back_or_stands_still_changes_no_moment() {
        let clock = Clock::manual(Timestamp::now());
        let first = clock.read();
        clock.set(first.wall.saturating_sub(HOUR));
        assert_eq!(clock.read().moment, first.moment);
        clock.advance_frozen(HOUR);
        let later = clock.read();
        assert_eq!(later.moment.since(first.moment), HOUR);
        assert_eq!(later.sleeps, first.sleeps);
    }

    #[test]
    fn what_the_wall_clock_is_ahead_has_passed_once() {
        let clock = Clock::manual(Timestamp::now());
        let first = clock.read();
        // A time service corrects by little.
        clock.set(first.wall.saturating_add(Duration::from_secs(1)));
        assert_eq!(clock.read().moment, first.moment);
        clock.set(first.wall.saturating_add(HOUR));
        for _ in 0..2 {
            let later = clock.read();
            assert_eq!(later.moment.since(first.moment), HOUR);
            assert_eq!(later.sleeps, first.sleeps + 1);
        }
    }
}
