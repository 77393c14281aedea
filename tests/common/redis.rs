//! A real `redis-server` of the test's own.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A server on a free loopback port. Killed on drop.
pub struct RedisServer {
    child: Child,
    port: u16,
    dir: TempDir,
    persistent: bool,
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
            if let Some(child) = spawn(port, &dir, persistent) {
                return Self {
                    child,
                    port,
                    dir,
                    persistent,
                };
            }
        }
        panic!("redis-server found no port");
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Hangs: accepts connections, answers nothing.
    pub fn hang(&self) {
        self.signal("-STOP");
    }

    pub fn wake(&self) {
        self.signal("-CONT");
    }

    /// Dies at once.
    pub fn kill(&mut self) {
        self.signal("-KILL");
        self.child.wait().expect("it ends");
    }

    /// Comes back on the same port, after [`kill`](Self::kill).
    pub fn restart(&mut self) {
        self.child = spawn(self.port, &self.dir, self.persistent).expect("the port is still ours");
    }

    /// Comes back after [`kill`](Self::kill) with what it last saved, and loads that slowly: until
    /// then it answers `LOADING`. Returns once it listens.
    pub fn restart_loading_slowly(&mut self) {
        let slowly = [
            "--key-load-delay",
            "1000",
            "--loading-process-events-interval-bytes",
            "1024",
        ];
        let mut command = command(self.port, &self.dir, self.persistent);
        self.child = command
            .args(slowly)
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts");
        let deadline = Instant::now() + Duration::from_secs(5);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "the port is still ours");
        }
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Runs a command over a connection of its own.
    pub fn command(&self, parts: &[&[u8]]) -> redis::Value {
        let client = redis::Client::open(self.url()).expect("a URL");
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

    /// The only partition key in the server.
    pub fn only_key(&self) -> String {
        let keys: Vec<String> = self.query("KEYS *");
        assert_eq!(keys.len(), 1, "one partition");
        keys.into_iter().next().expect("a key")
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

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(port: u16, dir: &TempDir, persistent: bool) -> Command {
    // Another server of the same protocol can be tested by its path.
    let server = std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
    let mut command = Command::new(server);
    command
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
        ])
        .args(["--appendonly", if persistent { "yes" } else { "no" }])
        .args(["--appendfsync", "always"])
        .arg("--dir")
        .arg(dir.path())
        .stderr(Stdio::null());
    command
}

fn spawn(port: u16, dir: &TempDir, persistent: bool) -> Option<Child> {
    let mut child = command(port, dir, persistent)
        .stdout(Stdio::piped())
        .spawn()
        .expect("redis-server is missing: run ./scripts/test, or `apt-get install redis-server`");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    for line in output.lines().map_while(Result::ok) {
        if line.contains("Ready to accept connections") {
            // Nobody reads its log from here on; the pipe's end is closed, which it tolerates.
            let deadline = Instant::now() + Duration::from_secs(5);
            while TcpStream::connect(("127.0.0.1", port)).is_err() && Instant::now() < deadline {}
            return Some(child);
        }
    }
    let _ = child.wait();
    None
}
