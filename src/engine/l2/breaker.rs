//! The circuit breaker around L2: after some failures no request waits for a store that is down.

use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::random;

/// Failures in a row that open the breaker.
const THRESHOLD: u32 = 5;
/// How long the breaker stays open at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A probe that is overdue by this much was not made because there was no request. The store may have been
/// back for long.
const OVERDUE: Duration = Duration::from_secs(1);

/// Whether L2 is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum BreakerState {
    /// By every request.
    #[default]
    Closed,
    /// By none: it has not answered several times in a row. A refusal is an answer.
    Open,
    /// By one request, the probe. Its outcome decides.
    HalfOpen,
}

impl BreakerState {
    /// The value of `state` in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// Closed: every request may ask the store. Open: none may. Half-open: one probe may, and its outcome
/// decides.
#[derive(Debug, Default)]
pub(crate) struct Breaker(Mutex<Circuit>);

#[derive(Debug, Default)]
struct Circuit {
    failures: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    /// The time of the store's last failure.
    since: Instant,
    until: Instant,
    pause: Duration,
    probing: bool,
}

/// Permission to ask the store once. Dropped without an outcome, it counts neither as an answer nor as a
/// failure.
#[derive(Debug)]
pub(crate) struct Attempt<'a> {
    breaker: &'a Breaker,
    probe: bool,
}

impl Breaker {
    /// Permission to ask the store now; `None` while the breaker rejects it.
    pub(crate) fn attempt(&self) -> Option<Attempt<'_>> {
        let mut state = self.lock();
        let probe = match &mut state.open {
            None => false,
            Some(open) if !open.probing && Instant::now() >= open.until => {
                open.probing = true;
                true
            }
            Some(_) => return None,
        };
        Some(Attempt {
            breaker: self,
            probe,
        })
    }

    pub(crate) fn state(&self) -> BreakerState {
        match &self.lock().open {
            None => BreakerState::Closed,
            Some(open) if open.probing || Instant::now() >= open.until => BreakerState::HalfOpen,
            Some(_) => BreakerState::Open,
        }
    }

    /// `Some` while the breaker rejects calls, and has been probed recently enough; the bool says whether a
    /// probe is due, to be made in the background.
    pub(crate) fn short_circuits(&self) -> Option<bool> {
        let state = self.lock();
        let open = state.open.as_ref()?;
        let now = Instant::now();
        let overdue = !open.probing && now >= open.until + OVERDUE;
        (!overdue).then_some(!open.probing && now >= open.until)
    }

    /// Whether the breaker rejects calls now.
    pub(crate) fn is_open(&self) -> bool {
        let closed_to = |open: &Open| open.probing || Instant::now() < open.until;
        self.lock().open.as_ref().is_some_and(closed_to)
    }

    /// The store may be back. A probe is due as soon as after the first failures: at once, if the last
    /// failure was longer ago.
    pub(crate) fn probe_soon(&self) {
        if let Some(open) = &mut self.lock().open {
            open.pause = FIRST_PAUSE;
            open.until = open.until.min(open.since + FIRST_PAUSE);
        }
    }

    /// The store answers calls of the other kind. Once the pause is over, every request may ask again; the
    /// next failure opens the breaker.
    pub(crate) fn relent(&self) {
        let mut state = self.lock();
        let due = |open: &Open| !open.probing && Instant::now() >= open.until;
        if state.open.as_ref().is_some_and(due) {
            *state = Circuit {
                failures: THRESHOLD - 1,
                open: None,
            };
        }
    }

    /// Closes the breaker.
    pub(crate) fn reset(&self) {
        *self.lock() = Circuit::default();
    }

    fn lock(&self) -> MutexGuard<'_, Circuit> {
        self.0.lock()
    }
}

