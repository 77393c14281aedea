//! Keys rotate under load, in real processes, and nobody notices.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until};
use tower_token_cache::seal::{DirRepository, KeyId};
use tower_token_cache::{Clock, KeyRing, Timestamp, TokenCache};

use common::assert_stored;
use common::eventually;
use common::playground::{PLAYGROUNDS, Playground, binary};
use common::redis::RedisServer;
use common::support::{builder, redis_store, session, token};

use crate::MACHINE;

const USERS: u64 = 30;
const DAY: u64 = 24 * 3600 * 1000;
/// A process asks for keys that it does not know only so often. Who rotates more often than that,
/// and gives nobody a day to learn of it, signs users out for moments.
const LEARN_EVERY: Duration = Duration::from_secs(5);

#[test]
fn the_example_rotates_without_a_miss() {
    let output = Command::new(binary("key_rotation")).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    let sealing = |line| str::strip_prefix(line, "sealing with ");
    let keys: BTreeSet<&str> = text.lines().filter_map(sealing).collect();
    assert_eq!(keys.len(), 5, "each time another: {text}");
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("keys = 6, requests = "), "{last}");
    assert!(last.ends_with(", misses = 0"), "{last}");
}

/// Three processes of both frameworks that share a Redis and a folder of keys, and ask L2 for
/// everything; and an instance in this process that has always learned of a rotation already.
struct Fleet {
    redis: RedisServer,
    processes: Vec<Arc<Playground>>,
    keys: PathBuf,
    ahead: (KeyRing, TokenCache),
    /// When the last process had met the last key.
    met_at: Instant,
    _folder: tempfile::TempDir,
}

impl Fleet {
    async fn start() -> Self {
        let redis = RedisServer::start();
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys");
        let path = keys.display().to_string();
        let store = redis.url();
        let options = ["--store", &store, "--encrypt", &path, "--no-l1"];
        let start = |number: usize| Playground::start(PLAYGROUNDS[number % 2], &options);
        let processes = (0..3).map(|number| Arc::new(start(number))).collect();
        let ring = KeyRing::open_dir(&keys).unwrap();
        let cache = builder(redis_store(&redis).await).key_ring(ring.clone());
        Self {
            processes,
            keys,
            ahead: (ring, cache.build().unwrap()),
            met_at: Instant::now(),
            redis,
            _folder: folder,
        }
    }

    /// Makes a key that everybody should have learned of a day ago, and nobody has.
    async fn rotate(&mut self) -> KeyId {
        sleep_until(self.met_at + LEARN_EVERY + Duration::from_millis(500)).await;
        let day_ago = Timestamp::from_millis(Timestamp::now().as_millis() - DAY);
        let ring = KeyRing::builder(DirRepository::open(&self.keys).unwrap());
        let ring = ring.clock(Clock::manual(day_ago)).open().await.unwrap();
        let new = ring.rotate().await.unwrap();
        let (ring, cache) = &self.ahead;
        ring.refresh().await.unwrap();
        assert_eq!(ring.active(), new);
        // Everybody who asks for this user, whose tokens nobody else writes, meets the new key.
        let tokens = cache.tokens(session("carrier"));
        tokens.insert("a", token("t")).await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
        new
    }

    /// Everybody seals with this key, once they have met it.
    async fn assert_sealing_with(&mut self, key: KeyId, processes: &[usize]) {
        for number in processes {
            let user = format!("writer-{number}");
            let process = &self.processes[*number];
            let id = self.ahead.1.partition_id(&session(&user)).await.unwrap();
            let id = id.encoded();
            eventually("it seals with the new key", async || {
                let met = process.get("carrier", "/tokens/a").await;
                if met.level.as_deref() == Some("unavailable") {
                    return false;
                }
                assert_eq!(met.status, 200, "process {number}: {met:?}");
                assert_eq!(process.put(&user, "/tokens/a", "t").await, Some(204));
                let record = self
                    .redis
                    .command(&[b"HVALS", format!("ttc:{{{id}}}").as_bytes()]);
                let values: Vec<Vec<u8>> = redis::from_redis_value(record).unwrap();
                // The first write may be under way yet.
                let sealed = |value: &Vec<u8>| value.windows(8).any(|part| part == key.as_bytes());
                values.iter().any(sealed)
            })
            .await;
        }
        self.met_at = Instant::now();
    }
}

/// Requests without a pause, and what became of them.
#[derive(Default)]
struct Load {
    done: AtomicBool,
    requests: AtomicU64,
    misses: AtomicU64,
    errors: AtomicU64,
}

impl Load {
    async fn run(self: Arc<Self>, process: Arc<Playground>) {
        while !self.done.load(Ordering::Relaxed) {
            let number = self.requests.fetch_add(1, Ordering::Relaxed);
            let user = (number % USERS).to_string();
            if number.is_multiple_of(9) {
                let written = process.put(&user, "/tokens/a", "t").await;
                self.count(&self.errors, written != Some(204));
                continue;
            }
            let headers = [("x-session", user.as_str())];
            let answer = process.try_send("GET", "/tokens/a", &headers, "").await;
            let Some(answer) = answer else {
                self.count(&self.errors, true);
                continue;
            };
            // A machine that is busy with other things lets Redis answer late, which is another
            // matter and said so.
            let level = answer.level.as_deref();
            self.count(&self.misses, answer.status == 404 && level == Some("none"));
            self.count(&self.errors, !matches!(answer.status, 200 | 404));
        }
    }

    fn count(&self, counter: &AtomicU64, happened: bool) {
        counter.fetch_add(happened.into(), Ordering::Relaxed);
    }

    async fn advance(&self, requests: u64) {
        let goal = self.requests.load(Ordering::Relaxed) + requests;
        eventually("requests go on", async || {
            self.requests.load(Ordering::Relaxed) >= goal
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_processes_rotate_under_load_without_a_miss() {
    let _machine = MACHINE.lock().await;
    let mut fleet = Fleet::start().await;
    for user in 0..USERS {
        let written = fleet.processes[0]
            .put(&user.to_string(), "/tokens/a", "t")
            .await;
        assert_eq!(written, Some(204));
    }
    eventually("everybody is signed in", async || {
        fleet.processes[0].status("pending_changes").await == 0
    })
    .await;
    let load = Arc::new(Load::default());
    let processes = fleet.processes.iter().cloned();
    let running = processes.map(|process| tokio::spawn(load.clone().run(process)));
    let running: Vec<_> = running.collect();
    load.advance(100).await;

    let key = fleet.rotate().await;
    load.advance(200).await;
    fleet.assert_sealing_with(key, &[0, 1, 2]).await;

    // One sleeps through two rotations; the other two do not mind.
    fleet.processes[2].pause();
    let mut newest = key;
    for _ in 0..2 {
        newest = fleet.rotate().await;
        fleet.assert_sealing_with(newest, &[0, 1]).await;
        load.advance(100).await;
    }
    fleet.processes[2].resume();
    fleet.assert_sealing_with(newest, &[2]).await;
    load.advance(200).await;

    load.done.store(true, Ordering::Relaxed);
    for ended in join_all(running).await {
        ended.unwrap();
    }
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    assert!(count(&load.requests) > 500, "{}", count(&load.requests));
    assert_eq!((count(&load.misses), count(&load.errors)), (0, 0));
    for process in &fleet.processes {
        assert_eq!(process.status("unopenable").await, 0);
    }
}
