//! `Allowance`: how much longer an acquisition waits for L2, in all its steps together.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// An allowance is used up in at least so many steps. A process that stood still, or is busy, does not take its own
/// delay for L2's: a step counts for no more than its length.
const STEPS: u32 = 20;

/// The time that is left. It is used up by [`spend`](Self::spend), and not by what happens between two waits, such as
/// the call to the provider.
pub(crate) struct Allowance {
    step: Duration,
    state: Mutex<State>,
}

struct State {
    left: Duration,
    /// Until then another instance is waited for, and not L2.
    paused_until: Option<Instant>,
}

impl Allowance {
    pub(crate) fn new(time: Duration) -> Self {
        Self {
            step: time / STEPS,
            state: Mutex::new(State {
                left: time,
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

    /// How long the next wait may take before it has to [`spend`](Self::spend).
    pub(crate) fn step(&self) -> Duration {
        match self.is_paused() {
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
        let allowance = Allowance::new(ms(1000));
        assert_eq!(allowance.step(), ms(50));
        allowance.spend(ms(970));
        assert_eq!((allowance.left(), allowance.step()), (ms(30), ms(30)));
        allowance.limit(ms(500));
        allowance.pause(ms(100));
        allowance.spend(ms(30));
        assert_eq!((allowance.left(), allowance.step()), (ms(30), ms(50)));
        tokio::time::advance(ms(100)).await;
        allowance.limit(ms(10));
        assert!(allowance.lasts());
        allowance.spend(ms(50));
        assert_eq!((allowance.step(), allowance.lasts()), (ms(0), false));
        allowance.pause(ms(1));
        assert!(allowance.lasts());
    }
}
