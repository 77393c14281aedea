//! Faults at random from a seed, and a record of when there were which.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::common::proxy::{Mode, Proxy};
use super::common::redis::RedisServer;
use super::fleet::{PROCESSES, Process};
use super::random::Random;

/// After a fault of L2 is over, its breaker and pool need this long to notice.
const L2_SETTLES: Duration = Duration::from_millis(2500);
/// The same for the backplane: a message that was lost is noticed with the next heartbeat.
const PLANE_SETTLES: Duration = Duration::from_secs(2);

/// What a process said of itself holds for this long before and after.
const LOOKS: Duration = Duration::from_millis(200);

/// Whom a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// L2 of every process, and the backplane with it.
    Server,
    /// L2 of one process.
    Store(usize),
    /// The backplane. One process that cannot be heard of makes it a gap for all.
    Plane,
}

/// What happens to the server.
#[derive(Clone, Copy, Debug)]
enum ServerFault {
    KillAndRestart,
    Hang,
    Pause(&'static str),
    OutOfMemory,
    ReadOnly,
    ForgetScripts,
    KillClients(&'static str),
}

/// What happens to a process's connections.
#[derive(Clone, Copy, Debug)]
enum LinkFault {
    /// For a while.
    Mode(Mode),
    /// Once, to the next answer.
    Once(Mode),
    Strand,
    Reset,
}

/// What staleness and latency are to be judged by.
#[derive(Default)]
pub(crate) struct Timeline {
    spans: Mutex<Vec<Span>>,
    looks: Mutex<Vec<Look>>,
}

/// What a process said of itself.
struct Look {
    process: usize,
    at: Instant,
    l2_closed: bool,
    plane_alive: bool,
}

struct Span {
    scope: Scope,
    what: String,
    from: Instant,
    to: Option<Instant>,
}

/// What was working while something was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weather {
    /// Everything.
    Alive,
    /// L2, but not the backplane.
    PlaneDead,
    /// Not even L2.
    L2Away,
}

impl Timeline {
    /// Notes that a fault begins; the number ends it.
    fn begin(&self, scope: Scope, what: String) -> usize {
        let mut spans = self.spans.lock().unwrap();
        let from = Instant::now();
        spans.push(Span {
            scope,
            what,
            from,
            to: None,
        });
        spans.len() - 1
    }

    fn end(&self, number: usize) {
        self.spans.lock().unwrap()[number].to = Some(Instant::now());
    }

    /// Notes what a process says of itself now.
    pub(crate) fn said(&self, process: usize, l2_closed: bool, plane_alive: bool) {
        self.looks.lock().unwrap().push(Look {
            process,
            at: Instant::now(),
            l2_closed,
            plane_alive,
        });
    }

    pub(crate) fn faults(&self) -> usize {
        self.spans.lock().unwrap().len()
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
            Scope::Plane => false,
        });
        let plane = spans.iter().any(|span| match span.scope {
            Scope::Server | Scope::Plane => hit(span, PLANE_SETTLES),
            // Who cannot commit announces nothing.
            Scope::Store(_) => false,
        });
        // A breaker stays open for longer than what has opened it.
        let looks = self.looks.lock().unwrap();
        let concerned = |look: &&Look| {
            between.contains(&look.process) && look.at + LOOKS >= from && look.at <= to + LOOKS
        };
        let concerned = || looks.iter().rev().filter(concerned);
        let l2 = l2 || concerned().any(|look| !look.l2_closed);
        let plane = plane || concerned().any(|look| !look.plane_alive);
        match (l2, plane) {
            (true, _) => Weather::L2Away,
            (false, true) => Weather::PlaneDead,
            (false, false) => Weather::Alive,
        }
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
                " [{:.2}–{:.2} {}]",
                second(span.from),
                end.unwrap_or(f64::NAN),
                span.what
            );
        }
        text
    }
}