impl Attempt<'_> {
    /// The store answered. Returns whether that has closed the breaker.
    pub(crate) fn succeeded(self) -> bool {
        let mut state = self.breaker.lock();
        // An answer to a call from before the breaker opened says nothing about the store now.
        if !self.probe && state.open.is_some() {
            return false;
        }
        std::mem::take(&mut *state).open.is_some()
    }

    /// The store did not answer. Returns whether that has opened the breaker, which was closed.
    pub(crate) fn failed(self) -> bool {
        let mut state = self.breaker.lock();
        state.failures += 1;
        let pause = match &state.open {
            Some(open) if self.probe => (open.pause * 2).min(LONGEST_PAUSE),
            None if state.failures >= THRESHOLD => FIRST_PAUSE,
            _ => return false,
        };
        let now = Instant::now();
        let before = state.open.replace(Open {
            since: now,
            until: now + random::jittered(pause, random::SLIGHTLY),
            pause,
            probing: false,
        });
        before.is_none()
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.probe
            && let Some(open) = &mut self.breaker.lock().open
        {
            open.probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(breaker: &Breaker) {
        breaker.attempt().expect("may ask").failed();
    }

    /// A breaker that has reached its longest pause.
    async fn long_open() -> Breaker {
        let breaker = Breaker::default();
        for _ in 0..5 {
            fail(&breaker);
        }
        for _ in 0..10 {
            tokio::time::advance(Duration::from_secs(34)).await;
            fail(&breaker);
        }
        breaker
    }

    #[tokio::test(start_paused = true)]
    async fn opens_after_five_failures_and_probes_once_after_a_pause() {
        let breaker = Breaker::default();
        for _ in 0..4 {
            fail(&breaker);
        }
        breaker.attempt().expect("may ask").succeeded();
        for _ in 0..5 {
            fail(&breaker);
        }
        assert!(breaker.attempt().is_none());

        tokio::time::advance(Duration::from_millis(1200)).await;
        let probe = breaker.attempt().expect("half-open");
        assert!(breaker.attempt().is_none(), "one probe at a time");
        drop(probe);
        let probe = breaker
            .attempt()
            .expect("an abandoned probe strands nobody");
        probe.failed();

        tokio::time::advance(Duration::from_millis(1700)).await;
        assert!(breaker.attempt().is_none(), "the pause has doubled");
        tokio::time::advance(Duration::from_millis(600)).await;
        breaker.attempt().expect("may ask").succeeded();
        assert!(breaker.attempt().is_some());
        assert!(breaker.attempt().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_sign_of_life_ends_the_pause_but_for_its_first_second() {
        let breaker = long_open().await;
        tokio::time::advance(Duration::from_millis(900)).await;
        breaker.probe_soon();
        assert!(breaker.attempt().is_none(), "it has failed just now");
        tokio::time::advance(Duration::from_millis(100)).await;
        fail(&breaker);
        // The store was not back: the pauses begin anew.
        tokio::time::advance(Duration::from_millis(1700)).await;
        assert!(breaker.attempt().is_none());
        tokio::time::advance(Duration::from_millis(600)).await;
        breaker.attempt().expect("may ask").succeeded();
        breaker.probe_soon();
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn it_says_when_it_opens_and_closes_and_what_nobody_asked_for_long_is_waited_for() {
        let breaker = Breaker::default();
        let fail = || breaker.attempt().expect("may ask").failed();
        assert_eq!([(); 5].map(|()| fail()), [false, false, false, false, true]);
        assert_eq!(breaker.short_circuits(), Some(false));
        tokio::time::advance(Duration::from_millis(1200)).await;
        assert_eq!(breaker.short_circuits(), Some(true));
        assert!(!fail(), "it was open before");
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(breaker.short_circuits(), None);
        assert!(breaker.attempt().expect("may ask").succeeded());
        assert!(!breaker.attempt().expect("may ask").succeeded());
    }

    #[tokio::test(start_paused = true)]
    async fn the_pause_ends_at_thirty_seconds() {
        let breaker = long_open().await;
        tokio::time::advance(Duration::from_secs(26)).await;
        assert!(breaker.attempt().is_none());
        tokio::time::advance(Duration::from_secs(8)).await;
        assert!(breaker.attempt().is_some());
    }
}
