//! What the `metrics` crate gets.
//!
//! Handles are made once, because to look one up costs more than a hit in L1.

use std::fmt;
use std::time::Duration;

use metrics::{SharedString, Unit};

use super::Stats;
use super::durations::Durations;
use super::gauges::{Bound, Part};
use crate::acquire::Metadata;
use crate::engine::l2::breaker::BreakerState;
use crate::lookup::CacheLevel;
use crate::policy::L2Operation;

const FAILURES: &str = "tower_token_cache_acquire_failures_total";

/// The name of a counter.
fn total(name: &str) -> SharedString {
    SharedString::from(format!("tower_token_cache_{name}_total"))
}

/// A counter of this name.
pub(super) fn counter(name: &str, help: &'static str) -> metrics::Counter {
    metrics::describe_counter!(total(name), help);
    metrics::counter!(total(name))
}

/// One that is divided by reason.
pub(super) fn counter_for(
    name: &str,
    reason: &'static str,
    help: &'static str,
) -> metrics::Counter {
    metrics::describe_counter!(total(name), help);
    metrics::counter!(total(name), "reason" => reason)
}

/// The gauges and histograms of one cache.
pub(super) struct Exported {
    l1_entries: Part,
    l1_bytes: Part,
    pending_changes: Part,
    waiting_acquisitions: Part,
    pending_sign_outs: Part,
    pending_revocations: Part,
    l2_states: [(BreakerState, Part); 3],
    engine_states: [(bool, Part); 2],
    feed_states: [(Option<bool>, Part); 3],
    staleness_bound: Bound,
    durations: Durations,
}

impl Exported {
    pub(super) fn new(namespace: &str) -> Self {
        metrics::describe_counter!(FAILURES, "Acquisitions that gave no token.");
        let count = |name, help| Part::new(name, Unit::Count, help);
        let l2 = |state: BreakerState| {
            let help = "Caches by the state of their circuit breakers.";
            (state, Part::of_state("l2_state", state.as_str(), help))
        };
        let engine = |alive, state| {
            let help = "Caches by whether their runtime is there.";
            (alive, Part::of_state("engine_state", state, help))
        };
        let feed = |alive, state| {
            let help = "Caches by whether the store's feed is alive.";
            (alive, Part::of_state("feed_state", state, help))
        };
        Self {
            l1_entries: count("l1_entries", "Partitions in L1."),
            l1_bytes: Part::new("l1_bytes", Unit::Bytes, "What they cost in memory."),
            pending_changes: count("pending_changes", "Changes that wait to be committed."),
            waiting_acquisitions: count("waiting_acquisitions", "Acquisitions under way."),
            pending_sign_outs: count("pending_sign_outs", "Sign-outs that L2 has not heard of."),
            pending_revocations: count(
                "pending_revocations",
                "Refresh tokens that wait to be revoked.",
            ),
            l2_states: [
                l2(BreakerState::Closed),
                l2(BreakerState::HalfOpen),
                l2(BreakerState::Open),
            ],
            engine_states: [engine(true, "alive"), engine(false, "ended")],
            feed_states: [
                feed(Some(true), "alive"),
                feed(Some(false), "lost"),
                feed(None, "none"),
            ],
            staleness_bound: Bound::new(
                "staleness_bound_seconds",
                namespace,
                "How old a change can be that is not known of.",
            ),
            durations: Durations::new(),
        }
    }

    pub(super) fn report(&self, stats: &Stats) {
        self.l1_entries.set(stats.l1_entries);
        self.l1_bytes.set(stats.l1_bytes);
        self.pending_changes.set(stats.pending_changes);
        self.waiting_acquisitions.set(stats.waiting_acquisitions);
        self.pending_sign_outs.set(stats.pending_sign_outs);
        self.pending_revocations.set(stats.pending_revocations);
        choose(&self.l2_states, stats.l2_state);
        choose(&self.engine_states, stats.engine_alive);
        choose(&self.feed_states, stats.feed_alive);
        self.staleness_bound.set(stats.staleness_bound);
    }

    pub(super) fn found(&self, metadata: &Metadata) {
        self.durations.found(metadata);
    }

    pub(super) fn found_none(&self, total: Duration, level: CacheLevel) {
        self.durations.found_none(total, level);
    }

    pub(super) fn failed(&self, outcome: &'static str) {
        metrics::counter!(FAILURES, "outcome" => outcome).increment(1);
    }

    pub(super) fn l2(&self, operation: L2Operation, outcome: &'static str, took: Duration) {
        self.durations.l2(operation, outcome, took);
    }
}

/// The cache is in this state, and in none of the others.
fn choose<S: PartialEq>(states: &[(S, Part)], now: S) {
    for (state, part) in states {
        part.set(u64::from(*state == now));
    }
}

impl fmt::Debug for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exported").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "exported_tests.rs"]
mod tests;
