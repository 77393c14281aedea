//! What was seen, and whether it may be.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::machine::Machine;
use super::timeline::{Timeline, Weather};

/// The operation timeout of the playgrounds, and 100 ms. What a request takes besides has to be the
/// machine's: by how much who does nothing woke up late in the same time, and how long the process was
/// ready to run and did not, and nothing else.
pub(crate) const LIMIT: Duration = Duration::from_millis(1100);
/// What a process states of its staleness is a moment old, and so is what another has just announced.
const ON_THE_WAY: Duration = Duration::from_millis(250);
/// The longest that the channel is believed to be alive without a sign of it.
const LOST_AFTER: Duration = Duration::from_secs(3);
/// With everything alive a change is noticed in milliseconds; the rest is a heartbeat, which shows
/// what was lost on the way.
const ALIVE_BOUND: Duration = Duration::from_millis(1500);

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
    /// Asks neither memory nor L2.
    Status,
}

/// A request that was answered.
#[derive(Clone, Copy)]
struct Timing {
    process: usize,
    sent: Instant,
    took: Duration,
}

/// A read of what is changed on another process.
#[derive(Clone, Copy)]
pub(crate) struct StaleRead {
    /// Where it is changed, and where it was read.
    pub(crate) between: [usize; 2],
    pub(crate) asked: Instant,
    pub(crate) answered: Instant,
    /// When what it has missed was acknowledged.
    pub(crate) missed: Option<Instant>,
}

#[derive(Default)]
pub(crate) struct Report(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    timings: BTreeMap<Kind, Vec<Timing>>,
    statuses: BTreeMap<(Kind, u16), u64>,
    reads: Vec<StaleRead>,
    staleness: BTreeMap<Weather, Vec<Duration>>,
    stalest: BTreeMap<Weather, String>,
    noticed: BTreeMap<Weather, Vec<Duration>>,
    machine: String,
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

    pub(crate) fn read(&self, read: StaleRead) {
        self.0.lock().unwrap().reads.push(read);
    }

    /// It took so long until a sign-out was known elsewhere.
    pub(crate) fn noticed(&self, weather: Weather, after: Duration) {
        let mut seen = self.0.lock().unwrap();
        seen.noticed.entry(weather).or_default().push(after);
    }

    /// Looks for reads that were staler than their process has stated. While L2 is away nothing can
    /// be known.
    pub(crate) fn judge_staleness(
        &self,
        timeline: &Timeline,
        machine: &Machine,
        describe: impl Fn(Instant, Instant) -> String,
    ) {
        let mut seen = self.0.lock().unwrap();
        let reads = std::mem::take(&mut seen.reads);
        for read in &reads {
            let from = read.missed.unwrap_or(read.asked);
            let weather = timeline.weather(read.between, from, read.answered);
            let staleness = read.asked - from;
            let describe = || {
                let faults = describe(from, read.answered);
                format!("{:?}, {staleness:?}{faults}", read.between)
            };
            let times = seen.staleness.entry(weather).or_default();
            let is_worst = times.iter().max().is_none_or(|worst| *worst < staleness);
            times.push(staleness);
            if is_worst {
                seen.stalest.insert(weather, describe());
            }
            if read.missed.is_none() || weather == Weather::L2Away {
                continue;
            }
            let waited = read
                .between
                .map(|process| machine.waited(process, from, read.answered));
            let late = machine.worst(from, read.answered) + waited[0] + waited[1] + ON_THE_WAY;
            let mut allowed = late;
            if timeline.was_slow(from, read.answered) {
                // Heartbeats that trickle do not say how old they are.
                allowed += LOST_AFTER;
            }
            let stated = timeline.stated_bound(read.between[1], read.asked);
            if let Some(stated) = stated
                && staleness > stated + allowed
            {
                let rule = "nothing is staler than is stated";
                let how = format!("{stated:?} was stated: {}", describe());
                seen.violations.entry(rule).or_default().push(how);
            }
            if weather == Weather::Alive && staleness > ALIVE_BOUND + late {
                let rule = "nothing is stale for long";
                seen.violations.entry(rule).or_default().push(describe());
            }
        }
        let longest = timeline.longest_stated().unwrap_or_default();
        let what = "ms of staleness stated at most";
        *seen.counts.entry(what).or_default() += longest.as_millis() as u64;
        let (first, last) = (reads.first(), reads.last());
        let lag = first.zip(last).map_or(Duration::ZERO, |(first, last)| {
            machine.worst(first.asked, last.answered)
        });
        if longest > LOST_AFTER + ON_THE_WAY + lag {
            let rule = "a channel without a sign of life is lost";
            let how = format!("{longest:?} was stated");
            seen.violations.entry(rule).or_default().push(how);
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

    /// Looks for answers that took too long.
    pub(crate) fn judge_latency(
        &self,
        machine: &Machine,
        describe: impl Fn(Instant, Instant) -> String,
    ) {
        let mut seen = self.0.lock().unwrap();
        let mut slow = Vec::new();
        let (mut excused, mut worst_lag) = (0, Duration::ZERO);
        for (kind, timings) in &seen.timings {
            if matches!(kind, Kind::Acquire | Kind::Slow) {
                continue;
            }
            for timing in timings.iter().filter(|timing| timing.took > LIMIT) {
                let (from, to) = (timing.sent, timing.sent + timing.took);
                let lag = machine.worst(from, to) + machine.waited(timing.process, from, to);
                if timing.took <= LIMIT + lag {
                    excused += 1;
                    worst_lag = worst_lag.max(lag);
                    continue;
                }
                slow.push(format!(
                    "{kind:?} at process {}: {:?}, the machine was {lag:?} late{}",
                    timing.process,
                    timing.took,
                    describe(from, to)
                ));
            }
        }
        seen.machine = format!(
            "{excused} requests took longer than {LIMIT:?} and no longer than that and the machine's \
             own lag meanwhile (up to {worst_lag:?}), which was subtracted, and nothing else"
        );
        if !slow.is_empty() {
            seen.violations.entry("latency").or_default().extend(slow);
        }
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
        let _ = writeln!(text, "{}", seen.machine);
        text += "age of what a read has missed, in ms\n";
        for (weather, times) in &seen.staleness {
            let _ = write!(text, "  {:<9}", format!("{weather:?}"));
            text += &quantiles(times.clone());
            let _ = writeln!(text, "\n    worst: {}", seen.stalest[weather]);
        }
        text += "until a sign-out was known elsewhere, in ms\n";
        for (weather, times) in &seen.noticed {
            let _ = writeln!(
                text,
                "  {:<9}{}",
                format!("{weather:?}"),
                quantiles(times.clone())
            );
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
