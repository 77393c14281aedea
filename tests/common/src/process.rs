//! A server's process.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};

/// Ends with the value.
pub struct Process(Child);

impl Process {
    /// A Redis server that is ready to work; `None` if it ends instead.
    pub fn redis(arguments: impl FnOnce(&mut Command)) -> Option<Self> {
        let mut process = Self::spawn_redis(|command| {
            arguments(command.stdout(Stdio::piped()));
        });
        let output = BufReader::new(process.0.stdout.take().expect("piped"));
        let mut lines = output.lines().map_while(Result::ok);
        // Nobody reads its log after that; the pipe's end is closed, which it tolerates.
        let ready = |line: String| {
            line.contains("Ready to accept connections") || line.contains("Sentinel ID is")
        };
        lines.any(ready).then_some(process)
    }

    /// A Redis server that may not be ready yet.
    pub fn spawn_redis(arguments: impl FnOnce(&mut Command)) -> Self {
        // Another server of the same protocol can be tested by its path.
        let server = std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
        let mut command = Command::new(server);
        arguments(command.stdout(Stdio::null()).stderr(Stdio::null()));
        let missing =
            "redis-server is missing: run ./scripts/test, or `apt-get install redis-server`";
        Self(command.spawn().expect(missing))
    }

    /// A Memcached server that may not be ready yet.
    pub fn spawn_memcached(arguments: &[&str]) -> Self {
        let mut command = Command::new("memcached");
        // Who it is to be, where this is root.
        command.args(["-u", "root"]).args(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let missing = "memcached is missing: run ./scripts/test, or `apt-get install memcached`";
        Self(command.spawn().expect(missing))
    }

    /// Another server, that may not be ready yet.
    pub fn spawn(command: &mut Command, missing: &str) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Self(command.spawn().expect(missing))
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Whether it has not ended.
    pub fn runs(&mut self) -> bool {
        self.0.try_wait().is_ok_and(|ended| ended.is_none())
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
        self.0.wait().expect("it ends");
    }

    fn signal(&self, signal: &str) {
        let pid = self.0.id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status();
        assert!(status.expect("kill runs").success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The one that others hold, or another one that starts. It ends with the last one that holds it.
pub(crate) fn shared<S>(held: &Mutex<Weak<S>>, start: impl FnOnce() -> S) -> Arc<S> {
    let mut held = held.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    held.upgrade().unwrap_or_else(|| {
        let started = Arc::new(start());
        *held = Arc::downgrade(&started);
        started
    })
}
