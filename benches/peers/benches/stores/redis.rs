//! Redis: `RedisStore` beside the `redis` crate.

use peers::redis::Redis;
use peers::users::USERS;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};
use tower_token_cache::store::{PartitionId, TOMBSTONE};
use tower_token_cache::{Estimate, RedisStore};

use super::side::{Ours, SLIDING, Side, VALUES, entry, expiry, value};
use super::turns::{Measured, compare};

const SCRIPT: &str = concat!(
    include_str!("../../../../src/store/redis/read.lua"),
    include_str!("../../../../src/store/redis/head.lua"),
    include_str!("../../../../src/store/redis/commit.lua"),
    "return commit(KEYS[1], ARGV)\n"
);

pub async fn measure(store: &'static str) -> Measured {
    let server = Redis::start();
    let mut raw = Raw::connect(&server).await;
    let before = raw.bytes().await;
    let redis = RedisStore::connect(server.url()).await.unwrap();
    let mut ours = Ours::filled(redis.clone(), "ours").await;
    let stored = raw.bytes().await - before;
    ours.change_all().await;
    ours.change_all().await;
    let changed = raw.bytes().await - before;
    let theirs = Ours::filled(redis, "raw").await;
    raw.keys = theirs.ids.iter().map(key).collect();
    raw.versions = theirs.versions;
    Measured {
        store,
        rows: compare(&mut ours, &mut raw).await,
        stored,
        changed,
        estimate: Estimate::users(USERS as u64, 1).redis,
    }
}

fn key(id: &PartitionId) -> String {
    format!("{}:{{{}}}", id.namespace(), id.encoded())
}

/// One multiplexed connection.
struct Raw {
    connection: MultiplexedConnection,
    script: String,
    keys: Vec<String>,
    /// By user.
    versions: Vec<u64>,
    /// Values as they are laid out: version and expiry, and the value.
    values: Vec<Vec<u8>>,
    commits: u64,
}

impl Raw {
    async fn connect(server: &Redis) -> Self {
        let client = redis::Client::open(server.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut load = redis::cmd("SCRIPT");
        let load = load.arg("LOAD").arg(SCRIPT);
        let laid = |at| [&[0; 16][..], value(at)].concat();
        Self {
            script: load.query_async(&mut connection).await.unwrap(),
            connection,
            keys: Vec::new(),
            versions: Vec::new(),
            values: (0..VALUES.len()).map(laid).collect(),
            // None that has filled the store is repeated.
            commits: 1 << 32,
        }
    }

    async fn bytes(&mut self) -> u64 {
        let mut info = redis::cmd("INFO");
        let info = info.arg("memory").query_async(&mut self.connection).await;
        let info: String = info.unwrap();
        let mut lines = info.lines();
        let bytes = lines.find_map(|line| line.strip_prefix("used_memory_dataset:"));
        bytes.expect("it is told").parse().expect("a number")
    }

    async fn send(&mut self, pipeline: &Pipeline) -> Vec<Value> {
        let answers = pipeline.query_async(&mut self.connection).await;
        answers.unwrap()
    }
}

impl Side for Raw {
    async fn load(&mut self, users: &[usize]) {
        let mut pipeline = Pipeline::with_capacity(users.len() + 1);
        for (at, user) in users.iter().enumerate() {
            pipeline.cmd("HGETALL").arg(&self.keys[*user]);
            if at == 0 {
                pipeline.cmd("TIME");
            }
        }
        let answers = self.send(&pipeline).await;
        let is_whole = |answer: &&Value| match answer {
            Value::Array(fields) => fields.len() == 2 * (1 + VALUES.len()),
            Value::Map(fields) => fields.len() == 1 + VALUES.len(),
            _ => false,
        };
        assert_eq!(answers.iter().filter(is_whole).count(), users.len());
    }

    async fn commit(&mut self, users: &[usize]) {
        let mut pipeline = Pipeline::with_capacity(users.len());
        for user in users {
            self.commits += 1;
            let command = pipeline.cmd("EVALSHA");
            command.arg(&self.script).arg(1).arg(&self.keys[*user]);
            command.arg(&self.commits.to_be_bytes());
            command.arg(0).arg(0).arg(SLIDING.as_millis() as u64).arg(0);
            command.arg(TOMBSTONE.as_millis() as u64);
            command.arg("").arg(0).arg("").arg("");
            command.arg(self.versions[*user] + 1);
            for (at, value) in self.values.iter().enumerate() {
                let expiry = expiry(at).map_or(-1, |at| at as i64);
                command.arg(entry(at).as_bytes()).arg(expiry).arg(value);
            }
        }
        let answers = self.send(&pipeline).await;
        for (user, answer) in users.iter().zip(answers) {
            self.versions[*user] += 1;
            let version = Value::Int(self.versions[*user] as i64);
            assert!(matches!(answer, Value::Array(parts) if parts[1] == version));
        }
    }
}
