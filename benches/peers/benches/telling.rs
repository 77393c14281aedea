//! What it costs Redis to tell so many instances of each commit: by the change feed, beside a `PUBLISH` in the
//! script of the commit. The two take turns in one run.

use std::time::Duration;

use futures_util::future::join_all;
use peers::redis::Redis;
use peers::report::{bar, median};
use peers::users::{ACCESS, ID, REFRESH};
use redis::aio::MultiplexedConnection;
use tokio::runtime::Handle;
use tower_token_cache::{RedisStore, TokenCache};

const SCRIPT: &str = concat!(
    include_str!("../../../src/store/redis/read.lua"),
    include_str!("../../../src/store/redis/head.lua"),
    include_str!("../../../src/store/redis/commit.lua"),
);

const INSTANCES: [usize; 3] = [2, 20, 100];
const ROUNDS: usize = 7;
const COMMITS: usize = 2_560;
/// Requests that change something one after the other, groups as one busy engine sends them, groups that the
/// server reads in one turn of its loop, and a fleet each of whose instances changes something.
const CASES: [Case; 5] = [
    Case::new(1, 1, [ACCESS, REFRESH, ID]),
    Case::new(1, 64, [ACCESS, REFRESH, ID]),
    Case::new(1, 64, [32; 3]),
    Case::new(100, 1, [ACCESS, REFRESH, ID]),
    Case::new(100, 1, [32; 3]),
];

/// How commits come.
#[derive(Clone, Copy)]
struct Case {
    /// So many write at the same time, each on a connection of its own.
    writers: usize,
    /// So many commits each of them sends before it waits.
    group: usize,
    values: [usize; 3],
}

impl Case {
    const fn new(writers: usize, group: usize, values: [usize; 3]) -> Self {
        Self {
            writers,
            group,
            values,
        }
    }

    fn name(self) -> String {
        let (bytes, group) = (self.values.iter().sum::<usize>(), self.group);
        match self.writers {
            1 => format!("{bytes} bytes, {group} at a time"),
            writers => format!("{bytes} bytes, of {writers} writers"),
        }
    }
}

/// A partition's name, its revision and who has written it.
const MESSAGE: usize = 72;

/// Who listens, for as long as this is held.
type Listeners = Vec<Box<dyn std::any::Any>>;

struct Writer {
    redis: Redis,
    plain: MultiplexedConnection,
    /// One of each writer.
    writers: Vec<MultiplexedConnection>,
    /// The one of a commit, and the same with a message.
    scripts: Vec<String>,
    ids: Vec<String>,
    count: u64,
}

/// Of one commit.
#[derive(Clone, Copy, Default)]
struct Cost {
    /// Of the server, in µs.
    cpu: f64,
    /// Sent to all clients.
    bytes: f64,
}

impl Writer {
    async fn new() -> Self {
        let redis = Redis::start();
        let client = redis::Client::open(redis.url()).unwrap();
        let mut plain = client.get_multiplexed_async_connection().await.unwrap();
        let mut writers = Vec::new();
        for _ in 0..CASES.map(|case| case.writers).into_iter().max().unwrap() {
            writers.push(client.get_multiplexed_async_connection().await.unwrap());
        }
        let mut scripts = Vec::new();
        let message = "x".repeat(MESSAGE);
        for tells in [
            String::new(),
            format!("redis.call('PUBLISH', 'ttc', '{message}')\n"),
        ] {
            let script = format!("{SCRIPT}{tells}return commit(KEYS[1], ARGV)\n");
            let mut load = redis::cmd("SCRIPT");
            let load = load.arg("LOAD").arg(script);
            scripts.push(load.query_async(&mut plain).await.unwrap());
        }
        // As long as the name of a partition.
        let name = |number: usize| format!("ttc:{{session{number:-<36}}}");
        Self {
            plain,
            writers,
            scripts,
            ids: (0..COMMITS).map(name).collect(),
            redis,
            count: 0,
        }
    }

    async fn listeners(&self, instances: usize, feeds: bool) -> Listeners {
        if !feeds {
            let client = redis::Client::open(self.redis.url()).unwrap();
            let mut all = Listeners::new();
            for _ in 0..instances {
                let mut one = client.get_async_pubsub().await.unwrap();
                one.subscribe("ttc").await.unwrap();
                all.push(Box::new(one));
            }
            return all;
        }
        let mut all = Listeners::new();
        for _ in 0..instances {
            let store = RedisStore::connect(self.redis.url()).await.unwrap();
            let cache = TokenCache::builder(store).runtime(Handle::current());
            let cache = cache.build().unwrap();
            while cache.stats().feed_alive != Some(true) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            all.push(Box::new(cache));
        }
        all
    }

