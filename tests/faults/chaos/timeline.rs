//! When there was which fault, and what the processes said of themselves meanwhile.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::fleet::PROCESSES;

/// After a fault of L2 is over, its breaker and pool need this long to notice.
const L2_SETTLES: Duration = Duration::from_millis(2500);
/// The same for the feed: it is made again, and proves that it is complete.
const FEED_SETTLES: Duration = Duration::from_secs(2);
/// What a process said of itself holds for this long before and after.
const LOOKS: Duration = Duration::from_millis(200);
/// Before a failover is noticed by whoever looks for it: what its old master has acknowledged and not
/// passed on.
const BEFORE_LOSS: Duration = Duration::from_secs(1);
/// After it, until all clients have left the old master: they ask the sentinels each second.
const AFTER_LOSS: Duration = Duration::from_secs(3);

/// Whom a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// L2 of every process, and the feed with it.
    Server,
    /// L2 of one process.
    Store(usize),
    /// Nobody is to notice.
    Nobody,
}

/// What staleness and latency are to be judged by.
pub(crate) struct Timeline {
    /// There are servers that stand in for each other.
    fails_over: bool,
    spans: Mutex<Vec<Span>>,
    looks: Mutex<[Vec<Look>; PROCESSES]>,
}

/// What a process said of itself.
#[derive(Clone, Copy)]
struct Look {
    /// When it was asked, and when the answer was there.
    asked: Instant,
    at: Instant,
    l2_closed: bool,
    feed_alive: bool,
    bound: Option<Duration>,
}

struct Span {
    scope: Scope,
    what: String,
    from: Instant,
    to: Option<Instant>,
    /// Replication is asynchronous: another server is the master, and may not have everything. As
    /// long as that is not known, it may be.
    lossy: Option<bool>,
    /// Messages are late, and do not say so.
    slow: bool,
}

/// What was working while something was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weather {
    /// Everything.
    Alive,
    /// L2, but not the feed.
    FeedDead,
    /// Not even L2.
    L2Away,
}

impl Timeline {
    pub(crate) fn new(fails_over: bool) -> Self {
        Self {
            fails_over,
            spans: Mutex::default(),
            looks: Mutex::default(),
        }
    }

    /// Notes that a fault begins; the number ends it.
    pub(crate) fn begin(&self, scope: Scope, what: String) -> usize {
        let mut spans = self.spans.lock().unwrap();
        spans.push(Span {
            scope,
            slow: what.contains("Drip"),
            what,
            from: Instant::now(),
            to: None,
            lossy: None,
        });
        spans.len() - 1
    }

    pub(crate) fn end(&self, number: usize) {
        self.end_as(number, false);
    }

    /// Ends a fault that has turned out to be a failover, or not to be one.
    pub(crate) fn end_as(&self, number: usize, lossy: bool) {
        let span = &mut self.spans.lock().unwrap()[number];
        span.to = Some(Instant::now());
        span.lossy = Some(lossy);
    }

    /// Notes what a process says of itself now.
    pub(crate) fn said(
        &self,
        process: usize,
        asked: Instant,
        (l2_closed, feed_alive): (bool, bool),
        bound: Option<Duration>,
    ) {
        self.looks.lock().unwrap()[process].push(Look {
            asked,
            at: Instant::now(),
            l2_closed,
            feed_alive,
            bound,
        });
    }

    pub(crate) fn faults(&self) -> usize {
        self.spans.lock().unwrap().len()
    }

    pub(crate) fn failovers(&self) -> usize {
        let spans = self.spans.lock().unwrap();
        spans.iter().filter(|span| span.lossy == Some(true)).count()
    }

