//! The playgrounds as processes, and a client for them.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

pub const PLAYGROUNDS: [&str; 2] = ["playground", "playground_actix"];
pub const EXAMPLES: [&str; 4] = ["login", "key_rotation", "bff", "bff_actix"];

/// Where cargo puts this program: one of the playgrounds, or an example of [`EXAMPLES`].
/// Built once.
pub fn binary(program: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let mut build = Command::new(env!("CARGO"));
        // What cargo tells a test about its package would have build scripts run again, there and back.
        let of_the_test = |name: &str| {
            ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        };
        for (name, _) in std::env::vars() {
            if of_the_test(&name) {
                build.env_remove(name);
            }
        }
        // target/debug/deps/playground-… → target/debug
        let own = std::env::current_exe().unwrap();
        let name = own.file_stem().and_then(|name| name.to_str()).unwrap();
        let (name, _) = name.rsplit_once('-').unwrap();
        let built = build
            .args(["build", "--quiet", "--bins"])
            .args(["-p", "playground"])
            .args(EXAMPLES.map(|name| ["-p", name]).as_flattened())
            // With this test, which is built already, dependencies have the features that it has:
            // none is compiled a second time.
            .args(["-p", "tower-token-cache", "--test", &name.replace('_', "-")])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
            .status();
        assert!(built.unwrap().success());
        own.ancestors().nth(2).unwrap().to_owned()
    });
    folder.join(program)
}

/// Killed on drop.
pub struct Playground {
    child: Child,
    output: BufReader<ChildStdout>,
    url: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Header `x-cache-level`.
    pub level: Option<String>,
    /// Header `retry-after`.
    pub retry_after: Option<u64>,
    pub body: Value,
}

impl Playground {
    pub fn start(example: &str, options: &[&str]) -> Self {
        Self::start_with(example, options, &[])
    }

    /// With these environment variables.
    pub fn start_with(example: &str, options: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(binary(example));
        command.args(options).envs(variables.iter().copied());
        Self::launch(command.stderr(Stdio::null()))
    }

    /// With its log in this file.
    pub fn start_logging(example: &str, options: &[&str], log: File) -> Self {
        let mut command = Command::new(binary(example));
        Self::launch(command.args(options).stderr(log))
    }

    fn launch(command: &mut Command) -> Self {
        let mut child = command
            .args(["--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let url = line
            .trim()
            .strip_prefix("listening on ")
            .expect("the first line")
            .to_owned();
        // Well before actix-web closes a connection that is idle, just as it might be used.
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(2))
            .build_http();
        Self {
            child,
            output,
            url,
            client,
        }
    }

    /// Of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn address(&self) -> std::net::SocketAddr {
        self.url.trim_start_matches("http://").parse().unwrap()
    }

    pub async fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Option<Answer> {
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::from(body.to_owned());
        let response = self
            .client
            .request(request.body(body).unwrap())
            .await
            .ok()?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        let header = |name| Some(head.headers.get(name)?.to_str().unwrap().to_owned());
        Some(Answer {
            status: head.status.as_u16(),
            level: header("x-cache-level"),
            retry_after: header("retry-after").map(|value| value.parse().unwrap()),
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        })
    }

    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        self.try_send(method, path, headers, body)
            .await
            .expect("an answer")
    }

    pub async fn put(&self, session: &str, path: &str, access_token: &str) -> Option<u16> {
        let body = json!({"access_token": access_token, "expires_in": 3600, "refresh_token": "r"});
        let answer = self
            .try_send("PUT", path, &[("x-session", session)], &body.to_string())
            .await;
        answer.map(|answer| answer.status)
    }

    pub async fn get(&self, session: &str, path: &str) -> Answer {
        self.send("GET", path, &[("x-session", session)], "").await
    }

    pub async fn delete(&self, session: &str, path: &str) -> u16 {
        self.send("DELETE", path, &[("x-session", session)], "")
            .await
            .status
    }

    pub async fn try_acquire(&self, session: &str, path: &str) -> Option<Answer> {
        self.try_send("POST", path, &[("x-session", session)], "")
            .await
    }

    /// A token of the application's own.
    pub async fn try_acquire_for(&self, application: &str, path: &str) -> Option<Answer> {
        self.try_send("POST", path, &[("x-application", application)], "")
            .await
    }

    pub async fn acquire(&self, session: &str, path: &str) -> Answer {
        self.try_acquire(session, path).await.expect("an answer")
    }

    /// Stores a refresh token, beside an access token that expired in this moment.
    pub async fn sign_in(&self, session: &str, refresh_token: &str) {
        let set = json!({"access_token": "old", "expires_in": 0, "refresh_token": refresh_token});
        let headers = [("x-session", session), ("x-write-mode", "before")];
        let set = set.to_string();
        let answer = self.send("PUT", "/tokens/old", &headers, &set).await;
        assert_eq!(answer.status, 204);
    }

    pub async fn status(&self, counter: &str) -> u64 {
        self.send("GET", "/status", &[], "").await.body[counter]
            .as_u64()
            .expect(counter)
    }

    /// Dies at once.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Stands still.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Everything that `/status` says.
    pub async fn try_status(&self) -> Option<Value> {
        Some(self.try_send("GET", "/status", &[], "").await?.body)
    }

    /// SIGTERM, or SIGINT; it has time to end.
    pub fn ask_to_stop(&self, signal: Signal) {
        self.signal(signal);
    }

    /// Waits for its end, and gives its exit code and the rest of its output.
    pub fn ended(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }

    /// SIGTERM, and the rest of the output.
    pub fn terminate(mut self) -> String {
        self.signal(Signal::TERM);
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success());
        rest
    }
}

impl Drop for Playground {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
