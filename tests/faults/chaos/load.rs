//! Reads and changes at a steady rate, and what is remembered of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};

use super::fleet::{PROCESSES, Process};
use super::machine::Machine;
use super::random::Random;
use super::report::{Kind, Report, StaleRead};
use super::timeline::Timeline;
use common::playground::Answer;
use common::provider::Provider;

/// Users who are in L1 of every process from the beginning.
const HELD: usize = 50;
/// Entries of one user, before the next user has a turn.
const ENTRIES: usize = 20;
/// Entries that are counted up, and read elsewhere.
pub(crate) const COUNTERS: usize = PROCESSES;

pub(crate) const STRICT: [(&str, &str); 2] =
    [("x-failure-policy", "strict"), ("x-write-mode", "before")];

/// What all load shares.
pub(crate) struct World {
    pub(crate) processes: Arc<Vec<Process>>,
    pub(crate) provider: Provider,
    pub(crate) report: Report,
    pub(crate) timeline: Arc<Timeline>,
    pub(crate) machine: Machine,
    pub(crate) started: Instant,
    pub(crate) stopped: AtomicBool,
    pub(crate) written: Mutex<Vec<Written>>,
    /// The acknowledged values of each counter, in order.
    pub(crate) counters: [Mutex<Vec<Counted>>; COUNTERS],
    pub(crate) signed_out: Mutex<Vec<(String, Instant)>>,
}

/// A value of a counter that L2 has acknowledged.
#[derive(Clone, Copy)]
pub(crate) struct Counted {
    pub(crate) value: u64,
    pub(crate) at: Instant,
}

/// A change that was answered with 204.
#[derive(Clone)]
pub(crate) struct Written {
    pub(crate) process: usize,
    pub(crate) at: Instant,
    pub(crate) session: String,
    pub(crate) name: String,
    pub(crate) token: String,
    /// L2 had it then; otherwise it was to be written later.
    pub(crate) acknowledged: bool,
}

