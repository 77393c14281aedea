//! What the `metrics` crate gets.
//!
//! Handles are made once, because to look one up costs more than a hit in L1.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Gauge, Histogram, SharedString, Unit};

use super::{OK, Stats};
use crate::acquire::Metadata;

const FAILURES: &str = "tower_token_cache_acquire_failures_total";
const DURATIONS: [(&str, &str); 3] = [
    (
        "tower_token_cache_duration_total_seconds",
        "How long asking for a token took.",
    ),
    (
        "tower_token_cache_duration_in_cache_seconds",
        "The part spent in memory, in L2 and waiting for other instances.",
    ),
    (
        "tower_token_cache_duration_in_http_seconds",
        "The part spent in the acquire function.",
    ),
];

const SOURCES: usize = 2;
const LEVELS: usize = 4;
const REASONS: usize = 5;

/// A counter of this name.
pub(super) fn counter(name: &str, help: &'static str) -> metrics::Counter {
    let name = SharedString::from(format!("tower_token_cache_{name}_total"));
    metrics::describe_counter!(name.clone(), help);
    metrics::counter!(name)
}

/// The gauges and histograms of one cache.
pub(super) struct Exported {
    l1_entries: Part,
    l1_bytes: Part,
    pending_changes: Part,
    waiting_acquisitions: Part,
    pending_sign_outs: Part,
    /// By source, level and reason; made when the first of a kind comes.
    durations: [OnceLock<[Histogram; 3]>; SOURCES * LEVELS * REASONS],
}

impl Exported {
    pub(super) fn new() -> Self {
        for (name, help) in DURATIONS {
            metrics::describe_histogram!(name, Unit::Seconds, help);
        }
        metrics::describe_counter!(FAILURES, "Acquisitions that gave no token.");
        Self {
            l1_entries: Part::new("l1_entries", Unit::Count, "Partitions in L1."),
            l1_bytes: Part::new("l1_bytes", Unit::Bytes, "What they cost in memory."),
            pending_changes: Part::new(
                "pending_changes",
                Unit::Count,
                "Changes that wait to be committed.",
            ),
            waiting_acquisitions: Part::new(
                "waiting_acquisitions",
                Unit::Count,
                "Acquisitions under way.",
            ),
            pending_sign_outs: Part::new(
                "pending_sign_outs",
                Unit::Count,
                "Sign-outs that L2 has not heard of.",
            ),
            durations: [const { OnceLock::new() }; SOURCES * LEVELS * REASONS],
        }
    }

    pub(super) fn report(&self, stats: &Stats) {
        self.l1_entries.set(stats.l1_entries);
        self.l1_bytes.set(stats.l1_bytes);
        self.pending_changes.set(stats.pending_changes);
        self.waiting_acquisitions.set(stats.waiting_acquisitions);
        self.pending_sign_outs.set(stats.pending_sign_outs);
    }

    pub(super) fn record(&self, metadata: &Metadata, outcome: &'static str) {
        if outcome != OK {
            metrics::counter!(FAILURES, "outcome" => outcome).increment(1);
        }
        let Some(slot) = self.durations.get(slot(metadata)) else {
            return;
        };
        let [total, in_cache, in_http] = slot.get_or_init(|| histograms(metadata));
        total.record(metadata.duration_total);
        in_cache.record(metadata.duration_in_cache);
        in_http.record(metadata.duration_in_http);
    }
}

/// The place of the histograms with this source, level and reason.
fn slot(metadata: &Metadata) -> usize {
    let (source, level) = (
        metadata.token_source as usize,
        metadata.cache_level as usize,
    );
    (source * LEVELS + level) * REASONS + metadata.refresh_reason as usize
}

fn histograms(metadata: &Metadata) -> [Histogram; 3] {
    DURATIONS.map(|(name, _)| {
        metrics::histogram!(
            name,
            "token_source" => metadata.token_source.as_str(),
            "cache_level" => metadata.cache_level.as_str(),
            "cache_refresh_reason" => metadata.refresh_reason.as_str(),
        )
    })
}

/// One cache's part of a gauge, which ends with the cache. Caches in one process add up.
struct Part {
    gauge: Gauge,
    value: AtomicU64,
}

impl Part {
    fn new(name: &str, unit: Unit, help: &'static str) -> Self {
        let name = SharedString::from(format!("tower_token_cache_{name}"));
        metrics::describe_gauge!(name.clone(), unit, help);
        Self {
            gauge: metrics::gauge!(name),
            value: AtomicU64::new(0),
        }
    }

