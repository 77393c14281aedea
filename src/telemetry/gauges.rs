//! Gauges of one cache, which end with it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Gauge, SharedString, Unit};

fn name(name: &str) -> SharedString {
    SharedString::from(format!("tower_token_cache_{name}"))
}

/// One cache's part of a gauge. Caches in one process add up.
pub(super) struct Part {
    gauge: Gauge,
    value: AtomicU64,
}

impl Part {
    pub(super) fn new(gauge: &str, unit: Unit, help: &'static str) -> Self {
        metrics::describe_gauge!(name(gauge), unit, help);
        Self {
            gauge: metrics::gauge!(name(gauge)),
            value: AtomicU64::new(0),
        }
    }

    /// How many caches are in this state.
    pub(super) fn of_state(gauge: &str, state: &'static str, help: &'static str) -> Self {
        metrics::describe_gauge!(name(gauge), Unit::Count, help);
        Self {
            gauge: metrics::gauge!(name(gauge), "state" => state),
            value: AtomicU64::new(0),
        }
    }

    pub(super) fn set(&self, value: u64) {
        let before = self.value.swap(value, Ordering::Relaxed);
        self.gauge.increment(value as f64 - before as f64);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// A time that does not add up: each namespace has its own.
pub(super) struct Bound(Gauge);

impl Bound {
    pub(super) fn new(gauge: &str, namespace: &str, help: &'static str) -> Self {
        metrics::describe_gauge!(name(gauge), Unit::Seconds, help);
        let namespace = SharedString::from(namespace.to_owned());
        Self(metrics::gauge!(name(gauge), "namespace" => namespace))
    }

    /// `None` is without bound.
    pub(super) fn set(&self, bound: Option<Duration>) {
        self.0
            .set(bound.map_or(f64::INFINITY, |bound| bound.as_secs_f64()));
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.set(Some(Duration::ZERO));
    }
}
