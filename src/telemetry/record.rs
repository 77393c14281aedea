//! One acquisition, told to whoever watches.

use std::time::Duration;

use super::{Counters, OK};
use crate::acquire::Metadata;
use crate::lookup::{CacheLevel, Lookup};
use crate::policy::L2Operation;

impl Counters {
    /// Tells how a token was come by.
    pub(crate) fn found(&self, metadata: &Metadata) {
        tracing::debug!(
            outcome = OK,
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
        self.exported.found(metadata);
    }

    /// Tells how a read ended.
    pub(crate) fn read(&self, lookup: &Lookup, metadata: &Metadata) {
        let outcome = match lookup {
            Lookup::Hit(_) => return self.found(metadata),
            Lookup::Absent => "absent",
            Lookup::Unavailable => "unavailable",
            Lookup::Unopenable => "unopenable",
        };
        self.found_none(metadata.duration_total, metadata.cache_level, outcome);
    }

    /// Tells that there is no token. `outcome` is a word of this crate's, never one that came from outside.
    pub(crate) fn found_none(&self, total: Duration, level: CacheLevel, outcome: &'static str) {
        tracing::debug!(
            outcome,
            token_source = "none",
            cache_level = level.as_str(),
            duration_total = total.as_secs_f64(),
            "a token was asked for"
        );
        #[cfg(feature = "metrics")]
        self.exported.found_none(total, level);
    }

    /// Tells how long one attempt at an operation on L2 took.
    #[cfg_attr(not(feature = "metrics"), expect(unused_variables))]
    pub(crate) fn l2(&self, operation: L2Operation, outcome: &'static str, took: Duration) {
        #[cfg(feature = "metrics")]
        self.exported.l2(operation, outcome, took);
    }

    /// Tells that an acquisition gave no token. `outcome` becomes a label.
    pub(crate) fn failed(&self, total: Duration, level: CacheLevel, outcome: &'static str) {
        self.found_none(total, level, outcome);
        #[cfg(feature = "metrics")]
        self.exported.failed(outcome);
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
        let counters = Counters::new("ttc");
        tracing::subscriber::with_default(subscriber, || counters.found(&metadata));
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
