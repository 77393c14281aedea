//! What a recorder gets, by what the counters are told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

use super::*;
use crate::acquire::{RefreshReason, TokenSource};
use crate::lookup::CacheLevel;
use crate::telemetry::Counters;
use crate::telemetry::durations::{LEVELS, REASONS, SOURCES, slot};

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
        let counters = Counters::new("ttc");
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
                    counters.found(&metadata);
                }
            }
        }
    });
    assert_eq!(slots.len(), SOURCES * LEVELS * REASONS);
    assert_eq!(slots.last(), Some(&(SOURCES * LEVELS * REASONS - 1)));
    let seen = snapshot(&snapshotter);
    let histograms = seen
        .iter()
        .filter(|(_, value)| matches!(value, DebugValue::Histogram(samples) if samples.len() == 1));
    assert_eq!(histograms.count(), 3 * SOURCES * LEVELS * REASONS);
    let one = "tower_token_cache_duration_in_http_seconds token_source=identity_provider,\
               cache_level=none,cache_refresh_reason=expired";
    assert_eq!(seen[one], DebugValue::Histogram(vec![0.25.into()]));
}

#[test]
fn a_failure_is_counted_by_its_outcome() {
    let seen = recorded(|| {
        let counters = Counters::new("ttc");
        counters.found(&Metadata::default());
        for _ in 0..2 {
            counters.failed(Duration::from_secs(1), CacheLevel::L1, "retry_later");
        }
    });
    let failures = seen.iter().filter(|(name, _)| name.starts_with(FAILURES));
    let failures: Vec<_> = failures.collect();
    let name = format!("{FAILURES} outcome=retry_later");
    assert_eq!(failures, [(&name, &DebugValue::Counter(2))]);
    let samples = |source: &str| {
        let source = format!("token_source={source},");
        let of_source = seen.iter().filter(|(name, _)| name.contains(&source));
        let samples = of_source.map(|(name, value)| match value {
            DebugValue::Histogram(samples) => (name.split(' ').next(), samples.len()),
            other => panic!("no histogram: {other:?}"),
        });
        samples.collect::<Vec<_>>()
    };
    assert_eq!(samples("cache").len(), 3, "the one that was found");
    let total = "tower_token_cache_duration_total_seconds";
    assert_eq!(samples("none"), [(Some(total), 2)]);
}

#[test]
fn counters_are_exported_under_their_names() {
    let seen = recorded(|| {
        let counters = Counters::new("ttc");
        counters.l1_hits.add(2);
        counters.l1_hits.add(1);
        counters.flushed_changes.add(5);
        assert_eq!(counters.l1_hits.get(), 3);
    });
    let counter = |name: &str| &seen[&format!("tower_token_cache_{name}_total ")];
    assert_eq!(counter("l1_hits"), &DebugValue::Counter(3));
    assert_eq!(counter("flushed_changes"), &DebugValue::Counter(5));
    let misses = counter("l1_misses");
    assert_eq!(misses, &DebugValue::Counter(0), "before the first one");
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
        let (one, two) = (Counters::new("ttc"), Counters::new("ttc"));
        one.report(&holds(100));
        two.report(&holds(50));
        one.report(&holds(80));
        assert_eq!(change(), 130.0);
        drop(one);
        assert_eq!(change(), -80.0);
    });
}
