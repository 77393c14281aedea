//! Sign-outs that outlive the process that L2 could not be told by.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::support::*;
use futures_util::FutureExt;
use tower_token_cache::{Durability, Lookup, TokenCache};

/// A process that starts once the one before has ended.
async fn started(store: &TestStore, journal: &Path) -> TokenCache {
    let mut started = None;
    eventually("nobody else has the journal", async || {
        started = builder(store.clone()).journal(journal).build().ok();
        started.is_some()
    })
    .await;
    started.unwrap()
}

/// A session `s` that was signed out while L2 was away, by a process that is gone.
async fn signed_out_by_the_last_process(journal: &Path) -> TestStore {
    let store = seeded().await;
    let cache = started(&store, journal).await;
    store.set_down(true);
    let answer = cache.tokens(session("s")).sign_out().await;
    assert_eq!(answer.unwrap(), Durability::Pending);
    drop(cache);
    store
}

fn journal() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sign-outs");
    (folder, path)
}

/// Set in the environment of the process that is killed.
const CHILD: &str = "TTC_TEST_JOURNAL";

/// Not a test by itself: the process that is killed.
#[tokio::test]
#[ignore = "the other test starts it"]
async fn process_that_is_killed() {
    let Ok(environment) = std::env::var(CHILD) else {
        return;
    };
    let (url, path) = environment.split_once(' ').unwrap();
    let store = tower_token_cache::RedisStore::connect(url).await.unwrap();
    let cache = builder(store).journal(path).build().unwrap();
    let tokens = cache.tokens(session("s"));
    assert_eq!(access(&tokens, "graph").await.as_deref(), Some("t"));
    println!("\nready");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    assert_eq!(tokens.sign_out().await.unwrap(), Durability::Pending);
    println!("\npending");
    std::future::pending().await
}

fn hears(child: &mut BufReader<std::process::ChildStdout>, wanted: &str) {
    let mut lines = child.lines().map_while(Result::ok);
    assert!(lines.any(|line| line == wanted), "not heard: {wanted}");
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // SIGKILL
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_sign_out_that_was_answered_pending_survives_a_kill() {
    let (_folder, path) = journal();
    let server = RedisServer::start();
    let other = redis_cache(&server).await;
    let tokens = other.tokens(session("s"));
    tokens.insert("graph", token("t")).await.unwrap();
    assert_eq!(tokens.commit().await.unwrap(), Durability::Stored);

    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "journal::process_that_is_killed",
            "--ignored",
            "--nocapture",
        ])
        .env(CHILD, format!("{} {}", server.url(), path.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut input = child.stdin.take().unwrap();
    let child = Killed(child);
    hears(&mut output, "ready");
    server.hang();
    writeln!(input).unwrap();
    hears(&mut output, "pending");
    drop(child);
    server.wake();
    let found = stored(redis_store(&server).await, "s", "graph").await;
    assert_eq!(found.as_deref(), Some("t"), "L2 has not heard of it");

    let next = builder(redis_store(&server).await).journal(&path);
    let next = next.build().unwrap();
    assert_eq!(access(&next.tokens(session("s")), "graph").await, None);
    eventually("L2 is told", async || next.stats().pending_sign_outs == 0).await;
    assert_eq!(stored(redis_store(&server).await, "s", "graph").await, None);

    // Once: the next session is another one.
    let tokens = next.tokens(session("s"));
    tokens.insert("graph", token("new")).await.unwrap();
    assert_eq!(tokens.commit().await.unwrap(), Durability::Stored);
    let report = next.shutdown(Duration::from_secs(5)).await;
    assert_eq!(
        (report.sign_outs_abandoned, report.sign_outs_journaled),
        (0, 0)
    );
    drop((tokens, next));
    let store = TestStore::default();
    drop(started(&store, &path).await);
    let found = stored(redis_store(&server).await, "s", "graph").await;
    assert_eq!(found.as_deref(), Some("new"));
}

#[tokio::test]
async fn l2_is_told_of_those_who_do_not_come_back() {
    let (_folder, path) = journal();
    let store = signed_out_by_the_last_process(&path).await;
    let next = started(&store, &path).await;
    assert_eq!(next.stats().pending_sign_outs, 1);
    store.set_down(false);
    eventually("L2 is told", async || next.stats().pending_sign_outs == 0).await;
    assert_eq!(stored(store, "s", "graph").await, None);
}

/// Reads of L2 work, and it cannot be told of the sign-out.
#[tokio::test]
async fn until_l2_is_told_the_session_is_signed_out_here() {
    let (_folder, path) = journal();
    let store = signed_out_by_the_last_process(&path).await;
    let next = started(&store, &path).await;
    let tokens = next.tokens(session("s"));
    assert_eq!(tokens.get("graph").await.unwrap(), Lookup::Absent);
    // What begins now is the next session.
    let tokens = next.tokens(session("s"));
    tokens.insert("graph", token("new")).await.unwrap();
    assert_eq!(access(&tokens, "graph").await.as_deref(), Some("new"));
    store.set_down(false);
    drained(&next).await;
    assert_eq!(next.stats().pending_sign_outs, 0);
    let found = stored(store.clone(), "s", "graph").await;
    assert_eq!(found.as_deref(), Some("new"));
}

#[tokio::test]
async fn a_shutdown_leaves_what_waits_to_the_next_process() {
    let (_folder, path) = journal();
    let store = seeded().await;
    let cache = started(&store, &path).await;
    store.hang();
    let tokens = cache.tokens(session("s"));
    let waiting = tokio::spawn(async move { tokens.sign_out().await });
    eventually("it is signed out", async || {
        cache.stats().pending_sign_outs == 1
    })
    .await;
    let report = cache.shutdown(Duration::from_millis(10)).await;
    assert_eq!(
        (report.sign_outs_abandoned, report.sign_outs_journaled),
        (0, 1)
    );
    assert_eq!(waiting.await.unwrap().unwrap(), Durability::Pending);
}

#[tokio::test]
async fn a_client_that_goes_away_takes_no_sign_out_along() {
    let (_folder, path) = journal();
    let store = seeded().await;
    let cache = started(&store, &path).await;
    store.set_down(true);
    let tokens = cache.tokens(session("s"));
    // The client goes away after the first poll.
    let _ = tokens.sign_out().now_or_never();
    eventually("it is in the journal", async || {
        std::fs::metadata(&path).unwrap().len() > 60
    })
    .await;
}
