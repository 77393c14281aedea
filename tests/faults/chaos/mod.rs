//! Real faults: three processes under constant load, while Redis and the network before it fail at
//! random from a seed; then everything heals. Once with a single server, once with a cluster, once
//! with sentinels.
//!
//! | variable | is |
//! |---|---|
//! | `CHAOS_SECONDS` | how long the faults of each run last (20) |
//! | `CHAOS_SEED` | the seed; random if there is none, and printed. It decides which faults there are and what the load does; how they fall together depends on the machine |
//! | `CHAOS_TOPOLOGY` | the one run to make: `server`, `cluster` or `sentinel` |
//!
//! # What is demanded
//!
//! Of a single server, which writes to disk before it answers: that no acknowledged or accepted
//! change is lost, no sign-out undone, no token served past its expiry, no refresh token redeemed
//! twice, that users in L1 are always served, nobody waits for longer than the operation timeout and 100 ms,
//! and no read is staler than its process has stated in `/status` (unless L2 is away, when nobody can
//! know). What is subtracted from a time is how late the machine itself was: see `machine`.
//!
//! Of a cluster and of sentinels the same, but for failovers: Redis replicates after it has answered,
//! so what the old master has acknowledged just before, or goes on to acknowledge until its clients
//! have left it, may be gone afterwards, a sign-out included. From a second before each failover to
//! three after the old master follows the new one, these may be lost, and are counted: changes, with
//! them what else is in their session (its versions are given again), sign-outs, and refresh tokens,
//! of which the provider then sees the spent one. Everything else is demanded all the same. A master
//! of a cluster that is told to give way waits for its successor: then nothing may be lost, nor when
//! slots move, nor when a master is back before it is missed.
//!
//! What L2 has lost, who has it in L1 writes to L2 again when it comes across it; how much of what
//! was lost was there again is counted.

mod faults;
mod fleet;
mod load;
mod machine;
mod random;
mod report;
mod servers;
mod sessions;
mod timeline;
mod topologies;

use std::collections::HashSet;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::playground::Playground;
use common::provider::Provider;
use fleet::{PROCESSES, Process};
use futures_util::stream::{self, StreamExt};
use load::{World, Written};
use machine::Machine;
use random::Random;
use report::{Kind, Report};
use servers::{Servers, Topology};
use timeline::{Timeline, Weather};
use tokio::task::JoinSet;

use crate::MACHINE;

/// How long everything may take to be as before: the longest pause of a breaker, and then some.
const RECOVERY: Duration = Duration::from_secs(60);
/// How long after it was accepted a change is on its way, and while L2 is away and for as long as the
/// longest pause of a breaker.
const ON_ITS_WAY: Duration = Duration::from_secs(2);
const ON_ITS_WAY_BY_TROUBLE: Duration = Duration::from_secs(35);