impl World {
    pub(crate) fn is_over(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Sends a request, and counts its answer. There always has to be one.
    pub(crate) async fn ask(
        &self,
        kind: Kind,
        process: usize,
        (method, path): (&str, &str),
        headers: &[(&str, &str)],
        body: &str,
    ) -> Option<Answer> {
        let sent = Instant::now();
        let playground = &self.processes[process].playground;
        let answer = playground.try_send(method, path, headers, body);
        let answer = timeout(Duration::from_secs(120), answer).await;
        match answer.ok().flatten() {
            Some(answer) => {
                self.report.answered(kind, process, sent, answer.status);
                Some(answer)
            }
            None => {
                let how = format!("{kind:?} at process {process}: {}", self.since(sent));
                self.report.violated("every request is answered", how);
                None
            }
        }
    }

    pub(crate) async fn get(
        &self,
        kind: Kind,
        process: usize,
        session: &str,
        name: &str,
    ) -> Option<Answer> {
        let path = format!("/tokens/{name}");
        self.ask(kind, process, ("GET", &path), &[("x-session", session)], "")
            .await
    }

    /// Puts a token that lasts for so many seconds; whether that was accepted.
    pub(crate) async fn put(
        &self,
        kind: Kind,
        process: usize,
        session: &str,
        name: &str,
        (token, seconds): (&str, u64),
    ) -> bool {
        let body = json!({"access_token": token, "expires_in": seconds}).to_string();
        let path = format!("/tokens/{name}");
        let mut headers = vec![("x-session", session)];
        if kind == Kind::Strict {
            headers.extend(STRICT);
        }
        let answer = self.ask(kind, process, ("PUT", &path), &headers, &body);
        answer.await.is_some_and(|answer| answer.status == 204)
    }

    /// The faults since then, in words.
    pub(crate) fn since(&self, from: Instant) -> String {
        let now = Instant::now();
        let second = (from - self.started).as_secs_f64();
        let faults = self.timeline.describe(self.started, from, now);
        format!("{second:.2} s + {:?}{faults}", now - from)
    }
}

/// Brings the users into L1 of every process.
pub(crate) async fn warm_up(world: &World) {
    for user in 0..HELD {
        let (session, token) = held(user);
        let put = world.put(Kind::Strict, 0, &session, "a", (&token, 3600));
        assert!(put.await, "L2 is there");
    }
    for process in 0..PROCESSES {
        for user in 0..HELD {
            world.get(Kind::Read, process, &held(user).0, "a").await;
        }
    }
}

fn held(user: usize) -> (String, String) {
    (format!("held-{user}"), format!("token-of-{user}"))
}

/// Users in L1 come at a steady rate, whether others are answered or not. Each has to be served.
pub(crate) async fn read_held(world: Arc<World>, process: usize, random: Random) {
    let mut tick = interval(Duration::from_millis(10));
    let mut requests = JoinSet::new();
    while !world.is_over() {
        tick.tick().await;
        let (session, token) = held(random.below(HELD));
        let world = world.clone();
        requests.spawn(async move {
            let sent = Instant::now();
            let answer = world.get(Kind::Held, process, &session, "a").await;
            let served = answer
                .as_ref()
                .is_some_and(|it| it.status == 200 && it.body["access_token"] == *token);
            if !served {
                let how = format!("process {process}: {answer:?}, {}", world.since(sent));
                world.report.violated("users in L1 are served", how);
            }
        });
        while requests.try_join_next().is_some() {}
    }
    requests.join_all().await;
}

/// What a process says of itself, all the time.
pub(crate) async fn look_at_status(world: Arc<World>, process: usize) {
    let mut tick = interval(Duration::from_millis(50));
    let mut requests = JoinSet::new();
    while !world.is_over() {
        tick.tick().await;
        let world = world.clone();
        requests.spawn(async move {
            let get = ("GET", "/status");
            let asked = Instant::now();
            let Some(answer) = world.ask(Kind::Status, process, get, &[], "").await else {
                return;
            };
            let closed = answer.body["l2_state"] == "closed";
            let alive = answer.body["feed_alive"] == true;
            let bound = answer.body["staleness_bound_ms"].as_u64();
            let bound = bound.map(Duration::from_millis);
            let states = (closed, alive);
            world.timeline.said(process, asked, states, bound);
            world.report.count("looks at /status", 1);
            world.report.count("… with the feed alive", alive.into());
            world.report.count("… with L2 closed", closed.into());
        });
        while requests.try_join_next().is_some() {}
    }
    requests.join_all().await;
}

/// Users whom nobody knows.
pub(crate) async fn read_unknown(world: Arc<World>, process: usize) {
    let mut tick = interval(Duration::from_millis(100));
    let mut requests = JoinSet::new();
    for number in 0.. {
        if world.is_over() {
            break;
        }
        tick.tick().await;
        let world = world.clone();
        requests.spawn(async move {
            let session = format!("unknown-{process}-{number}");
            let answer = world.get(Kind::Unknown, process, &session, "a").await;
            if answer.is_some_and(|answer| answer.status != 404) {
                let how = format!("process {process}");
                world.report.violated("unknown users are answered 404", how);
            }
        });
        while requests.try_join_next().is_some() {}
    }
    requests.join_all().await;
}

/// Changes of entries that are never changed again, on any process.
pub(crate) async fn write(world: Arc<World>, kind: Kind, number: usize, random: Random) {
    for serial in 0.. {
        if world.is_over() {
            return;
        }
        let session = format!("{kind:?}-{number}-{}", serial / ENTRIES);
        let (name, token) = (format!("e{}", serial % ENTRIES), format!("token-{serial}"));
        let process = random.below(PROCESSES);
        let put = world.put(kind, process, &session, &name, (&token, 3600));
        if put.await {
            let mut written = world.written.lock().unwrap();
            written.push(Written {
                process,
                at: Instant::now(),
                session,
                name,
                token,
                acknowledged: kind == Kind::Strict,
            });
        }
        sleep(random.millis(20, 80)).await;
    }
}

pub(crate) fn counter(number: usize) -> String {
    format!("counter-{number}")
}

/// Counts in one process.
pub(crate) async fn count_up(world: Arc<World>, number: usize, random: Random) {
    let session = counter(number);
    let own = number % PROCESSES;
    for value in 1.. {
        if world.is_over() {
            return;
        }
        let token = value.to_string();
        let put = world.put(Kind::Strict, own, &session, "n", (&token, 3600));
        if put.await {
            let at = Instant::now();
            let counted = Counted { value, at };
            world.counters[number].lock().unwrap().push(counted);
            let seen = self::counted(&world, own, &session).await;
            if seen.is_none_or(|seen| seen < value)
                && !world.timeline.may_be_lost(at, Instant::now())
            {
                let how = format!("{session} at process {own}, {}", world.since(at));
                world.report.violated("who writes reads it", how);
            }
        }
        sleep(random.millis(20, 150)).await;
    }
}

/// Reads a counter in another process, and notes how old is what it has missed.
pub(crate) async fn compare(world: Arc<World>, number: usize, process: usize) {
    let session = counter(number);
    let mut tick = interval(Duration::from_millis(40));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !world.is_over() {
        tick.tick().await;
        let asked = Instant::now();
        let answer = world.get(Kind::Read, process, &session, "n").await;
        // An answer that says that it does not know has missed nothing.
        if answer.as_ref().and_then(|answer| answer.level.as_deref()) == Some("unavailable") {
            world
                .report
                .count("reads of counters that were not known", 1);
            continue;
        }
        let seen = answer.and_then(value).unwrap_or(0);
        let missed = {
            let counted = world.counters[number].lock().unwrap();
            let next = counted.partition_point(|counted| counted.value <= seen);
            counted
                .get(next)
                .copied()
                .filter(|missed| missed.at < asked)
        };
        world.report.read(StaleRead {
            between: [number % PROCESSES, process],
            asked,
            answered: Instant::now(),
            missed: missed.map(|missed| missed.at),
        });
    }
}

/// The value of a counter in a process.
pub(crate) async fn counted(world: &World, process: usize, session: &str) -> Option<u64> {
    world
        .get(Kind::Read, process, session, "n")
        .await
        .and_then(value)
}

fn value(answer: Answer) -> Option<u64> {
    answer.body["access_token"].as_str()?.parse().ok()
}
