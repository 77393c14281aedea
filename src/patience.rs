//! Waiting for an answer for so long, where this process may be the one that is late.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::race::{Either, race};

/// A limit passes in so many steps. Each is waited for by itself, and the answer is looked for after
/// each: a process that is busy, or was stopped, does not take its own delay for the server's.
pub(crate) const STEPS: u32 = 5;

tokio::task_local! {
    /// The answers that have come to an operation of several round-trips.
    static ANSWERS: Arc<Heard>;
}

/// Counts answers. It is looked at once a step, so that no answer wakes all who wait.
#[derive(Debug, Default)]
pub(crate) struct Answers(AtomicU32);

/// What an operation has heard.
#[derive(Default)]
struct Heard {
    answers: Answers,
    /// Answers to others while it waits for its turn, and how many there were before.
    of_others: Mutex<Option<(Arc<Answers>, u32)>>,
}

/// While it lasts, answers to others count for this operation.
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub(crate) struct Following(Option<Arc<Heard>>);

impl Answers {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Heard {
    fn count(&self) -> u32 {
        let of_others = self.of_others.lock();
        let of_others = of_others.as_ref();
        let of_others = of_others.map_or(0, |(all, before)| all.count().wrapping_sub(*before));
        self.answers.count().wrapping_add(of_others)
    }
}

/// The server has answered one of the round-trips of this operation: the limit begins anew.
pub(crate) fn answered() {
    // Direct callers of a store have no limit.
    let _ = ANSWERS.try_with(|heard| heard.answers.add());
}

/// From now on the answers that others get count for this operation, which waits for its turn.
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub(crate) fn follow(of_others: &Arc<Answers>) -> Following {
    let heard = ANSWERS.try_with(Arc::clone).ok();
    if let Some(heard) = &heard {
        *heard.of_others.lock() = Some((of_others.clone(), of_others.count()));
    }
    Following(heard)
}

#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
impl Drop for Following {
    fn drop(&mut self) {
        let Some(heard) = &self.0 else { return };
        if let Some((all, before)) = heard.of_others.lock().take() {
            let heard_of_others = all.count().wrapping_sub(before);
            let own = &heard.answers.0;
            own.fetch_add(heard_of_others, Ordering::Relaxed);
        }
    }
}

/// A part of this operation that goes on in a task of its own: answers that come there count here.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) fn in_a_task<F: Future>(part: F) -> impl Future<Output = F::Output> {
    let answers = ANSWERS.try_with(Arc::clone).unwrap_or_default();
    ANSWERS.scope(answers, part)
}

/// How the wait for an output has ended without one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Late {
    /// Nothing has come for the whole limit.
    Silent,
    /// Answers have come, up to the last moment, and there would have been more.
    Answering,
}

/// The output, if it comes within `limit` from the start or from the last [answer](answered), or somewhat
/// later where this process was late: at `last` at the latest.
pub(crate) async fn within<F: Future>(
    limit: Duration,
    last: Instant,
    future: F,
) -> Result<F::Output, Late> {
    let heard = Arc::<Heard>::default();
    let mut future = pin!(ANSWERS.scope(heard.clone(), future));
    let (mut silent, mut seen, mut lately) = (0, 0, false);
    while silent < STEPS {
        let over = Instant::now() >= last;
        let step = sleep_until(last.min(Instant::now() + limit / STEPS));
        if let Either::First(output) = race(future.as_mut(), step).await {
            return Ok(output);
        }
        let before = std::mem::replace(&mut seen, heard.count());
        silent = if seen != before && !over {
            0
        } else {
            silent + 1
        };
        if !over {
            lately = seen > 0 && silent < STEPS;
        }
    }
    Err(if lately {
        Late::Answering
    } else {
        Late::Silent
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_limit_is_kept_to_the_millisecond_where_nothing_is_late() {
        let (begun, limit) = (Instant::now(), Duration::from_millis(250));
        let never = std::future::pending::<()>();
        assert_eq!(
            within(limit, begun + limit * 4, never).await,
            Err(Late::Silent)
        );
        assert_eq!(begun.elapsed(), limit);
        let never = std::future::pending::<()>();
        assert_eq!(
            within(limit, begun + limit * 3 / 2, never).await,
            Err(Late::Silent)
        );
        assert_eq!(begun.elapsed(), limit * 3 / 2, "not past the last moment");
    }

    #[tokio::test(start_paused = true)]
    async fn each_answer_begins_the_limit_anew() {
        let (begun, limit) = (Instant::now(), Duration::from_millis(250));
        let last = begun + limit * 4;
        let answers = async |times: u32| {
            for _ in 0..times {
                tokio::time::sleep(limit * 3 / 4).await;
                answered();
            }
        };
        assert_eq!(within(limit, last, answers(5)).await, Ok(()));
        let begun = Instant::now();
        let endless = within(limit, begun + limit * 4, answers(100)).await;
        assert_eq!(
            (endless, begun.elapsed()),
            (Err(Late::Answering), limit * 4)
        );
        let hangs = async {
            answers(2).await;
            std::future::pending::<()>().await;
        };
        let last = Instant::now() + limit * 8;
        assert_eq!(within(limit, last, hangs).await, Err(Late::Silent));
    }

    #[tokio::test]
    async fn an_answer_is_taken_after_a_pause_of_the_process_that_outlasts_the_limit() {
        let limit = Duration::from_millis(20);
        let last = Instant::now() + Duration::from_secs(60);
        let (answer, answered) = tokio::sync::oneshot::channel();
        // It is on its way through other tasks, as an answer from a socket is.
        tokio::spawn(async move {
            std::thread::sleep(limit * 3);
            tokio::spawn(async move { answer.send(()) });
        });
        assert!(within(limit, last, answered).await.is_ok());
    }
}
