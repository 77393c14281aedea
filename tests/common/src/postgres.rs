//! A real PostgreSQL server of the test's own.

use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::certificates::Certificates;
use super::disk::SmallDisk;
use super::process::Process;

const MISSING: &str = "PostgreSQL is missing: run ./scripts/test, or `apt-get install postgresql`";

/// A server on a free loopback port, with a database `tokens` of the user `tokens`. Killed on drop.
pub struct PostgresServer {
    process: Process,
    port: u16,
    directory: TempDir,
}

impl PostgresServer {
    /// The server that tests share that do it no harm. Each has tables of its own. It ends with the last test that
    /// holds it.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<PostgresServer>> = Mutex::new(Weak::new());
        super::process::shared(&SHARED, Self::start)
    }

    pub fn start() -> Self {
        Self::start_in(folder(), None)
    }

    /// With its tables on this disk, of which it takes some 40 MiB, and its log elsewhere.
    pub fn start_on(disk: &SmallDisk) -> Self {
        Self::start_partly_on(disk, "data")
    }

    /// With its log on this disk, and its tables elsewhere.
    pub fn start_with_log_on(disk: &SmallDisk) -> Self {
        Self::start_partly_on(disk, "log")
    }

    fn start_partly_on(disk: &SmallDisk, part: &str) -> Self {
        let directory = folder();
        let there = disk.path().join(part);
        std::fs::create_dir(&there).expect("the disk is ours");
        hand_over(&there);
        std::os::unix::fs::symlink(there, directory.path().join(part)).expect("the folder is ours");
        Self::start_in(directory, None)
    }

    /// With these certificates, so that connections can be encrypted.
    pub fn start_encrypted(certificates: &Certificates) -> Self {
        Self::start_in(folder(), Some(certificates))
    }

    fn start_in(directory: TempDir, certificates: Option<&Certificates>) -> Self {
        let data = directory.path().join("data");
        let mut init = as_user(&binary("initdb"));
        init.args([
            "-A",
            "trust",
            "-U",
            "tokens",
            "--no-sync",
            "-E",
            "UTF8",
            "--no-locale",
            "-X",
        ]);
        init.arg(directory.path().join("log")).arg("-D");
        assert!(quiet(init.arg(&data)), "initdb has failed");
        // One user has a password, so that it can be wrong.
        let access = data.join("pg_hba.conf");
        let trusting = std::fs::read_to_string(&access).expect("it is made");
        let line = "host all secure 127.0.0.1/32 scram-sha-256\n";
        std::fs::write(&access, format!("{line}{trusting}")).expect("it can be written");
        let mut settings = Vec::new();
        if let Some(certificates) = certificates {
            settings.extend([
                "ssl=on",
                "ssl_cert_file=server.pem",
                "ssl_key_file=server.key",
            ]);
            for name in ["server.pem", "server.key"] {
                let file = data.join(name);
                std::fs::write(&file, certificates.read(name)).expect("it can be written");
                let private = std::fs::Permissions::from_mode(0o600);
                std::fs::set_permissions(&file, private).expect("it is ours");
                hand_over(&file);
            }
        }
        let mut started = Self::over(directory, &settings);
        started.sql("CREATE DATABASE tokens", "postgres");
        started.wait();
        started
    }

    fn over(directory: TempDir, settings: &[&str]) -> Self {
        for _ in 0..20 {
            let port = super::free_port();
            let mut process = spawn(port, directory.path(), settings);
            if listens(&mut process, port) {
                return Self {
                    process,
                    port,
                    directory,
                };
            }
        }
        panic!("PostgreSQL found no port");
    }

    /// A standby that has all that this server acknowledges from now on.
    pub fn standby(&self) -> Self {
        let directory = folder();
        let mut copy = as_user(&binary("pg_basebackup"));
        copy.args([
            "-h",
            "127.0.0.1",
            "-U",
            "tokens",
            "-R",
            "-c",
            "fast",
            "--no-sync",
        ]);
        copy.args(["-p", &self.port.to_string(), "-D"]);
        assert!(
            quiet(copy.arg(directory.path().join("data"))),
            "pg_basebackup has failed"
        );
        let mut standby = Self::over(directory, &["hot_standby=on"]);
        standby.wait();
        self.query("ALTER SYSTEM SET synchronous_standby_names = '*'");
        self.query("SELECT pg_reload_conf()");
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.query("SELECT sync_state FROM pg_stat_replication") != ["sync"] {
            assert!(Instant::now() < deadline, "the standby follows");
        }
        standby
    }

    /// Makes a primary of a standby.
    pub fn promote(&self) {
        assert_eq!(self.query("SELECT pg_promote()"), ["t"]);
    }

    pub fn url(&self) -> String {
        format!("postgres://tokens@127.0.0.1:{}/tokens", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs statements in the database of the tests; the rows of the last one, columns separated by `|`.
    pub fn query(&self, sql: &str) -> Vec<String> {
        self.sql(sql, "tokens")
    }

    fn sql(&self, sql: &str, database: &str) -> Vec<String> {
        let output = self
            .psql(database)
            .args(["-c", sql])
            .output()
            .expect(MISSING);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout).expect("text");
        text.lines().map(String::from).collect()
    }

    /// A session that stays: what it reads, it runs.
    pub fn psql(&self, database: &str) -> Command {
        let mut psql = Command::new(binary("psql"));
        psql.args([
            "-h",
            "127.0.0.1",
            "-U",
            "tokens",
            "-d",
            database,
            "-qAtX",
            "-v",
            "ON_ERROR_STOP=1",
        ]);
        psql.args(["-p", &self.port.to_string()]);
        psql
    }

    /// All of its processes stand still.
    pub fn hang(&self) {
        self.process.hang();
        self.signal_children("-STOP");
    }

    pub fn wake(&self) {
        self.signal_children("-CONT");
        self.process.wake();
    }

    /// Dies at once, as in a crash.
    pub fn kill(&mut self) {
        self.process.hang();
        self.signal_children("-KILL");
        self.process.kill();
    }

    /// Comes back on the same port with what it had on disk.
    pub fn restart(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        // It refuses to while the memory of processes that were killed is not yet free.
        loop {
            self.process = spawn(self.port, self.directory.path(), &[]);
            if listens(&mut self.process, self.port) {
                break;
            }
            assert!(Instant::now() < deadline, "it starts");
        }
        self.wait();
    }

    fn wait(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !quiet(self.psql("tokens").args(["-c", "SELECT 1"])) {
            assert!(
                Instant::now() < deadline && self.process.runs(),
                "it starts"
            );
        }
    }

    fn signal_children(&self, signal: &str) {
        let id = self.process.id().to_string();
        let children = Command::new("pgrep")
            .args(["-P", &id])
            .output()
            .expect("pgrep runs");
        let children = String::from_utf8(children.stdout).expect("numbers");
        for child in children.split_whitespace() {
            // One may have ended just then.
            quiet(Command::new("kill").args([signal, child]));
        }
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if !self.process.runs() {
            return;
        }
        // All processes of the server end with an immediate shutdown, also those that stand still.
        self.wake();
        quiet(Command::new("kill").args(["-QUIT", &self.process.id().to_string()]));
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.process.runs() && Instant::now() < deadline {
            std::thread::yield_now();
        }
    }
}