    fn set(&self, value: u64) {
        let before = self.value.swap(value, Ordering::Relaxed);
        self.gauge.increment(value as f64 - before as f64);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl fmt::Debug for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exported").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

    use super::*;
    use crate::acquire::{RefreshReason, TokenSource};
    use crate::lookup::CacheLevel;
    use crate::telemetry::Counters;

    const ALL_SOURCES: [TokenSource; SOURCES] = [TokenSource::Cache, TokenSource::IdentityProvider];
    const ALL_LEVELS: [CacheLevel; LEVELS] = [
        CacheLevel::None,
        CacheLevel::L1,
        CacheLevel::L2,
        CacheLevel::Unavailable,
    ];
    const ALL_REASONS: [RefreshReason; REASONS] = [
        RefreshReason::NotApplicable,
        RefreshReason::ForceRefreshOrClaims,
        RefreshReason::NoCachedAccessToken,
        RefreshReason::Expired,
        RefreshReason::ProactivelyRefreshed,
    ];

    /// Name and labels of each metric, with its value.
    fn snapshot(recorder: &Snapshotter) -> BTreeMap<String, DebugValue> {
        let metrics = recorder.snapshot().into_vec().into_iter();
        let named = metrics.map(|(key, _, _, value)| {
            let labels = key.key().labels();
            let labels: Vec<String> = labels
                .map(|l| format!("{}={}", l.key(), l.value()))
                .collect();
            (format!("{} {}", key.key().name(), labels.join(",")), value)
        });
        named.collect()
    }

    fn recorded(run: impl FnOnce()) -> BTreeMap<String, DebugValue> {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        metrics::with_local_recorder(&recorder, run);
        snapshot(&snapshotter)
    }

    #[test]
    fn each_combination_has_histograms_of_its_own() {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let mut slots = BTreeSet::new();
        metrics::with_local_recorder(&recorder, || {
            let counters = Counters::default();
            for token_source in ALL_SOURCES {
                for cache_level in ALL_LEVELS {
                    for refresh_reason in ALL_REASONS {
                        let metadata = Metadata {
                            token_source,
                            cache_level,
                            refresh_reason,
                            duration_total: Duration::from_millis(500),
                            duration_in_http: Duration::from_millis(250),
                            ..Metadata::default()
                        };
                        slots.insert(slot(&metadata));
                        counters.record(&metadata, OK);
                    }
                }
            }
        });
        assert_eq!(slots.len(), SOURCES * LEVELS * REASONS);
        assert_eq!(slots.last(), Some(&(SOURCES * LEVELS * REASONS - 1)));
        let seen = snapshot(&snapshotter);
        let histograms = seen.iter().filter(
            |(_, value)| matches!(value, DebugValue::Histogram(samples) if samples.len() == 1),
        );
        assert_eq!(histograms.count(), 3 * SOURCES * LEVELS * REASONS);
        let one = "tower_token_cache_duration_in_http_seconds token_source=identity_provider,\
                   cache_level=none,cache_refresh_reason=expired";
        assert_eq!(seen[one], DebugValue::Histogram(vec![0.25.into()]));
    }

    #[test]
    fn a_failure_is_counted_by_its_outcome() {
        let seen = recorded(|| {
            let counters = Counters::default();
            counters.record(&Metadata::default(), OK);
            counters.record(&Metadata::default(), "retry_later");
            counters.record(&Metadata::default(), "retry_later");
        });
        let failures = seen.iter().filter(|(name, _)| name.starts_with(FAILURES));
        let failures: Vec<_> = failures.collect();
        let name = format!("{FAILURES} outcome=retry_later");
        assert_eq!(failures, [(&name, &DebugValue::Counter(2))]);
    }

    #[test]
    fn counters_are_exported_under_their_names() {
        let seen = recorded(|| {
            let counters = Counters::default();
            counters.l1_hits.add(2);
            counters.l1_hits.add(1);
            counters.flushed_changes.add(5);
            assert_eq!(counters.l1_hits.get(), 3);
        });
        let counter = |name: &str| &seen[&format!("tower_token_cache_{name}_total ")];
        assert_eq!(counter("l1_hits"), &DebugValue::Counter(3));
        assert_eq!(counter("flushed_changes"), &DebugValue::Counter(5));
        for name in [
            "l1_misses",
            "l2_reads",
            "l2_commits",
            "l2_errors",
            "unopenable",
            "signed_out_changes",
            "abandoned_changes",
            "superseded_changes",
            "recovered_changes",
            "acquisitions",
            "failed_acquisitions",
        ] {
            assert_eq!(counter(name), &DebugValue::Counter(0), "{name}");
        }
    }

    #[test]
    fn gauges_are_the_sum_of_the_caches_that_live() {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        // Each snapshot begins at zero again: this is the change since the last one.
        let change = || match snapshot(&snapshotter)["tower_token_cache_l1_bytes "] {
            DebugValue::Gauge(value) => value.into_inner(),
            ref other => panic!("no gauge: {other:?}"),
        };
        let holds = |l1_bytes| Stats {
            l1_bytes,
            ..Stats::default()
        };
        metrics::with_local_recorder(&recorder, || {
            let (one, two) = (Counters::default(), Counters::default());
            one.report(&holds(100));
            two.report(&holds(50));
            one.report(&holds(80));
            assert_eq!(change(), 130.0);
            drop(one);
            assert_eq!(change(), -80.0);
        });
    }
}