    /// Whether what was acknowledged in this time may be lost: a server was the master that is no
    /// longer.
    pub(crate) fn may_be_lost(&self, from: Instant, to: Instant) -> bool {
        let spans = self.spans.lock().unwrap();
        let may_fail_over = |span: &&Span| match span.scope {
            Scope::Server | Scope::Nobody => span.lossy != Some(false) && self.fails_over,
            _ => false,
        };
        spans.iter().filter(may_fail_over).any(|span| {
            let end = span.to.map(|end| end + AFTER_LOSS);
            span.from <= to + BEFORE_LOSS && end.is_none_or(|end| end >= from)
        })
    }

    /// Whether messages were late between two processes in this time, or still may be.
    pub(crate) fn was_slow(&self, from: Instant, to: Instant) -> bool {
        let spans = self.spans.lock().unwrap();
        spans
            .iter()
            .filter(|span| span.slow)
            .any(|span| span.from <= to && span.to.is_none_or(|end| end + FEED_SETTLES >= from))
    }

    /// What was working between two processes in this time.
    pub(crate) fn weather(&self, between: [usize; 2], from: Instant, to: Instant) -> Weather {
        let spans = self.spans.lock().unwrap();
        let hit = |span: &Span, settles: Duration| {
            span.from <= to && span.to.is_none_or(|end| end + settles >= from)
        };
        let l2 = spans.iter().any(|span| match span.scope {
            Scope::Server => hit(span, L2_SETTLES),
            Scope::Store(number) => between.contains(&number) && hit(span, L2_SETTLES),
            Scope::Nobody => false,
        });
        let feed = spans.iter().any(|span| match span.scope {
            Scope::Server => hit(span, FEED_SETTLES),
            Scope::Store(number) => between.contains(&number) && hit(span, FEED_SETTLES),
            Scope::Nobody => false,
        });
        // A breaker stays open for longer than what has opened it.
        let looks = self.looks.lock().unwrap();
        let (earliest, latest) = (from - LOOKS, to + LOOKS);
        let concerned = || {
            between.iter().flat_map(|process| {
                let looks = &looks[*process];
                let first = looks.partition_point(|look| look.at < earliest);
                looks[first..].iter().take_while(|look| look.at <= latest)
            })
        };
        let l2 = l2 || concerned().any(|look| !look.l2_closed);
        let feed = feed || concerned().any(|look| !look.feed_alive);
        match (l2, feed) {
            (true, _) => Weather::L2Away,
            (false, true) => Weather::FeedDead,
            (false, false) => Weather::Alive,
        }
    }

    /// How stale a read that was asked for then may be, as the process itself has stated just before
    /// and just after; what it states grows until it hears something.
    pub(crate) fn stated_bound(&self, process: usize, asked: Instant) -> Option<Duration> {
        let looks = self.looks.lock().unwrap();
        let looks = &looks[process];
        let next = looks.partition_point(|look| look.at <= asked);
        let before = looks.get(next.checked_sub(1)?)?;
        let after = looks.get(next)?;
        let then = before.bound? + (asked - before.asked);
        Some(then.max(after.bound?))
    }

    /// The longest staleness that any process has stated.
    pub(crate) fn longest_stated(&self) -> Option<Duration> {
        let looks = self.looks.lock().unwrap();
        looks.iter().flatten().filter_map(|look| look.bound).max()
    }

    /// The faults of this time, for whoever wonders what has happened.
    pub(crate) fn describe(&self, started: Instant, from: Instant, to: Instant) -> String {
        let spans = self.spans.lock().unwrap();
        let mut text = String::new();
        let recent = |span: &&Span| {
            let end = span.to.unwrap_or(to) + Duration::from_secs(3);
            span.from <= to && end >= from
        };
        for span in spans.iter().filter(recent) {
            let second = |at: Instant| at.saturating_duration_since(started).as_secs_f64();
            let end = span.to.map(second);
            let _ = write!(
                text,
                " [{:.2}–{:.2} {}{}]",
                second(span.from),
                end.unwrap_or(f64::NAN),
                span.what,
                match span.lossy {
                    Some(true) => ", failover",
                    _ => "",
                },
            );
        }
        text
    }
}
