//! A real `redis-server` of the test's own.

use std::net::{Ipv4Addr, TcpStream};
use std::ops::{Deref, DerefMut};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::far::{self, Line};
use super::process::Process;

/// A server on a free loopback port. Killed on drop.
pub struct RedisServer {
    process: Process,
    port: u16,
    dir: TempDir,
    persistent: bool,
    /// The way to it, where that is long.
    line: Option<Line>,
}

impl RedisServer {
    /// A server that keeps nothing across a restart.
    pub fn start() -> Self {
        Self::launch(false)
    }

    /// A server that appends every write to disk.
    pub fn start_persistent() -> Self {
        Self::launch(true)
    }

    fn launch(persistent: bool) -> Self {
        for _ in 0..20 {
            let dir = tempfile::tempdir().expect("a temporary folder");
            let port = super::free_port();
            if let Some(process) = spawn(port, &dir, persistent) {
                return Self {
                    process,
                    port,
                    dir,
                    persistent,
                    line: line_to(port),
                };
            }
        }
        panic!("redis-server found no port");
    }

    /// Where instances find it: far away, if [`far::latency`] says so.
    pub fn url(&self) -> String {
        match &self.line {
            Some(line) => format!("redis://{}", line.address()),
            None => self.own_url(),
        }
    }

    fn own_url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Comes back on the same port, after [`kill`](Process::kill).
    pub fn restart(&mut self) {
        self.process =
            spawn(self.port, &self.dir, self.persistent).expect("the port is still ours");
    }

    /// Comes back after [`kill`](Process::kill) with what it last saved, and loads that slowly: until
    /// then it answers `LOADING`. Returns once it listens.
    pub fn restart_loading_slowly(&mut self) {
        let slowly = [
            "--key-load-delay",
            "1000",
            "--loading-process-events-interval-bytes",
            "1024",
        ];
        self.process = Process::spawn_redis(|command| {
            configure(command, self.port, &self.dir, self.persistent);
            command.args(slowly);
        });
        let deadline = Instant::now() + Duration::from_secs(5);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "the port is still ours");
        }
    }

    /// Runs a command over a connection of its own.
    pub fn command(&self, parts: &[&[u8]]) -> redis::Value {
        let client = redis::Client::open(self.own_url()).expect("a URL");
        let mut connection = client.get_connection().expect("a connection");
        let mut command = redis::cmd(std::str::from_utf8(parts[0]).expect("a name"));
        for part in &parts[1..] {
            command.arg(*part);
        }
        command.query(&mut connection).expect("an answer")
    }

    /// Runs a command of text, and takes its answer as `T`.
    pub fn query<T: redis::FromRedisValue>(&self, command: &str) -> T {
        let parts: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        redis::from_redis_value(self.command(&parts)).expect("the answer's type")
    }

    /// The only key in the server besides that of the namespace's epoch.
    pub fn only_key(&self) -> String {
        let mut keys: Vec<String> = self.query("KEYS *");
        keys.retain(|key| {
            let kind: String = self.query(&format!("TYPE {key}"));
            // Sessions count from 0, epochs from the time.
            kind != "hash" || self.generation_and_version(key).0 < 1 << 40
        });
        assert_eq!(keys.len(), 1, "one partition");
        keys.into_iter().next().expect("a key")
    }

    /// What the head of a record begins with, behind its form; zeros where there is none.
    pub fn generation_and_version(&self, key: &str) -> (u64, u64) {
        let head: Option<Vec<u8>> = self.query(&format!("HGET {key} h"));
        let head = head.unwrap_or_default();
        let number = |at: usize| {
            let bytes = head.get(at..at + 8).and_then(|it| it.try_into().ok());
            bytes.map_or(0, u64::from_be_bytes)
        };
        (number(1), number(9))
    }

    /// How often commands of this name were called.
    pub fn calls(&self, command: &str) -> u64 {
        let stats: String = self.query("INFO commandstats");
        let prefix = format!("cmdstat_{command}:calls=");
        stats
            .lines()
            .find_map(|line| line.strip_prefix(&prefix)?.split(',').next()?.parse().ok())
            .unwrap_or(0)
    }
}

impl Deref for RedisServer {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for RedisServer {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn line_to(port: u16) -> Option<Line> {
    let latency = far::latency();
    let server = (Ipv4Addr::LOCALHOST, port).into();
    (!latency.is_zero()).then(|| Line::to(server, latency))
}

fn configure(command: &mut Command, port: u16, dir: &TempDir, persistent: bool) {
    command
        .args(["--port", &port.to_string()])
        .args(["--bind", "127.0.0.1", "--save", ""])
        .args(["--appendonly", if persistent { "yes" } else { "no" }])
        .args(["--appendfsync", "always"])
        .arg("--dir")
        .arg(dir.path());
}

fn spawn(port: u16, dir: &TempDir, persistent: bool) -> Option<Process> {
    let process = Process::redis(|command| configure(command, port, dir, persistent))?;
    let deadline = Instant::now() + Duration::from_secs(5);
    while TcpStream::connect(("127.0.0.1", port)).is_err() && Instant::now() < deadline {}
    Some(process)
}
