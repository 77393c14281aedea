//! A thousand users at once of whom memory knows nothing, with Redis far away; beside the same
//! reads over one bare multiplexed connection. The two take turns in one run.

use std::time::{Duration, Instant};

use peers::delay::far_away;
use peers::redis::Redis;
use peers::report::{bar, median};
use peers::users::{issue_set, session_id};
use redis::aio::MultiplexedConnection;
use tokio::task::JoinSet;
use tower_token_cache::{BreakerState, L1, Lookup, PartitionKey, RedisStore, TokenCache};

const USERS: usize = 1_000;
const ROUNDS: usize = 11;
const DELAYS: [u64; 3] = [1, 5, 20];

fn key(user: usize) -> PartitionKey {
    PartitionKey::session(session_id(user)).unwrap()
}

/// From the first question to the last answer, and how many were not answered.
async fn ours(cache: &TokenCache) -> (Duration, usize) {
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for user in 0..USERS {
        let tokens = cache.tokens(key(user));
        tasks.spawn(async move { tokens.get("graph").await.unwrap() });
    }
    let answers = tasks.join_all().await;
    let took = started.elapsed();
    let hits = answers.iter().filter(|it| matches!(it, Lookup::Hit(_)));
    (took, USERS - hits.count())
}

async fn bare(connection: &MultiplexedConnection, keys: &[String]) -> Duration {
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for key in keys.iter().cloned() {
        let mut connection = connection.clone();
        tasks.spawn(async move {
            let mut pipe = redis::pipe();
            pipe.cmd("HGETALL").arg(key).cmd("TIME");
            let answer = pipe.query_async(&mut connection).await;
            let (hash, _): (Vec<redis::Value>, redis::Value) = answer.unwrap();
            assert!(!hash.is_empty(), "every user has tokens");
        });
    }
    tasks.join_all().await;
    started.elapsed()
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let redis = Redis::start();
    let near = RedisStore::connect(redis.url()).await.unwrap();
    let near = TokenCache::builder(near).build().unwrap();
    for user in 0..USERS {
        let tokens = near.tokens(key(user));
        tokens.insert("graph", issue_set()).await.unwrap();
        let _ = tokens.commit().await.unwrap();
    }
    let mut keys = Vec::with_capacity(USERS);
    for user in 0..USERS {
        let id = near.partition_id(&key(user)).await.unwrap();
        keys.push(format!("ttc:{{{}}}", id.encoded()));
    }
    println!("{USERS} users at once that are not in memory; {ROUNDS} rounds; medians\n");
    println!(
        "{:<20} {:>10} {:>14} {:>12} {:>10}",
        "Redis answers after", "ours ms", "connection ms", "unavailable", "breaker"
    );
    let mut ratios = Vec::new();
    let mut unavailable = 0;
    for delay in DELAYS {
        let port = far_away(redis.port, Duration::from_millis(delay));
        let url = format!("redis://127.0.0.1:{port}");
        let client = redis::Client::open(url.as_str()).unwrap();
        let connection = client.get_multiplexed_async_connection().await.unwrap();
        let store = RedisStore::connect(&url).await.unwrap();
        let cache = TokenCache::builder(store).l1(L1::disabled()).build();
        let cache = cache.unwrap();
        let (mut times, mut alone, mut missed) = (Vec::new(), Vec::new(), 0);
        for round in 0..=ROUNDS {
            let (took, lost) = ours(&cache).await;
            missed += lost;
            let bare = bare(&connection, &keys).await;
            // The first round connects.
            if round > 0 {
                times.push(took.as_secs_f64() * 1e3);
                alone.push(bare.as_secs_f64() * 1e3);
            }
        }
        let breaker = cache.stats().l2_state;
        unavailable += missed + usize::from(breaker != BreakerState::Closed);
        let each = times.iter().zip(&alone).map(|(ours, bare)| ours / bare);
        ratios.push((delay, median(&mut each.collect::<Vec<_>>())));
        println!(
            "{:<20} {:>10.1} {:>14.1} {:>12} {:>10}",
            format!("{delay} ms"),
            median(&mut times),
            median(&mut alone),
            missed,
            format!("{breaker:?}"),
        );
    }
    println!();
    let mut holds = bar("reads unavailable", unavailable as f64, 0.0, false);
    for (delay, ratio) in ratios {
        let what = format!("ours / one multiplexed connection, {delay} ms");
        holds &= bar(&what, ratio, 1.5, false);
    }
    drop(redis);
    std::process::exit(i32::from(!holds));
}
