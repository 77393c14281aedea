//! `Allowance`: how much longer an acquisition waits for L2, in all its steps together.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// An allowance is used up in at least so many steps. A process that stood still, or is busy, does not take its own
/// delay for L2's: a step counts for no more than its length.
const STEPS: u32 = 20;

/// When a part of L2 last answered, whomever. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastAnswer(Arc<Mutex<Option<Instant>>>);

impl LastAnswer {
    pub(crate) fn set(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    pub(crate) fn is_after(&self, moment: Instant) -> bool {
        self.0.lock().is_some_and(|answered| answered > moment)
    }
}

/// The time that is left. It is used up by [`spend`](Self::spend), and not by what happens between two waits, such as
/// the call to the provider.
pub(crate) struct Allowance {
    step: Duration,
    /// Until then nothing is used up while L2 answers others: it is busy, and not away.
    patient_until: Instant,
    state: Mutex<State>,
}

struct State {
    left: Duration,
    /// What was waited for an L2 that answered others.
    deferred: Duration,
    /// Until then another instance is waited for, and not L2.
    paused_until: Option<Instant>,
}

impl Allowance {
    /// `patience` is how long a busy L2 is waited for.
    pub(crate) fn new(time: Duration, patience: Duration) -> Self {
        Self {
            step: time / STEPS,
            patient_until: Instant::now() + patience,
            state: Mutex::new(State {
                left: time,
                deferred: Duration::ZERO,
                paused_until: None,
            }),
        }
    }

    pub(crate) fn left(&self) -> Duration {
        self.state.lock().left
    }

    /// Whether there is time to wait, or another instance is waited for.
    pub(crate) fn lasts(&self) -> bool {
        !self.left().is_zero() || self.is_paused()
    }

    /// How long the next wait may take before it has to [`spend`](Self::spend), or to [`defer`](Self::defer) where L2 is busy.
    pub(crate) fn step(&self, is_busy: bool) -> Duration {
        match is_busy || self.is_paused() {
            true => self.step,
            false => self.step.min(self.left()),
        }
    }

    /// So much of it was spent on waiting.
    pub(crate) fn spend(&self, waited: Duration) {
        if !self.is_paused() {
            let mut state = self.state.lock();
            state.left = state.left.saturating_sub(waited);
        }
    }

    /// Whether an L2 that answers others is waited for.
    pub(crate) fn is_patient(&self) -> bool {
        Instant::now() < self.patient_until
    }

    /// So much was spent on waiting for an L2 that answered others. It is used up if L2 turns out to take no changes.
    pub(crate) fn defer(&self, waited: Duration) {
        if !self.is_paused() {
            self.state.lock().deferred += waited;
        }
    }

    pub(crate) fn spend_deferred(&self) {
        if !self.is_paused() {
            let deferred = std::mem::take(&mut self.state.lock().deferred);
            self.spend(deferred);
        }
    }

    /// No more is left than `left`.
    pub(crate) fn limit(&self, left: Duration) {
        let mut state = self.state.lock();
        state.left = state.left.min(left);
    }

    /// Another instance has the lease for this long, and is waited for: nothing is used up meanwhile.
    pub(crate) fn pause(&self, time: Duration) {
        self.state.lock().paused_until = Some(Instant::now() + time);
    }

    pub(crate) fn is_paused(&self) -> bool {
        let until = self.state.lock().paused_until;
        until.is_some_and(|until| Instant::now() < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_used_up_by_waits_and_not_while_it_is_paused() {
        let ms = Duration::from_millis;
        let allowance = Allowance::new(ms(1000), ms(60_000));
        assert_eq!(allowance.step(false), ms(50));
        allowance.spend(ms(970));
        assert_eq!((allowance.left(), allowance.step(false)), (ms(30), ms(30)));
        allowance.limit(ms(500));
        allowance.pause(ms(100));
        allowance.defer(ms(10));
        allowance.spend(ms(30));
        assert_eq!((allowance.left(), allowance.step(false)), (ms(30), ms(50)));
        tokio::time::advance(ms(100)).await;
        allowance.limit(ms(10));
        assert!(allowance.lasts());
        allowance.spend(ms(50));
        assert_eq!((allowance.step(false), allowance.lasts()), (ms(0), false));
        allowance.pause(ms(1));
        assert!(allowance.lasts());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_deferred_is_used_up_later_or_never() {
        let ms = Duration::from_millis;
        let allowance = Allowance::new(ms(1000), ms(5000));
        allowance.defer(ms(300));
        assert_eq!((allowance.left(), allowance.is_patient()), (ms(1000), true));
        for _ in 0..2 {
            allowance.spend_deferred();
            assert_eq!(allowance.left(), ms(700));
        }
        tokio::time::advance(ms(5000)).await;
        assert!(!allowance.is_patient());
    }
}