/// Whether the server is ready; not if it has ended instead.
fn listens(process: &mut Process, port: u16) -> bool {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline && process.runs() {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            let mut ready = Command::new(binary("pg_isready"));
            if quiet(ready.args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()])) {
                return process.runs();
            }
        }
    }
    false
}

fn spawn(port: u16, directory: &Path, settings: &[&str]) -> Process {
    let mut command = as_user(&binary("postgres"));
    command.arg("-D").arg(directory.join("data"));
    command.args([
        "-p",
        &port.to_string(),
        "-c",
        "listen_addresses=127.0.0.1",
        "-c",
        "fsync=off",
    ]);
    command
        .arg("-c")
        .arg(format!("unix_socket_directories={}", directory.display()));
    for setting in settings {
        command.args(["-c", setting]);
    }
    Process::spawn(command.stderr(Stdio::null()), MISSING)
}

/// The newest one that is installed: they are in no folder of PATH.
fn binary(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut found: Vec<_> = versions
        .map(|version| version.path().join("bin").join(name))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| name.into())
}

/// PostgreSQL does not run as root.
fn as_user(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
        .arg(program);
    command
}

fn folder() -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary folder");
    hand_over(directory.path());
    directory
}

fn hand_over(directory: &Path) {
    if rustix::process::geteuid().is_root() {
        assert!(
            quiet(
                Command::new("chown")
                    .arg("postgres:postgres")
                    .arg(directory)
            ),
            "chown"
        );
    }
}

fn quiet(command: &mut Command) -> bool {
    let command = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .stdin(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
