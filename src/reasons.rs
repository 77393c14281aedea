//! What keeps a fault that goes on from filling the log: a reason is told once.

use std::error::Error;
use std::fmt::Write;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A reason that has not been met for so long is news again.
const QUIET: Duration = Duration::from_secs(60);
/// A fault shows itself in a few ways, which may take turns.
const MAX_REASONS: usize = 8;

/// The reasons that were met lately.
#[derive(Debug, Default)]
pub(crate) struct Reasons(Mutex<Vec<(String, Instant)>>);

impl Reasons {
    /// Whether this reason is news.
    pub(crate) fn is_news(&self, error: &dyn Error) -> bool {
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            let _ = write!(reason, ": {error}");
            source = error.source();
        }
        let now = Instant::now();
        let mut met = self.0.lock();
        if let Some((_, last)) = met.iter_mut().find(|(known, _)| *known == reason) {
            let last = std::mem::replace(last, now);
            return now - last > QUIET;
        }
        if met.len() >= MAX_REASONS {
            met.remove(0);
        }
        met.push((reason, now));
        true
    }

    /// What is met from now on is news.
    pub(crate) fn forget(&self) {
        self.0.lock().clear();
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
        assert!(reasons.0.lock().len() <= MAX_REASONS);
        reasons.forget();
        assert!(reasons.is_news(&io::Error::other("99")));
    }
}