/// A run.
#[derive(Clone, Copy)]
struct Plan {
    topology: Topology,
    seed: u64,
    time: Duration,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_what_happens_to_a_server() {
    run_of(Topology::Server, "server").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_what_happens_to_a_cluster() {
    run_of(Topology::Cluster, "cluster").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_what_happens_behind_sentinels() {
    run_of(Topology::Sentinel, "sentinel").await;
}

async fn run_of(topology: Topology, name: &str) {
    if std::env::var("CHAOS_TOPOLOGY").is_ok_and(|only| only != name) {
        return;
    }
    let _running = MACHINE.lock().await;
    let setting = |name: &str| Some(std::env::var(name).ok()?.parse().expect(name));
    let seconds = setting("CHAOS_SECONDS").unwrap_or(20);
    let seed = setting("CHAOS_SEED").unwrap_or_else(|| getrandom::u64().unwrap() % 1_000_000);
    let text = format!("CHAOS_TOPOLOGY={name} CHAOS_SECONDS={seconds} CHAOS_SEED={seed}");
    common::many_connections();
    let plan = Plan {
        topology,
        seed,
        time: Duration::from_secs(seconds),
    };
    let report = run(plan).await;
    // Past the harness, which shows the output of failed tests only.
    let _ = write!(std::io::stderr(), "\n{text}\n{}", report.print());
    assert_eq!(report.violations(), 0, "{text}: see above");
}

async fn run(plan: Plan) -> Report {
    let random = Random::new(plan.seed);
    let servers = Servers::start(plan.topology).await;
    let provider = Provider::start().await;
    // Their last fifth is when they are replaced ahead of need.
    provider.set(|behaviour| behaviour.expires_in = 3);
    let mut processes = Vec::new();
    for number in 0..PROCESSES {
        processes.push(Process::start(number, &servers, &provider).await);
    }
    let started = Instant::now();
    let ids = processes.iter().map(|process| process.playground.id());
    let ids = ids.collect();
    let world = Arc::new(World {
        processes: Arc::new(processes),
        provider,
        report: Report::default(),
        timeline: Arc::new(Timeline::new(plan.topology != Topology::Server)),
        machine: Machine::watch(ids),
        started,
        stopped: false.into(),
        written: Vec::new().into(),
        counters: Default::default(),
        signed_out: Vec::new().into(),
    });
    recovered(&world).await;
    load::warm_up(&world).await;
    let load = start_load(&world, &random).await;

    let end = Instant::now() + plan.time;
    let mut servers = faults::trouble_l2(
        servers,
        world.processes.clone(),
        world.timeline.clone(),
        random.fork(2),
        end,
    )
    .await;
    for process in world.processes.iter() {
        process.heal().await;
    }
    servers.in_step().await;
    world.stopped.store(true, Ordering::Relaxed);
    load.join_all().await;
    let healed = Instant::now();
    recovered(&world).await;
    world.report.count(
        "ms until all had recovered",
        healed.elapsed().as_millis() as usize,
    );
    judge(&world, &servers).await;
    let world = Arc::into_inner(world).expect("all that used it has ended");
    world.report
}

async fn start_load(world: &Arc<World>, random: &Random) -> JoinSet<()> {
    let mut load = JoinSet::new();
    let mut forks = (10..).map(|number| random.fork(number));
    let mut fork = || forks.next().unwrap();
    for process in 0..PROCESSES {
        load.spawn(load::read_held(world.clone(), process, fork()));
        load.spawn(load::read_unknown(world.clone(), process));
        load.spawn(load::look_at_status(world.clone(), process));
    }
    for number in 0..3 {
        load.spawn(load::write(world.clone(), Kind::Strict, number, fork()));
        load.spawn(load::write(world.clone(), Kind::Kept, number, fork()));
        load.spawn(load::count_up(world.clone(), number, fork()));
        for other in (0..PROCESSES).filter(|other| *other != number % PROCESSES) {
            load.spawn(load::compare(world.clone(), number, other));
        }
        load.spawn(sessions::sign_out(world.clone(), number, fork()));
    }
    for number in 0..4 {
        load.spawn(sessions::expire(world.clone(), number, fork()));
    }
    for number in 0..4 {
        for only in [None, Some(number % PROCESSES)] {
            let user = format!("refresher-{number}-{}", only.is_some());
            sessions::sign_in(world, &user).await;
            load.spawn(sessions::refresh(world.clone(), user, only, fork()));
        }
    }
    load
}

/// Waits until nothing is left of the faults.
async fn recovered(world: &World) {
    let deadline = Instant::now() + RECOVERY;
    for (number, process) in world.processes.iter().enumerate() {
        while !process.has_recovered().await {
            if Instant::now() > deadline {
                let status = process.playground.try_status().await;
                let how = format!("process {number}: {status:?}");
                return world.report.violated("everything recovers", how);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Looks at what is left, in the three processes and in one that has nothing in memory.
async fn judge(world: &World, servers: &Servers) {
    let (report, timeline) = (&world.report, &world.timeline);
    report.count("faults", timeline.faults());
    report.count("failovers that may lose something", timeline.failovers());
    let describe = |from, to| timeline.describe(world.started, from, to);
    report.judge_latency(&world.machine, describe);
    report.judge_staleness(timeline, &world.machine, describe);

    let written = world.written.lock().unwrap().clone();
    let acknowledged = written.iter().filter(|it| it.acknowledged).count();
    report.count("changes acknowledged", acknowledged);
    report.count("changes accepted, for later", written.len() - acknowledged);
    let may_be_lost = |it: &&Written| {
        let late = match it.acknowledged {
            true => Duration::ZERO,
            false => on_its_way(timeline, it.process, it.at),
        };
        timeline.may_be_lost(it.at, it.at + late)
    };
    let excused = written.iter().filter(may_be_lost);
    let excused: HashSet<&str> = excused.map(|it| it.session.as_str()).collect();
    let (at_risk, safe): (Vec<_>, Vec<_>) = written
        .iter()
        .partition(|it| excused.contains(it.session.as_str()));
    report.count("changes that a failover may have lost", at_risk.len());
    let signed_out = world.signed_out.lock().unwrap().clone();
    report.count("sign-outs", signed_out.len());

    let fresh = || Playground::start("playground", &["--store", &servers.url()]);
    // Before those who have it in memory come across what is lost.
    let first = fresh();
    let lost = missing(&first, &at_risk).await;
    report.count("… that L2 has lost", lost.len());
    let last = fresh();
    let old = world.processes.iter().map(|process| &process.playground);
    let all: Vec<(usize, &Playground)> = old.chain([&last]).enumerate().collect();
    for (number, playground) in all {
        for (it, found) in missing(playground, &safe).await {
            let faults = timeline.describe(world.started, it.at, it.at + ON_ITS_WAY);
            let when = (it.at - world.started).as_secs_f64();
            let how = format!(
                "{} {} at process {number}: {found}, {when:.2} s{faults}",
                it.session, it.name
            );
            let rule = match it.acknowledged {
                true => "no acknowledged change is lost",
                false => "no accepted change is lost",
            };
            report.violated(rule, how);
        }
        let lost = missing(playground, &at_risk).await;
        let what = match number < PROCESSES {
            true => "… that a process has not",
            false => "… that L2 has not at last",
        };
        report.count(what, lost.len());
        for (session, at) in &signed_out {
            let left = playground.get(session, "/tokens").await;
            if left.body == sessions::none() {
                continue;
            }
            if timeline.may_be_lost(*at, *at + ON_ITS_WAY) {
                report.count("sign-outs that a failover has undone", 1);
                continue;
            }
            let how = format!("{session} at process {number}: {:?}", left.body);
            report.violated("nobody is back after a sign-out", how);
        }
        for (counter, values) in world.counters.iter().enumerate() {
            let last = values.lock().unwrap().last().copied();
            let Some(last) = last else { continue };
            let session = load::counter(counter);
            let token = playground.get(&session, "/tokens/n").await.body["access_token"].clone();
            let seen = token.as_str().and_then(|token| token.parse::<u64>().ok());
            let is_lost = seen.is_none_or(|seen| seen < last.value);
            if is_lost && !timeline.may_be_lost(last.at, last.at) {
                let how = format!("{session} at process {number}: {seen:?} < {}", last.value);
                report.violated("no acknowledged change is lost", how);
            }
        }
        // What was found to be lost is written again.
        recovered(world).await;
    }
    let values = world
        .counters
        .iter()
        .map(|values| values.lock().unwrap().len());
    report.count("changes of counters", values.sum());
    report.count("calls to the provider", world.provider.calls() as usize);
    let reuses = world.provider.reuses();
    report.count("spent refresh tokens", reuses as usize);
    if reuses > 0 && timeline.failovers() == 0 {
        let how = format!("{reuses} spent ones were");
        report.violated("a refresh token is redeemed once", how);
    }
    for process in world.processes.iter() {
        let status = process.playground.try_status().await.unwrap();
        for counter in ["abandoned_changes", "unopenable"] {
            if status[counter] != 0 {
                report.violated(
                    "nothing is given up",
                    format!("{counter}: {}", status[counter]),
                );
            }
        }
        for counter in [
            "recovered_changes",
            "superseded_changes",
            "signed_out_changes",
            "l2_errors",
        ] {
            report.count(counter, status[counter].as_u64().unwrap() as usize);
        }
    }
}

/// Until when a change that was accepted then may have been written.
fn on_its_way(timeline: &Timeline, process: usize, at: Instant) -> Duration {
    match timeline.weather([process; 2], at, at + ON_ITS_WAY) {
        Weather::L2Away => ON_ITS_WAY_BY_TROUBLE,
        _ => ON_ITS_WAY,
    }
}

/// Which of these changes a process does not know, and what it knows instead.
async fn missing<'a>(
    playground: &Playground,
    written: &[&'a Written],
) -> Vec<(&'a Written, String)> {
    let look = async |it: &&'a Written| {
        let path = format!("/tokens/{}", it.name);
        let answer = playground.get(&it.session, &path).await;
        let is_there = answer.status == 200 && answer.body["access_token"] == *it.token;
        (!is_there).then(|| (*it, format!("{answer:?}")))
    };
    let looks = stream::iter(written).map(look).buffer_unordered(16);
    looks.filter_map(async |missing| missing).collect().await
}
