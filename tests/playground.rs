//! The playgrounds from outside: real processes, one HTTP contract, every store.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use common::eventually;
use common::redis::RedisServer;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

const PLAYGROUNDS: [&str; 2] = ["playground", "playground_actix"];

/// Where cargo puts this example, built once.
fn binary(example: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let built = Command::new(env!("CARGO"))
            .args([
                "build",
                "--quiet",
                "--example",
                PLAYGROUNDS[0],
                "--example",
                PLAYGROUNDS[1],
            ])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(built.unwrap().success());
        // target/debug/deps/playground-… → target/debug/examples
        let own = std::env::current_exe().unwrap();
        own.ancestors().nth(2).unwrap().join("examples")
    });
    folder.join(example)
}

struct Playground {
    child: Child,
    output: BufReader<ChildStdout>,
    url: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

struct Answer {
    status: u16,
    level: Option<String>,
    body: Value,
}

impl Playground {
    fn start(example: &str, options: &[&str]) -> Self {
        let mut child = Command::new(binary(example))
            .args(["--listen", "127.0.0.1:0"])
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
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
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self {
            child,
            output,
            url,
            client,
        }
    }

    async fn try_send(
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
        let level = head.headers.get("x-cache-level");
        Some(Answer {
            status: head.status.as_u16(),
            level: level.map(|value| value.to_str().unwrap().to_owned()),
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        })
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.try_send(method, path, headers, body)
            .await
            .expect("an answer")
    }

    async fn put(&self, session: &str, path: &str, access_token: &str) -> Option<u16> {
        let body = json!({"access_token": access_token, "expires_in": 3600, "refresh_token": "r"});
        let answer = self
            .try_send("PUT", path, &[("x-session", session)], &body.to_string())
            .await;
        answer.map(|answer| answer.status)
    }

    async fn get(&self, session: &str, path: &str) -> Answer {
        self.send("GET", path, &[("x-session", session)], "").await
    }

    async fn delete(&self, session: &str, path: &str) -> u16 {
        self.send("DELETE", path, &[("x-session", session)], "")
            .await
            .status
    }

    async fn status(&self, counter: &str) -> u64 {
        self.send("GET", "/status", &[], "").await.body[counter]
            .as_u64()
            .expect(counter)
    }

