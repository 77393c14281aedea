//! A real `memcached` of the test's own.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use super::process::Process;

/// How a server is to be started that evicts nothing.
pub const STRICT: [&str; 3] = ["-M", "-o", "slab_automove=0"];

/// A server on a free loopback port. Killed on drop.
pub struct MemcachedServer {
    process: Process,
    port: u16,
}

impl MemcachedServer {
    /// A server that evicts nothing.
    pub fn start() -> Self {
        Self::start_with(&STRICT)
    }

    pub fn start_with(options: &[&str]) -> Self {
        for _ in 0..20 {
            let port = super::free_port();
            if let Some(process) = spawn(port, options) {
                return Self { process, port };
            }
        }
        panic!("memcached found no port");
    }

    pub fn url(&self) -> String {
        format!("memcached://127.0.0.1:{}", self.port)
    }

    /// Comes back on the same port, after [`kill`](Process::kill), with nothing of what it had.
    pub fn restart_with(&mut self, options: &[&str]) {
        self.process = spawn(self.port, options).expect("the port is still ours");
    }

    /// Sends a command, and takes the lines of the answer up to the first that is one of these, or begins with it.
    pub fn command(&self, command: &str, last: &[&str]) -> Vec<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("a server");
        write!(stream, "{command}\r\n").expect("it listens");
        let mut lines = Vec::new();
        for line in BufReader::new(stream).lines() {
            let line = line.expect("an answer");
            let is_last = last.iter().any(|last| line.starts_with(last));
            lines.push(line);
            if is_last {
                break;
            }
        }
        lines
    }

    /// How many items it has.
    pub fn items(&self) -> u64 {
        self.stat("curr_items")
    }

    /// A number that it says of itself.
    pub fn stat(&self, name: &str) -> u64 {
        let stats = self.command("stats", &["END"]);
        let prefix = format!("STAT {name} ");
        let mut found = stats.iter().filter_map(|line| line.strip_prefix(&prefix));
        found.next().expect("it is told").parse().expect("a number")
    }
}

impl Deref for MemcachedServer {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for MemcachedServer {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// A server that listens; `None` if it ends instead.
fn spawn(port: u16, options: &[&str]) -> Option<Process> {
    let port_text = port.to_string();
    let place = ["-l", "127.0.0.1", "-p", &port_text];
    let mut process = Process::spawn_memcached(&[&place, options].concat());
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline && process.runs() {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return process.runs().then_some(process);
        }
    }
    None
}