/// Faults of L2, one after the other, until `end`.
pub(crate) async fn trouble_l2(
    mut redis: RedisServer,
    processes: Arc<Vec<Process>>,
    timeline: Arc<Timeline>,
    random: Random,
    end: Instant,
) -> RedisServer {
    let server = [
        ServerFault::KillAndRestart,
        ServerFault::KillAndRestart,
        ServerFault::Hang,
        ServerFault::Hang,
        ServerFault::Pause("ALL"),
        ServerFault::Pause("WRITE"),
        ServerFault::OutOfMemory,
        ServerFault::ReadOnly,
        ServerFault::ForgetScripts,
        ServerFault::KillClients("normal"),
        ServerFault::KillClients("pubsub"),
    ];
    while Instant::now() < end {
        tokio::time::sleep(random.millis(100, 2500)).await;
        if random.below(2) == 0 {
            let fault = random.one_of(&server);
            let scope = match fault {
                ServerFault::KillClients("pubsub") => Scope::Plane,
                _ => Scope::Server,
            };
            let span = timeline.begin(scope, format!("{fault:?}"));
            trouble_server(&mut redis, fault, duration(&random)).await;
            timeline.end(span);
        } else {
            let number = random.below(PROCESSES);
            let fault = link_fault(&random);
            let span = timeline.begin(Scope::Store(number), format!("store {number}: {fault:?}"));
            trouble_link(&processes[number].store, fault, duration(&random)).await;
            timeline.end(span);
        }
    }
    redis
}

/// Mostly short: what matters is how faults begin and end.
fn duration(random: &Random) -> Duration {
    match random.below(4) {
        0 => random.millis(1000, 4500),
        _ => random.millis(50, 1000),
    }
}

/// Faults of the backplane alone, until `end`.
pub(crate) async fn trouble_plane(
    processes: Arc<Vec<Process>>,
    timeline: Arc<Timeline>,
    random: Random,
    end: Instant,
) {
    while Instant::now() < end {
        // Calm enough for the channel to be alive between them.
        tokio::time::sleep(random.millis(1500, 9000)).await;
        let number = random.below(PROCESSES);
        let fault = link_fault(&random);
        let span = timeline.begin(Scope::Plane, format!("backplane {number}: {fault:?}"));
        let pause = random.millis(300, 6000);
        trouble_link(&processes[number].plane, fault, pause).await;
        timeline.end(span);
    }
}

fn link_fault(random: &Random) -> LinkFault {
    random.one_of(&[
        LinkFault::Mode(Mode::BlackHole),
        LinkFault::Mode(Mode::BlackHoleAnswers),
        LinkFault::Mode(Mode::Drip(Duration::from_millis(20))),
        LinkFault::Mode(Mode::Reset),
        LinkFault::Once(Mode::CutAnswerAfter(3)),
        LinkFault::Once(Mode::LoseAnswer),
        LinkFault::Strand,
        LinkFault::Reset,
    ])
}

async fn trouble_link(proxy: &Proxy, fault: LinkFault, pause: Duration) {
    match fault {
        LinkFault::Mode(mode) => proxy.set(mode),
        LinkFault::Once(mode) => proxy.set(mode),
        LinkFault::Strand => proxy.strand(),
        LinkFault::Reset => proxy.reset().await,
    }
    tokio::time::sleep(pause).await;
    proxy.set(Mode::Pass);
}

async fn trouble_server(redis: &mut RedisServer, fault: ServerFault, pause: Duration) {
    let admin = |redis: &RedisServer, command: &str| {
        tokio::task::block_in_place(|| redis.query::<redis::Value>(command));
    };
    match fault {
        ServerFault::KillAndRestart => {
            tokio::task::block_in_place(|| redis.kill());
            tokio::time::sleep(pause).await;
            tokio::task::block_in_place(|| redis.restart());
        }
        ServerFault::Hang => {
            redis.hang();
            tokio::time::sleep(pause).await;
            redis.wake();
        }
        ServerFault::Pause(what) => {
            admin(redis, &format!("CLIENT PAUSE {} {what}", pause.as_millis()));
            tokio::time::sleep(pause).await;
        }
        ServerFault::OutOfMemory => {
            admin(redis, "CONFIG SET maxmemory 1");
            tokio::time::sleep(pause).await;
            admin(redis, "CONFIG SET maxmemory 0");
        }
        ServerFault::ReadOnly => {
            admin(redis, "REPLICAOF 127.0.0.1 1");
            tokio::time::sleep(pause).await;
            admin(redis, "REPLICAOF NO ONE");
        }
        ServerFault::ForgetScripts => admin(redis, "SCRIPT FLUSH"),
        ServerFault::KillClients(kind) => admin(redis, &format!("CLIENT KILL TYPE {kind}")),
    }
}
