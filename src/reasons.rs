//! What keeps a fault that goes on, or comes and goes, from filling the log: a reason is logged once.

use std::error::Error;
use std::fmt::Write;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A reason that has not been met for so long is news again.
const QUIET: Duration = Duration::from_secs(60);
/// One that comes back after a recovery is news again once this long has passed since it was logged.
const AGAIN: Duration = Duration::from_secs(10);
/// A fault shows itself in a few ways, which may take turns.
const MAX_REASONS: usize = 8;

/// The reasons that were met lately.
#[derive(Debug, Default)]
pub(crate) struct Reasons(Mutex<Met>);

#[derive(Debug, Default)]
struct Met {
    reasons: Vec<Reason>,
    /// Whether one was logged since the last recovery that was.
    is_told: bool,
}

#[derive(Debug)]
struct Reason {
    text: String,
    met: Instant,
    logged: Instant,
    /// Whether there was a recovery since it was logged.
    has_ended: bool,
}

impl Reasons {
    /// Whether this reason is news.
    pub(crate) fn is_news(&self, error: &dyn Error) -> bool {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            let _ = write!(text, ": {error}");
            source = error.source();
        }
        let now = Instant::now();
        let mut met = self.0.lock();
        let known = met.reasons.iter().position(|known| known.text == text);
        if let Some(known) = known.map(|at| &mut met.reasons[at]) {
            let last = std::mem::replace(&mut known.met, now);
            let is_back = known.has_ended && now - known.logged > AGAIN;
            if now - last <= QUIET && !is_back {
                return false;
            }
            known.logged = now;
            known.has_ended = false;
        } else {
            if met.reasons.len() >= MAX_REASONS {
                met.reasons.remove(0);
            }
            met.reasons.push(Reason {
                text,
                met: now,
                logged: now,
                has_ended: false,
            });
        }
        met.is_told = true;
        true
    }

    /// What was met is over. Returns whether that is news.
    pub(crate) fn recovered(&self) -> bool {
        let mut met = self.0.lock();
        for reason in &mut met.reasons {
            reason.has_ended = true;
        }
        std::mem::take(&mut met.is_told)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reason_is_news_once_and_again_after_a_while() {
        let reasons = Reasons::default();
        let [one, other] = ["one", "other"].map(io::Error::other);
        for _ in 0..3 {
            let first = reasons.is_news(&one);
            assert_eq!(first, reasons.is_news(&other), "they take turns");
            assert!(!reasons.is_news(&one));
            tokio::time::advance(QUIET).await;
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(reasons.is_news(&one));
        for number in 0..100 {
            assert!(reasons.is_news(&io::Error::other(number.to_string())));
        }
        assert!(reasons.0.lock().reasons.len() <= MAX_REASONS);
    }

    /// However often it comes and goes, it is logged at intervals, and the last that is logged is true: of what
    /// stays, as of a recovery that stays.
    #[tokio::test(start_paused = true)]
    async fn a_fault_that_comes_and_goes_is_told_at_intervals() {
        let reasons = Reasons::default();
        let fault = io::Error::other("fault");
        let (mut begins, mut ends) = (0, 0);
        for _ in 0..60 {
            begins += u32::from(reasons.is_news(&fault));
            tokio::time::advance(Duration::from_millis(500)).await;
            ends += u32::from(reasons.recovered());
            assert_eq!(begins, ends);
            tokio::time::advance(Duration::from_millis(500)).await;
        }
        assert!((5..=6).contains(&begins), "{begins} in a minute");
        while !reasons.is_news(&fault) {
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        tokio::time::advance(AGAIN * 2).await;
        assert!(!reasons.is_news(&fault), "it goes on");
        assert!(reasons.recovered());
        assert!(!reasons.recovered());
    }
}
