//! Waiting for an answer for so long, where this process may be the one that is late.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::race::{Either, race};

/// A limit passes in so many steps. Each is waited for by itself, and the answer is looked for after
/// each: a process that is busy, or was stopped, does not take its own delay for the server's.
pub(crate) const STEPS: u32 = 5;

/// The output, if it comes within `limit`, or somewhat later where this process was late: at `last` at
/// the latest.
pub(crate) async fn within<F: Future>(
    limit: Duration,
    last: Instant,
    future: F,
) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..STEPS {
        let step = sleep_until(last.min(Instant::now() + limit / STEPS));
        if let Either::First(output) = race(future.as_mut(), step).await {
            return Some(output);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_limit_is_kept_to_the_millisecond_where_nothing_is_late() {
        let (begun, limit) = (Instant::now(), Duration::from_millis(250));
        let never = std::future::pending::<()>();
        assert!(within(limit, begun + limit * 4, never).await.is_none());
        assert_eq!(begun.elapsed(), limit);
        let never = std::future::pending::<()>();
        assert!(within(limit, begun + limit * 3 / 2, never).await.is_none());
        assert_eq!(begun.elapsed(), limit * 3 / 2, "not past the last moment");
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
        assert!(within(limit, last, answered).await.is_some());
    }
}