    /// SIGTERM, and the rest of the output.
    fn terminate(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
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

async fn the_contract_holds(example: &str, store: &str) {
    let server = Playground::start(example, &["--store", store]);
    // Keys: the header, else the cookie, else 401.
    assert_eq!(server.send("GET", "/tokens/a", &[], "").await.status, 401);
    assert_eq!(server.put("s", "/tokens/a", "first").await, Some(204));
    let cookie = server
        .send("GET", "/tokens/a", &[("cookie", "sid=s")], "")
        .await;
    assert_eq!(cookie.status, 200);
    assert_eq!(cookie.body["access_token"], "first");
    assert_eq!(cookie.body["refresh_token"], "r");
    let both = [("x-session", "other"), ("cookie", "sid=s")];
    assert_eq!(server.send("GET", "/tokens/a", &both, "").await.status, 404);
    let long = "x".repeat(2000);
    assert_eq!(server.get(&long, "/tokens/a").await.status, 400);

    // Levels and names.
    let absent = server.get("s", "/tokens/b").await;
    assert_eq!(
        (absent.status, absent.level.as_deref()),
        (404, Some("none"))
    );
    assert_eq!(
        server.get("s", "/tokens/a").await.level.as_deref(),
        Some("l1")
    );
    assert_eq!(server.put("s", "/tokens/b", "second").await, Some(204));
    assert_eq!(server.get("s", "/tokens").await.body, json!(["a", "b"]));
    assert_eq!(server.delete("s", "/tokens/a").await, 204);
    assert_eq!(server.get("s", "/tokens/a").await.status, 404);

    // Whatever happens to the request, the change is kept.
    assert_eq!(
        server.put("t", "/tokens/c?status=502", "kept-1").await,
        Some(502)
    );
    let panicked = server.put("t", "/tokens/d?panic=1", "kept-2").await;
    assert!(matches!(panicked, None | Some(500)));
    assert_eq!(
        server.put("t", "/tokens/e?stream=1", "kept-3").await,
        Some(200)
    );
    let held = server.put("t", "/tokens/f?hold_ms=60000", "kept-4");
    let hang_up = tokio::time::timeout(Duration::from_millis(300), held).await;
    assert!(hang_up.is_err(), "the client has gone");
    for (name, token) in [
        ("c", "kept-1"),
        ("d", "kept-2"),
        ("e", "kept-3"),
        ("f", "kept-4"),
    ] {
        let answer = server.get("t", &format!("/tokens/{name}")).await;
        assert_eq!(answer.body["access_token"], token);
    }
    eventually("everything is flushed", async || {
        server.status("pending_changes").await == 0
    })
    .await;

    // Sign-out, bad bodies, counters, the drain.
    assert_eq!(server.delete("t", "/tokens").await, 204);
    assert_eq!(server.get("t", "/tokens").await.body, json!([]));
    for body in ["", "{}", "{\"access_token\":7}", "nonsense"] {
        assert_eq!(
            server
                .send("PUT", "/tokens/a", &[("x-session", "s")], body)
                .await
                .status,
            400
        );
    }
    for counter in [
        "l1_entries",
        "l1_bytes",
        "l1_hits",
        "l1_misses",
        "l2_reads",
        "l2_commits",
        "l2_errors",
    ] {
        server.status(counter).await;
    }
    let last = server.terminate();
    assert!(
        last.ends_with("abandoned=0\n") && last.starts_with("drained flushed="),
        "{last:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds_on_every_store() {
    let folder = tempfile::tempdir().unwrap();
    for example in PLAYGROUNDS {
        the_contract_holds(example, "memory").await;
        let file = folder.path().join(example);
        the_contract_holds(example, &format!("sqlite:{}", file.display())).await;
        let redis = RedisServer::start();
        the_contract_holds(example, &redis.url()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_survive_a_restart_and_are_shared_between_processes() {
    let folder = tempfile::tempdir().unwrap();
    let file = format!("sqlite:{}", folder.path().join("tokens").display());
    let redis = RedisServer::start();
    for store in [file, redis.url()] {
        let first = Playground::start(PLAYGROUNDS[0], &["--store", &store]);
        assert_eq!(first.put("s", "/tokens/a", "kept").await, Some(204));
        let second = Playground::start(PLAYGROUNDS[1], &["--store", &store]);
        eventually("the other process has it", async || {
            second.get("s", "/tokens/a").await.level.as_deref() == Some("l2")
        })
        .await;
        first.terminate();
        second.terminate();
        let third = Playground::start(PLAYGROUNDS[0], &["--store", &store]);
        let answer = third.get("s", "/tokens/a").await;
        assert_eq!(answer.body["access_token"], "kept");
        assert_eq!(answer.level.as_deref(), Some("l2"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_redis_hung_policies_differ_and_nothing_is_lost() {
    for example in PLAYGROUNDS {
        let redis = RedisServer::start();
        let server = Playground::start(example, &["--store", &redis.url()]);
        assert_eq!(server.put("known", "/tokens/a", "t").await, Some(204));
        eventually("flushed", async || {
            server.status("pending_changes").await == 0
        })
        .await;
        redis.hang();
        let known = server.get("known", "/tokens/a").await;
        assert_eq!((known.status, known.level.as_deref()), (200, Some("l1")));
        let unknown = server.get("unknown", "/tokens/a").await;
        assert_eq!(
            (unknown.status, unknown.level.as_deref()),
            (404, Some("unavailable"))
        );
        let strict = [("x-session", "unknown"), ("x-failure-policy", "strict")];
        assert_eq!(
            server.send("GET", "/tokens/a", &strict, "").await.status,
            503
        );
        assert_eq!(server.put("known", "/tokens/b", "during").await, Some(204));
        redis.wake();
        eventually("replayed", async || {
            server.status("pending_changes").await == 0
        })
        .await;
        let fresh = Playground::start(example, &["--store", &redis.url()]);
        let answer = fresh.get("known", "/tokens/b").await;
        assert_eq!(answer.body["access_token"], "during");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains_what_waits() {
    for example in PLAYGROUNDS {
        let redis = RedisServer::start();
        let server = Playground::start(example, &["--store", &redis.url()]);
        server.put("warm", "/tokens/a", "t").await;
        redis.hang();
        for number in 0..20 {
            let session = number.to_string();
            assert_eq!(server.put(&session, "/tokens/a", "t").await, Some(204));
        }
        redis.wake();
        let last = server.terminate();
        assert!(last.ends_with("abandoned=0\n"), "{last:?}");
        let fresh = Playground::start(example, &["--store", &redis.url()]);
        for number in 0..20 {
            assert_eq!(
                fresh.get(&number.to_string(), "/tokens/a").await.status,
                200
            );
        }
    }
}

#[tokio::test]
async fn bad_options_are_named() {
    for (options, named) in [
        (vec!["--store", "nonsense"], "--store"),
        (vec!["--store", "redis://:secret@"], "--store"),
        (vec!["--l1-max-bytes", "many"], "--l1-max-bytes"),
        (vec!["--l1-max-bytes", "0"], "--l1-max-bytes"),
        (vec!["--failure-policy", "never"], "--failure-policy"),
        (vec!["--write-mode", "never"], "--write-mode"),
        (vec!["--absolute", "0"], "--absolute"),
        (vec!["--prefix", "a b"], "--prefix"),
        (vec!["--listen", "nowhere"], "--listen"),
        (vec!["--unheard-of"], "--unheard-of"),
    ] {
        for example in PLAYGROUNDS {
            let output = Command::new(binary(example))
                .args(&options)
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(2), "{options:?}");
            let complaint = String::from_utf8(output.stderr).unwrap();
            assert!(
                complaint.contains(named) && !complaint.contains("secret"),
                "{complaint}"
            );
        }
    }
}
