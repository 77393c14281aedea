//! A real MariaDB server of the test's own.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::certificates::Certificates;
use super::disk::SmallDisk;
use super::process::Process;

const MISSING: &str = "MariaDB is missing: run ./scripts/test, or `apt-get install mariadb-server`";

/// A server on a free loopback port, with a database `tokens` of the user `tokens`. Killed on drop.
pub struct MariaDbServer {
    process: Process,
    port: u16,
    directory: TempDir,
    options: Vec<String>,
}

impl MariaDbServer {
    /// The server that tests share that do it no harm. Each has tables of its own. It ends with the last test that
    /// holds it.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<MariaDbServer>> = Mutex::new(Weak::new());
        super::process::shared(&SHARED, Self::start)
    }

    pub fn start() -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary folder"), Vec::new())
    }

    /// With all that it stores on this disk, of which it takes some 50 MiB.
    pub fn start_on(disk: &SmallDisk) -> Self {
        let directory = tempfile::tempdir().expect("a temporary folder");
        let data = disk.path().join("data");
        std::fs::create_dir(&data).expect("the disk is ours");
        std::os::unix::fs::symlink(data, directory.path().join("data"))
            .expect("the folder is ours");
        Self::start_in(directory, vec!["--innodb-log-file-size=8M".into()])
    }

    /// With these certificates, so that connections can be encrypted.
    pub fn start_encrypted(certificates: &Certificates) -> Self {
        let option =
            |option: &str, file| format!("--{option}={}", certificates.path(file).display());
        let options = vec![
            option("ssl-cert", "server.pem"),
            option("ssl-key", "server.key"),
        ];
        Self::start_in(tempfile::tempdir().expect("a temporary folder"), options)
    }

    fn start_in(directory: TempDir, options: Vec<String>) -> Self {
        let mut install = Command::new("mariadb-install-db");
        install.args([
            "--no-defaults",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ]);
        install.arg(format!(
            "--datadir={}",
            directory.path().join("data").display()
        ));
        install.args(options.iter().filter(|option| option.contains("innodb")));
        // A server that starts deletes the temporary tables of others in the same folder.
        install.env("TMPDIR", directory.path());
        let made = as_root(&mut install).output().expect(MISSING);
        assert!(
            made.status.success(),
            "mariadb-install-db: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let (process, port) = (0..20)
            .find_map(|_| {
                let port = super::free_port();
                let mut process = spawn(port, directory.path(), &options);
                listens(&mut process, port).then_some((process, port))
            })
            .expect("MariaDB found no port");
        let server = Self {
            process,
            port,
            directory,
            options,
        };
        server.query_as_root(
            "CREATE DATABASE tokens; CREATE USER tokens@'127.0.0.1' IDENTIFIED BY 'local'; \
             GRANT ALL ON tokens.* TO tokens@'127.0.0.1'",
        );
        server
    }

    pub fn url(&self) -> String {
        format!("mysql://tokens:local@127.0.0.1:{}/tokens", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs statements in the database of the tests; the rows, columns separated by `|`.
    pub fn query(&self, sql: &str) -> Vec<String> {
        rows(self.client("tokens", "local").args(["tokens", "-e", sql]))
    }

    pub fn query_as_root(&self, sql: &str) -> Vec<String> {
        rows(self.client("root", "").args(["-e", sql]))
    }

    /// A session that stays: what it reads, it runs.
    pub fn session(&self) -> Command {
        let mut client = self.client("tokens", "local");
        client.args(["--unbuffered", "tokens"]);
        client
    }

    fn client(&self, user: &str, password: &str) -> Command {
        let mut client = Command::new("mariadb");
        client.args(["--no-defaults", "-h", "127.0.0.1", "-N", "-B", "-u", user]);
        client
            .args(["-P", &self.port.to_string()])
            .env("MYSQL_PWD", password);
        client
    }

    /// Comes back on the same port with what it had on disk, after [`kill`](Process::kill).
    pub fn restart(&mut self) {
        self.process = spawn(self.port, self.directory.path(), &self.options);
        assert!(
            listens(&mut self.process, self.port),
            "the port is still ours"
        );
    }
}

impl Deref for MariaDbServer {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for MariaDbServer {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// Whether the server is ready; not if it has ended instead.
fn listens(process: &mut Process, port: u16) -> bool {
    let deadline = Instant::now() + Duration::from_secs(30);
    let port = port.to_string();
    while Instant::now() < deadline && process.runs() {
        let mut ping = Command::new("mariadb-admin");
        ping.args([
            "--no-defaults",
            "-h",
            "127.0.0.1",
            "-u",
            "root",
            "-P",
            &port,
            "ping",
        ]);
        if quiet(&mut ping) {
            return process.runs();
        }
    }
    false
}

fn spawn(port: u16, directory: &Path, options: &[String]) -> Process {
    // In a folder that only root has in its PATH.
    let installed = Path::new("/usr/sbin/mariadbd");
    let program = if installed.exists() {
        installed
    } else {
        Path::new("mariadbd")
    };
    let mut command = Command::new(program);
    command.args([
        "--no-defaults",
        "--bind-address=127.0.0.1",
        "--innodb-flush-log-at-trx-commit=2",
    ]);
    command.args(["--innodb-buffer-pool-size=64M", "--port", &port.to_string()]);
    for (option, file) in [
        ("datadir", "data"),
        ("socket", "socket"),
        ("pid-file", "pid"),
    ] {
        command.arg(format!("--{option}={}", directory.join(file).display()));
    }
    command.args(options).env("TMPDIR", directory);
    Process::spawn(as_root(&mut command).stderr(Stdio::null()), MISSING)
}

/// MariaDB runs as root only where it is told to.
fn as_root(command: &mut Command) -> &mut Command {
    if rustix::process::geteuid().is_root() {
        command.arg("--user=root");
    }
    command
}

fn rows(command: &mut Command) -> Vec<String> {
    let output = command.output().expect(MISSING);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| line.replace('\t', "|")).collect()
}

fn quiet(command: &mut Command) -> bool {
    let command = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .stdin(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
