//! Real faults: three processes under constant load, while Redis and the network before it fail at
//! random from a seed; then everything heals.
//!
//! `CHAOS_SECONDS` is how long (60), `CHAOS_SEED` the seed (random, and printed). The seed decides
//! which faults there are and what the load does; how they fall together depends on the machine.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../common/mod.rs"]
mod common;
mod faults;
mod fleet;
mod load;
mod random;
mod report;
mod sessions;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::playground::Playground;
use common::provider::Provider;
use common::redis::RedisServer;
use faults::Weather;
use fleet::{PROCESSES, Process};
use futures_util::stream::{self, StreamExt};
use load::{World, Written};
use random::Random;
use report::{Kind, Report};
use tokio::task::JoinSet;

/// How long everything may take to be as before: the longest pause of a breaker, and then some.
const RECOVERY: Duration = Duration::from_secs(60);
/// With the backplane alive a change is noticed in milliseconds; this much is the machine's.
const ALIVE_BOUND: Duration = Duration::from_millis(1500);
/// With the backplane dead: three seconds until that is noticed, one between comparisons, and one
/// for each.
const DEAD_BOUND: Duration = Duration::from_millis(5500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices() {
    let setting = |name: &str| Some(std::env::var(name).ok()?.parse().expect(name));
    let seconds = setting("CHAOS_SECONDS").unwrap_or(60);
    let seed = setting("CHAOS_SEED").unwrap_or_else(|| getrandom::u64().unwrap() % 1_000_000);
    let run = format!("CHAOS_SECONDS={seconds} CHAOS_SEED={seed}");
    common::many_connections();
    let text = run_chaos(seed, Duration::from_secs(seconds)).await;
    // Past the harness, which shows the output of failed tests only.
    let (text, failed) = text;
    let _ = write!(std::io::stderr(), "\n{run}\n{text}");
    assert_eq!(failed, 0, "{run}: see above");
}

async fn run_chaos(seed: u64, time: Duration) -> (String, usize) {
    let random = Random::new(seed);
    let redis = RedisServer::start_persistent();
    let provider = Provider::start().await;
    // Their last fifth is when they are replaced ahead of need.
    provider.set(|behaviour| behaviour.expires_in = 3);
    let mut processes = Vec::new();
    for number in 0..PROCESSES {
        processes.push(Process::start(number, &redis, &provider).await);
    }
    let started = Instant::now();
    let world = Arc::new(World {
        processes: Arc::new(processes),
        provider,
        report: Report::default(),
        timeline: Arc::default(),
        started,
        stopped: false.into(),
        written: Vec::new().into(),
        counters: Default::default(),
        signed_out: Vec::new().into(),
    });
    recovered(&world).await;
    load::warm_up(&world).await;
    let load = start_load(&world, &random).await;

    let end = Instant::now() + time;
    let plane = tokio::spawn(faults::trouble_plane(
        world.processes.clone(),
        world.timeline.clone(),
        random.fork(1),
        end,
    ));
    let redis = faults::trouble_l2(
        redis,
        world.processes.clone(),
        world.timeline.clone(),
        random.fork(2),
        end,
    );
    let redis = redis.await;
    plane.await.unwrap();
    for process in world.processes.iter() {
        process.heal().await;
    }
    world.stopped.store(true, Ordering::Relaxed);
    load.join_all().await;
    let healed = Instant::now();
    recovered(&world).await;
    world.report.count(
        "ms until all had recovered",
        healed.elapsed().as_millis() as usize,
    );
    judge(&world, &redis).await;
    (world.report.print(), world.report.violations())
}

async fn start_load(world: &Arc<World>, random: &Random) -> JoinSet<()> {
    let mut load = JoinSet::new();
    let mut forks = (10..).map(|number| random.fork(number));
    let mut fork = || forks.next().unwrap();
    for process in 0..PROCESSES {
        load.spawn(load::read_held(world.clone(), process, fork()));
        load.spawn(load::read_unknown(world.clone(), process));
        load.spawn(load::measure_noise(world.clone(), process));
    }
    for number in 0..3 {
        load.spawn(load::write(world.clone(), Kind::Strict, number, fork()));
        load.spawn(load::write(world.clone(), Kind::Kept, number, fork()));
        load.spawn(load::count_up(world.clone(), number, fork()));
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
async fn judge(world: &World, redis: &RedisServer) {
    let report = &world.report;
    report.count("faults", world.timeline.faults());
    report.judge_latency(|from, to| world.timeline.describe(world.started, from, to));
    let fresh = Playground::start("playground", &["--store", &redis.url()]);
    let old = world.processes.iter().map(|process| &process.playground);
    let all: Vec<(usize, &Playground)> = old.chain([&fresh]).enumerate().collect();

    let written = world.written.lock().unwrap().clone();
    let acknowledged = written.iter().filter(|it| it.acknowledged).count();
    report.count("changes acknowledged", acknowledged);
    report.count("changes accepted, for later", written.len() - acknowledged);
    let signed_out = world.signed_out.lock().unwrap().clone();
    report.count("sign-outs", signed_out.len());
    let counters: Vec<_> = world.counters.lock().unwrap().clone().into_iter().collect();
    report.count(
        "counted up to",
        counters.iter().map(|it| it.1 as usize).sum(),
    );
    for (number, playground) in all {
        let check = |it: &Written| has_change(world, number, playground, it.clone());
        let checks = stream::iter(&written).map(check).buffer_unordered(16);
        checks.collect::<Vec<()>>().await;
        for session in &signed_out {
            let left = playground.get(session, "/tokens").await;
            if left.body != sessions::none() {
                let how = format!("{session} at process {number}: {:?}", left.body);
                report.violated("nobody is back after a sign-out", how);
            }
        }
        for (session, value) in &counters {
            let token = playground.get(session, "/tokens/n").await.body["access_token"].clone();
            let seen = token.as_str().and_then(|token| token.parse::<u64>().ok());
            if seen.is_none_or(|seen| seen < *value) {
                let how = format!("{session} at process {number}: {seen:?} < {value}");
                report.violated("no acknowledged change is lost", how);
            }
        }
    }
    report.count("calls to the provider", world.provider.calls() as usize);
    if world.provider.reuses() > 0 {
        let how = format!("{} spent ones were", world.provider.reuses());
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
    for (weather, bound) in [
        (Weather::Alive, ALIVE_BOUND),
        (Weather::PlaneDead, DEAD_BOUND),
    ] {
        if let Some(longest) = report.longest(weather).filter(|it| *it > bound) {
            report.violated(
                "nothing stale for long",
                format!("{weather:?}: {longest:?}"),
            );
        }
    }
}

async fn has_change(world: &World, number: usize, playground: &Playground, it: Written) {
    let answer = playground
        .get(&it.session, &format!("/tokens/{}", it.name))
        .await;
    if answer.status == 200 && answer.body["access_token"] == *it.token {
        return;
    }
    let how = format!("{} {} at process {number}: {answer:?}", it.session, it.name);
    let rule = match it.acknowledged {
        true => "no acknowledged change is lost",
        false => "no accepted change is lost",
    };
    world.report.violated(rule, how);
}
