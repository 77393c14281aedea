//! Histograms of one cache.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Histogram, Unit};

use crate::acquire::Metadata;
use crate::lookup::CacheLevel;
use crate::policy::L2Operation;

const TOTAL: &str = "tower_token_cache_duration_total_seconds";
const IN_CACHE: &str = "tower_token_cache_duration_in_cache_seconds";
const IN_HTTP: &str = "tower_token_cache_duration_in_http_seconds";
const L2: &str = "tower_token_cache_l2_duration_seconds";

pub(super) const SOURCES: usize = 2;
pub(super) const LEVELS: usize = 4;
pub(super) const REASONS: usize = 5;
const OPERATIONS: usize = 6;

/// Each is made when the first of its kind comes.
pub(super) struct Durations {
    /// By source, level and reason.
    found: [OnceLock<[Histogram; 3]>; SOURCES * LEVELS * REASONS],
    /// By level.
    found_none: [OnceLock<Histogram>; LEVELS],
    /// Attempts that were answered, by operation. What fails costs more than to look its histogram up.
    l2: [OnceLock<Histogram>; OPERATIONS],
}

impl Durations {
    pub(super) fn new() -> Self {
        let describe =
            |name: &'static str, help| metrics::describe_histogram!(name, Unit::Seconds, help);
        describe(TOTAL, "How long asking for a token took.");
        describe(
            IN_CACHE,
            "The part spent in memory, in L2 and waiting for other instances.",
        );
        describe(IN_HTTP, "The part spent in the acquire function.");
        describe(L2, "How long an attempt at an operation on L2 took.");
        Self {
            found: [const { OnceLock::new() }; SOURCES * LEVELS * REASONS],
            found_none: [const { OnceLock::new() }; LEVELS],
            l2: [const { OnceLock::new() }; OPERATIONS],
        }
    }

    pub(super) fn found(&self, metadata: &Metadata) {
        let Some(histograms) = self.found.get(slot(metadata)) else {
            return;
        };
        let [total, in_cache, in_http] = histograms.get_or_init(|| {
            [TOTAL, IN_CACHE, IN_HTTP].map(|name| {
                let (source, reason) = (metadata.token_source, metadata.refresh_reason);
                asked(name, source.as_str(), metadata.cache_level, reason.as_str())
            })
        });
        total.record(metadata.duration_total);
        in_cache.record(metadata.duration_in_cache);
        in_http.record(metadata.duration_in_http);
    }

    /// How much of it was spent where is not known.
    pub(super) fn found_none(&self, total: Duration, level: CacheLevel) {
        if let Some(histogram) = self.found_none.get(level as usize) {
            let make = || asked(TOTAL, "none", level, "not_applicable");
            histogram.get_or_init(make).record(total);
        }
    }

    pub(super) fn l2(&self, operation: L2Operation, outcome: &'static str, took: Duration) {
        let make =
            || metrics::histogram!(L2, "operation" => operation.as_str(), "outcome" => outcome);
        match self.l2.get(operation as usize) {
            Some(histogram) if outcome == super::OK => histogram.get_or_init(make).record(took),
            _ => make().record(took),
        }
    }
}

/// The place of the histograms with this source, level and reason.
pub(super) fn slot(metadata: &Metadata) -> usize {
    let (source, level) = (
        metadata.token_source as usize,
        metadata.cache_level as usize,
    );
    (source * LEVELS + level) * REASONS + metadata.refresh_reason as usize
}

fn asked(
    name: &'static str,
    source: &'static str,
    level: CacheLevel,
    reason: &'static str,
) -> Histogram {
    metrics::histogram!(
        name,
        "token_source" => source,
        "cache_level" => level.as_str(),
        "cache_refresh_reason" => reason,
    )
}
