//! How promptly a shard of the store answers reads, and whether it answers at all.
//!
//! Who has a usable value in memory, and only has to compare it with L2, waits for that while L2
//! answers: then what memory has may be out of date. A shard that answers nothing at all for its
//! *patience* is silent. For a second then, or until it answers, those whom memory can serve go on
//! at once, and one question at a time finds out whether it is back. Those whose entry is known to
//! have changed wait each time, until the breaker is open.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::engine::limits::RECHECK;
use crate::patience::STEPS;

/// The least patience: longer than a busy machine takes to answer from nearby.
const LEAST: Duration = Duration::from_millis(25);
/// Round-trips that a shard may take: a question that is lost with its connection, a new one, which
/// is encrypted and signed in to, and the question again.
const ROUND_TRIPS: u32 = 6;

#[derive(Default)]
pub(crate) struct Pace {
    /// Questions that were answered.
    answers: AtomicU64,
    /// Those that are not yet.
    open: AtomicU32,
    /// Smoothed.
    round_trip: Mutex<Option<Duration>>,
    /// Until when nobody waits.
    silent_until: Mutex<Option<Instant>>,
}

/// A question that is not answered yet.
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

    /// Whether it is silent; then also whether nobody is asking.
    pub(crate) fn short_circuits(&self) -> Option<bool> {
        let until = (*self.silent_until.lock())?;
        let silent = Instant::now() < until;
        silent.then(|| self.open.load(Ordering::Acquire) == 0)
    }

    /// Waits until it is silent, with a `sleep` that the caller's runtime, or none, allows.
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
    /// With whatever answer.
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
