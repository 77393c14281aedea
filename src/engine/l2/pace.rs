//! How promptly a shard of the store answers reads, and whether it answers at all.
//!
//! A request that has a usable value in memory, and only has to compare it with L2, waits for that while L2
//! answers: memory may be stale. A shard that answers nothing at all for its *patience* is silent. Then, for
//! a second or until it answers, requests that memory can serve do not wait, and one question at a time finds
//! out whether the shard is back. A request whose partition is known to have changed waits each time, until
//! the breaker opens.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::engine::limits::RECHECK;
use crate::patience::STEPS;

/// The shortest patience: longer than a busy machine takes to answer from nearby.
const LEAST: Duration = Duration::from_millis(25);
/// Round-trips that an answer may take: a question that is lost with its connection, a new connection with
/// TLS and sign-in, and the question again.
const ROUND_TRIPS: u32 = 6;

#[derive(Default)]
pub(crate) struct Pace {
    /// The number of answered questions.
    answers: AtomicU64,
    /// The number of open questions.
    open: AtomicU32,
    /// The smoothed round-trip time.
    round_trip: Mutex<Option<Duration>>,
    /// Until then the shard counts as silent.
    silent_until: Mutex<Option<Instant>>,
}

/// An open question.
pub(crate) struct Question<'a> {
    pace: &'a Pace,
    asked: Instant,
}

impl Pace {
    pub(crate) fn ask(&self) -> Question<'_> {
        self.open.fetch_add(1, Ordering::AcqRel);
        Question {
            pace: self,
            asked: Instant::now(),
        }
    }

    /// `Some` while the shard is silent; the bool says whether no question is open, so that one is to be
    /// asked.
    pub(crate) fn short_circuits(&self) -> Option<bool> {
        let until = (*self.silent_until.lock())?;
        let silent = Instant::now() < until;
        silent.then(|| self.open.load(Ordering::Acquire) == 0)
    }

    /// Waits until the shard is silent, in steps of `sleep`: the caller's runtime, if any, gives the timer.
    pub(crate) async fn silence<S: Future>(
        &self,
        longest: Duration,
        sleep: impl Fn(Duration) -> S,
    ) {
        let patience = self.patience(longest);
        let mut heard = self.answers.load(Ordering::Acquire);
        let mut steps = 0;
        while steps < STEPS {
            sleep(patience / STEPS).await;
            let answers = self.answers.load(Ordering::Acquire);
            match std::mem::replace(&mut heard, answers) == answers {
                true => steps += 1,
                false => steps = 0,
            }
        }
        self.is_silent();
    }

    fn patience(&self, longest: Duration) -> Duration {
        let round_trip = *self.round_trip.lock();
        let patience = round_trip.map(|one| LEAST.max(one.saturating_mul(ROUND_TRIPS)));
        patience.unwrap_or(longest).min(longest)
    }

    fn is_silent(&self) {
        *self.silent_until.lock() = Some(Instant::now() + RECHECK);
    }
}

impl Question<'_> {
    /// The shard answered, whatever the answer.
    pub(crate) fn answered(self) {
        let took = self.asked.elapsed();
        let mut round_trip = self.pace.round_trip.lock();
        *round_trip = Some(round_trip.map_or(took, |smoothed| (smoothed * 7 + took) / 8));
        *self.pace.silent_until.lock() = None;
        self.pace.answers.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn unanswered(self) {
        self.pace.is_silent();
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.pace.open.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_millis(250);

    async fn after(pace: &Pace, round_trip: Duration) {
        let question = pace.ask();
        tokio::time::sleep(round_trip).await;
        question.answered();
    }

    #[tokio::test(start_paused = true)]
    async fn patience_grows_with_the_distance_up_to_a_limit() {
        let ms = Duration::from_millis;
        let pace = Pace::default();
        assert_eq!(pace.patience(LONGEST), LONGEST, "nothing is known yet");
        for (round_trip, patience) in [(ms(1), ms(25)), (ms(20), ms(120)), (ms(90), LONGEST)] {
            let pace = Pace::default();
            for _ in 0..3 {
                after(&pace, round_trip).await;
            }
            assert_eq!(pace.patience(LONGEST), patience);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_one_that_answers_nothing_is_silent_and_for_a_second() {
        let pace = Pace::default();
        after(&pace, Duration::from_millis(1)).await;
        let started = Instant::now();
        let answers = async {
            for _ in 0..10 {
                after(&pace, Duration::from_millis(10)).await;
            }
        };
        tokio::join!(pace.silence(LONGEST, tokio::time::sleep), answers);
        assert!(started.elapsed() >= Duration::from_millis(100 + 25));

        assert_eq!(pace.short_circuits(), Some(true));
        let question = pace.ask();
        assert_eq!(pace.short_circuits(), Some(false), "somebody asks");
        drop(question);
        tokio::time::advance(RECHECK).await;
        assert_eq!(
            pace.short_circuits(),
            None,
            "it may be back: the next one waits again"
        );
        pace.ask().unanswered();
        assert_eq!(pace.short_circuits(), Some(true));
        pace.ask().answered();
        assert_eq!(pace.short_circuits(), None);
    }
}
