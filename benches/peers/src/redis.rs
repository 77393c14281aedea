//! A redis-server of the benchmark's own.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Runs until dropped, on a free port of the loopback interface, and keeps nothing on disk.
pub struct Redis {
    child: Child,
    pub port: u16,
}

impl Redis {
    /// Ends the program with one line when there is no redis-server.
    pub fn start() -> Self {
        let port = TcpListener::bind(("127.0.0.1", 0))
            .and_then(|socket| socket.local_addr())
            .expect("a free port")
            .port();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .current_dir(std::env::temp_dir())
            .stdout(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            eprintln!("this benchmark needs redis-server: apt-get install redis-server");
            std::process::exit(1);
        };
        let redis = Self { child, port };
        let deadline = Instant::now() + Duration::from_secs(10);
        while !redis
            .call(&["PING"])
            .is_ok_and(|answer| answer == "+PONG\r\n")
        {
            assert!(Instant::now() < deadline, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        redis
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Stops it, kills it, or whatever the signal does.
    pub fn signal(&self, signal: i32) {
        // SAFETY: no memory is involved; the process is our child, not yet waited for.
        let status = unsafe { libc::kill(self.child.id() as i32, signal) };
        assert_eq!(status, 0, "kill");
    }

    /// Sends one command, and returns the beginning of its answer as it comes over the wire.
    pub fn call(&self, command: &[&str]) -> std::io::Result<String> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port))?;
        let mut packed = format!("*{}\r\n", command.len());
        for part in command {
            packed += &format!("${}\r\n{part}\r\n", part.len());
        }
        socket.write_all(packed.as_bytes())?;
        let mut answer = [0; 256];
        let length = socket.read(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
