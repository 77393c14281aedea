//! What was seen, and whether it may be.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::faults::Weather;

/// The hard timeout of the playgrounds, and what a request may take besides.
pub(crate) const LIMIT: Duration = Duration::from_millis(1100);

/// One request in so many may be slow because the machine was. Other tests beside this one, on two
/// processors, made it one in 800.
const MOST_EXCUSES: usize = 200;

/// Kinds of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A read of a user in L1, under Degrade.
    Held,
    /// A read of a user that L1 has not, under Degrade.
    Unknown,
    /// A change under Degrade, committed after the response.
    Kept,
    /// A change under Strict, committed before the response.
    Strict,
    /// Another read.
    Read,
    SignOut,
    /// A change whose handler takes its time.
    Slow,
    /// May wait for the lease of another process.
    Acquire,
    /// Asks neither memory nor L2: what it takes is the machine's noise.
    Noise,
}

/// A request that was answered.
#[derive(Clone, Copy)]
struct Timing {
    process: usize,
    sent: Instant,
    took: Duration,
}

#[derive(Default)]
pub(crate) struct Report(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    timings: BTreeMap<Kind, Vec<Timing>>,
    statuses: BTreeMap<(Kind, u16), u64>,
    staleness: BTreeMap<Weather, Vec<Duration>>,
    stalest: BTreeMap<Weather, String>,
    counts: BTreeMap<&'static str, u64>,
    violations: BTreeMap<&'static str, Vec<String>>,
}

impl Report {
    pub(crate) fn answered(&self, kind: Kind, process: usize, sent: Instant, status: u16) {
        let took = sent.elapsed();
        let timing = Timing {
            process,
            sent,
            took,
        };
        let mut seen = self.0.lock().unwrap();
        seen.timings.entry(kind).or_default().push(timing);
        *seen.statuses.entry((kind, status)).or_default() += 1;
    }

    /// Something was stale for so long; `describe` says more of the worst.
    pub(crate) fn stale_for(
        &self,
        weather: Weather,
        time: Duration,
        describe: impl Fn() -> String,
    ) {
        let mut seen = self.0.lock().unwrap();
        let times = seen.staleness.entry(weather).or_default();
        let is_worst = times.iter().all(|earlier| *earlier < time);
        times.push(time);
        if is_worst {
            seen.stalest.insert(weather, describe());
        }
    }

    pub(crate) fn count(&self, what: &'static str, count: usize) {
        *self.0.lock().unwrap().counts.entry(what).or_default() += count as u64;
    }

    /// Something that must not be.
    pub(crate) fn violated(&self, rule: &'static str, how: String) {
        let mut seen = self.0.lock().unwrap();
        seen.violations.entry(rule).or_default().push(how);
    }

    /// Looks for answers that took too long: longer than the limit and, on top of it, than the
    /// slowest request of the same process in that time that had nothing to do with the cache.
    pub(crate) fn judge_latency(&self, describe: impl Fn(Instant, Instant) -> String) {
        let mut seen = self.0.lock().unwrap();
        let noise = seen.timings.remove(&Kind::Noise).unwrap_or_default();
        let noise_of = |slow: &Timing| {
            let (from, to) = (slow.sent, slow.sent + slow.took);
            let overlaps = |probe: &&Timing| {
                probe.process == slow.process && probe.sent <= to && probe.sent + probe.took >= from
            };
            let probes = noise.iter().filter(overlaps);
            probes.map(|probe| probe.took).max().unwrap_or_default()
        };
        let mut slow = Vec::new();
        for (kind, timings) in &seen.timings {
            if matches!(kind, Kind::Acquire | Kind::Slow) {
                continue;
            }
            for timing in timings.iter().filter(|timing| timing.took > LIMIT) {
                let (took, noise) = (timing.took, noise_of(timing));
                let excused = took.saturating_sub(noise) <= LIMIT;
                let text = format!(
                    "{kind:?} at process {}: {took:?}, noise {noise:?}{}",
                    timing.process,
                    describe(timing.sent, timing.sent + took)
                );
                slow.push((excused, text));
            }
        }
        seen.timings.insert(Kind::Noise, noise);
        let requests: usize = seen.timings.values().map(Vec::len).sum();
        let excuses = slow.iter().filter(|(excused, _)| *excused).count();
        if excuses * MOST_EXCUSES > requests {
            let how = format!("{excuses} of {requests} requests were slow with it");
            let rule = "the machine is fast enough to tell";
            seen.violations.entry(rule).or_default().push(how);
        }
        for (excused, text) in slow {
            match excused {
                true => {
                    *seen
                        .counts
                        .entry("slow, but so was the machine")
                        .or_default() += 1
                }
                false => seen.violations.entry("latency").or_default().push(text),
            }
        }
    }

    pub(crate) fn longest(&self, weather: Weather) -> Option<Duration> {
        let seen = self.0.lock().unwrap();
        seen.staleness.get(&weather)?.iter().max().copied()
    }

    pub(crate) fn violations(&self) -> usize {
        let seen = self.0.lock().unwrap();
        seen.violations.values().map(Vec::len).sum()
    }

    pub(crate) fn print(&self) -> String {
        let seen = self.0.lock().unwrap();
        let mut text = String::new();
        let requests: usize = seen.timings.values().map(Vec::len).sum();
        let _ = writeln!(text, "{requests} requests, latency in ms");
        for (kind, timings) in &seen.timings {
            let _ = write!(text, "  {:<9}", format!("{kind:?}"));
            let times = timings.iter().map(|timing| timing.took).collect();
            text += &quantiles(times);
            for ((_, status), count) in seen.statuses.range((*kind, 0)..=(*kind, u16::MAX)) {
                let _ = write!(text, ", {status}: {count}");
            }
            text.push('\n');
        }
        text += "stale for, in ms\n";
        for (weather, times) in &seen.staleness {
            let _ = write!(text, "  {:<9}", format!("{weather:?}"));
            text += &quantiles(times.clone());
            let _ = writeln!(text, "\n    worst: {}", seen.stalest[weather]);
        }
        for (what, count) in &seen.counts {
            let _ = writeln!(text, "{what}: {count}");
        }
        for (rule, cases) in &seen.violations {
            let _ = writeln!(text, "VIOLATED, {} times: {rule}", cases.len());
            for case in cases.iter().take(10) {
                let _ = writeln!(text, "  {case}");
            }
        }
        text
    }
}

fn quantiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |quantile: f64| {
        let index = ((times.len() - 1) as f64 * quantile).round() as usize;
        times[index].as_secs_f64() * 1000.0
    };
    format!(
        "{:>6}: p50 {:.1}, p99 {:.1}, p99.9 {:.1}, worst {:.1}",
        times.len(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    )
}
