//! Commits per second through the engine to a real Redis, beside what `redis-benchmark` reaches
//! with the same script, payload and pipeline depth. The two take turns in one run.

use std::process::Command;
use std::time::{Duration, Instant};

use peers::process::cpu_time;
use peers::redis::Redis;
use peers::report::{bar, median};
use peers::users::{ACCESS, ID, REFRESH, USERS, issue_set, session_id};
use tower_token_cache::{L1, PartitionKey, RedisStore, TokenCache};

const SCRIPT: &str = concat!(
    include_str!("../../../src/store/redis/read.lua"),
    include_str!("../../../src/store/redis/head.lua"),
    include_str!("../../../src/store/redis/commit.lua"),
    "return commit(KEYS[1], ARGV)\n"
);
const ROUNDS: usize = 9;
/// Few enough to fit the bound on pending changes.
const COMMITS: usize = 5_000;
/// The engine has four groups of at most 64 partitions on their way at a time.
const PIPELINE: &str = "64";
const CONNECTIONS: &str = "4";

fn main() {
    let redis = Redis::start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let (mut ours, mut theirs, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    runtime.block_on(async {
        let store = RedisStore::connect(redis.url()).await.unwrap();
        let l1 = L1::new().revalidate_every(None);
        let cache = TokenCache::builder(store).l1(l1).build().unwrap();
        let limit = redis_benchmark(&redis);
        for round in 0..=ROUNDS {
            let (rate, spent) = flush(&cache, round * COMMITS).await;
            let other = limit();
            if round > 0 {
                ours.push(rate);
                cpu.push(spent);
                theirs.push(other);
            }
        }
        assert_eq!(cache.stats().l2_errors, 0);
    });
    drop(redis);
    let mut ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a / b).collect();
    println!("{COMMITS} commits of 7 KiB a round, {ROUNDS} rounds, medians\n");
    println!(
        "redis-benchmark -P {PIPELINE} -c {CONNECTIONS}: {:>8.0} commits/s",
        median(&mut theirs)
    );
    println!(
        "the engine:                   {:>8.0} commits/s",
        median(&mut ours)
    );
    println!(
        "the engine's process:         {:>8.1} CPU µs per commit\n",
        median(&mut cpu)
    );
    let holds = bar("engine / redis-benchmark", median(&mut ratios), 0.7, true);
    std::process::exit(i32::from(!holds));
}

/// Changes partitions one after the other and waits until Redis has all. Returns commits per
/// second, and the CPU time of one in µs.
async fn flush(cache: &TokenCache, first: usize) -> (f64, f64) {
    // The partitions are in memory: what is measured is writing.
    let handles: Vec<_> = (first..first + COMMITS)
        .map(|n| cache.tokens(PartitionKey::session(session_id(n % USERS)).unwrap()))
        .collect();
    for tokens in &handles {
        tokens.keys().await.unwrap();
    }
    let (commits, cpu, start) = (cache.stats().l2_commits, cpu_time(), Instant::now());
    for tokens in &handles {
        tokens.insert("graph", issue_set()).await.unwrap();
    }
    while cache.stats().pending_changes > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let elapsed = start.elapsed().as_secs_f64();
    let commits = (cache.stats().l2_commits - commits) as f64;
    (
        commits / elapsed,
        (cpu_time() - cpu).as_secs_f64() * 1e6 / commits,
    )
}

/// Measures what `redis-benchmark` reaches, in commits per second.
fn redis_benchmark(redis: &Redis) -> impl Fn() -> f64 {
    let loaded = redis.call(&["SCRIPT", "LOAD", SCRIPT]).unwrap();
    let hash = loaded.lines().nth(1).expect("the script's hash").to_owned();
    let port = redis.port.to_string();
    let in_an_hour = std::time::SystemTime::now() + Duration::from_secs(3600);
    let in_an_hour = in_an_hour
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis();
    move || {
        // All are new: what is laid out for the first version is right, as the engine's guess is.
        redis
            .call(&[
                "EVAL",
                "redis.call('SELECT', 1) return redis.call('FLUSHDB')",
                "0",
            ])
            .unwrap();
        let mut command = Command::new("redis-benchmark");
        command.args(["-p", &port, "-c", CONNECTIONS, "-P", PIPELINE, "--csv"]);
        command.args([
            "--dbnum",
            "1",
            "-n",
            &COMMITS.to_string(),
            "-r",
            "1000000000",
        ]);
        // As long as ours; the digits differ from command to command.
        command.args([
            "EVALSHA",
            &hash,
            "1",
            "ttc:{bench-----------------------------__rand_int__}",
        ]);
        command.args([
            "__rand_int__",
            "0",
            "1209600000",
            "0",
            "0",
            "86400000",
            "",
            "0",
            "",
            "",
            "1",
        ]);
        let entries = [(ACCESS, in_an_hour as i128), (REFRESH, -1), (ID, -1)];
        for (number, (bytes, expiry)) in entries.into_iter().enumerate() {
            // What our records add to the text.
            let value = "x".repeat(bytes + 48 + 16);
            command.args([
                &format!("entry----------{number}"),
                &expiry.to_string(),
                &value,
            ]);
        }
        let output = command
            .output()
            .expect("redis-benchmark, of package redis-tools");
        let text = String::from_utf8_lossy(&output.stdout);
        let rate = text.lines().last().and_then(|line| line.split('"').nth(3));
        rate.and_then(|rate| rate.parse().ok())
            .expect("redis-benchmark's CSV")
    }
}