    async fn usage(&self) -> Cost {
        let mut plain = self.plain.clone();
        let mut info = redis::cmd("INFO");
        let info = info.arg("everything").query_async(&mut plain).await;
        let info: String = info.unwrap();
        let field = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().parse::<f64>().unwrap()
        };
        Cost {
            cpu: 1e6 * (field("used_cpu_user:") + field("used_cpu_sys:")),
            bytes: field("total_net_output_bytes:"),
        }
    }

    /// Commits to all partitions; the script tells of each where `publishes`.
    async fn round(&mut self, case: Case, publishes: bool) -> Cost {
        let before = self.usage().await;
        let count = self.count;
        self.count += self.ids.len() as u64;
        let script = self.scripts[usize::from(publishes)].as_str();
        let version = count / self.ids.len() as u64 + 1;
        let numbered: Vec<_> = (count + 1..)
            .zip(self.ids.iter().map(String::as_str))
            .collect();
        let shares = numbered.chunks(self.ids.len().div_ceil(case.writers));
        let writers = self.writers.iter().zip(shares);
        join_all(writers.map(|(connection, share)| async move {
            for group in share.chunks(case.group) {
                let commits = group_of(script, group, version, case.values);
                commits.exec_async(&mut connection.clone()).await.unwrap();
            }
        }))
        .await;
        let after = self.usage().await;
        let commits = self.ids.len() as f64;
        Cost {
            cpu: (after.cpu - before.cpu) / commits,
            bytes: (after.bytes - before.bytes) / commits,
        }
    }
}

/// Commits that are sent together.
fn group_of(
    script: &str,
    ids: &[(u64, &str)],
    version: u64,
    values: [usize; 3],
) -> redis::Pipeline {
    // Laid out as entries are.
    let values = values.map(|bytes| vec![b'x'; bytes + 16]);
    let mut pipe = redis::pipe();
    for (number, id) in ids {
        let commit = pipe.cmd("EVALSHA").arg(script).arg(1).arg(*id);
        // Its id, the generation and the lifetimes; what it expects; the version of its values.
        commit.arg(&number.to_be_bytes()).arg(0);
        commit.arg(1_209_600_000).arg(0).arg(0).arg(86_400_000);
        commit.arg("").arg(0).arg("").arg("").arg(version);
        for (at, value) in values.iter().enumerate() {
            commit
                .arg(format!("entry----------{at}"))
                .arg(-1)
                .arg(value);
        }
        commit.ignore();
    }
    pipe
}

/// What telling adds to a commit: medians over the rounds.
async fn added(writer: &mut Writer, case: Case, instances: usize, feeds: bool) -> (Cost, Cost) {
    let (mut alone, mut told, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let base = writer.round(case, false).await;
        let listeners = writer.listeners(instances, feeds).await;
        let cost = writer.round(case, !feeds).await;
        drop(listeners);
        alone.push(base.cpu);
        told.push(cost.cpu - base.cpu);
        bytes.push((cost.bytes - base.bytes) / instances as f64);
    }
    let base = Cost {
        cpu: median(&mut alone),
        bytes: 0.0,
    };
    let added = Cost {
        cpu: median(&mut told),
        bytes: median(&mut bytes),
    };
    (base, added)
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let mut writer = Writer::new().await;
    writer.round(CASES[0], false).await;
    println!("{ROUNDS} rounds of {COMMITS} commits; medians");
    let mut holds = true;
    // All, or those of a fleet.
    let fleet_only = std::env::args().any(|argument| argument == "fleet");
    for case in CASES {
        if fleet_only && case.writers == 1 {
            continue;
        }
        println!(
            "\n{:<24} {:>10} {:>14} {:>14} {:>12} {:>14}",
            case.name(),
            "commit µs",
            "feed adds µs",
            "PUBLISH µs",
            "feed bytes",
            "PUBLISH bytes"
        );
        let mut costs = Vec::new();
        for instances in INSTANCES {
            let (base, feed) = added(&mut writer, case, instances, true).await;
            let (_, publish) = added(&mut writer, case, instances, false).await;
            println!(
                "{instances:<24} {:>10.1} {:>14.1} {:>14.1} {:>12.0} {:>14.0}",
                base.cpu, feed.cpu, publish.cpu, feed.bytes, publish.bytes
            );
            costs.push((instances as f64, feed.cpu, publish.cpu));
        }
        // Both grow with the instances, and with nothing else.
        let [_, few, many] = costs[..] else { return };
        let at_1000 = |few_cost: f64, cost: f64| {
            cost + (cost - few_cost) / (many.0 - few.0) * (1000.0 - many.0)
        };
        println!(
            "{:<24} {:>10} {:>14.1} {:>14.1}   computed",
            1000,
            "",
            at_1000(few.1, many.1),
            at_1000(few.2, many.2)
        );
        let what = format!("what 100 instances add to {}, feed / PUBLISH", case.name());
        holds &= bar(&what, many.1 / many.2, 0.4, false);
    }
    std::process::exit(i32::from(!holds));
}
