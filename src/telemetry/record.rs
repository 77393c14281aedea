//! One acquisition, told to whoever watches.

use super::Counters;
use crate::acquire::Metadata;

/// The outcome of an acquisition that gave a token. Others are named after their error.
pub(crate) const OK: &str = "ok";

impl Counters {
    /// Tells how a token was come by, or that there is none. `outcome` is a word of this crate's,
    /// never one that came from outside: it becomes a label.
    pub(crate) fn record(&self, metadata: &Metadata, outcome: &'static str) {
        tracing::debug!(
            outcome,
            token_source = metadata.token_source.as_str(),
            cache_level = metadata.cache_level.as_str(),
            cache_refresh_reason = metadata.refresh_reason.as_str(),
            duration_total = metadata.duration_total.as_secs_f64(),
            duration_in_cache = metadata.duration_in_cache.as_secs_f64(),
            duration_in_http = metadata.duration_in_http.as_secs_f64(),
            expires_at = metadata.expires_at.map(tracing::field::debug),
            refresh_at = metadata.refresh_at.map(tracing::field::debug),
            "a token was asked for"
        );
        #[cfg(feature = "metrics")]
        self.exported.record(metadata, outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acquire::{RefreshReason, TokenSource};
    use crate::lookup::CacheLevel;
    use std::io::Write;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_acquisition_is_an_event_with_every_field() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        let metadata = Metadata {
            duration_total: Duration::from_millis(1500),
            duration_in_cache: Duration::from_millis(250),
            duration_in_http: Duration::from_millis(1250),
            token_source: TokenSource::IdentityProvider,
            cache_level: CacheLevel::None,
            refresh_reason: RefreshReason::Expired,
            ..Metadata::default()
        };
        let counters = Counters::default();
        tracing::subscriber::with_default(subscriber, || counters.record(&metadata, OK));
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        for field in [
            "DEBUG",
            "outcome=\"ok\"",
            "token_source=\"identity_provider\"",
            "cache_level=\"none\"",
            "cache_refresh_reason=\"expired\"",
            "duration_total=1.5",
            "duration_in_cache=0.25",
            "duration_in_http=1.25",
        ] {
            assert!(log.contains(field), "{field} is not in {log}");
        }
    }
}
