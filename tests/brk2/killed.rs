//! Processes on one SQLite file that are killed while they write.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::random::SplitMix64;
use common::support::*;
use tower_token_cache::{Durability, SqliteStore};

/// Set in the environment of the process that is killed.
const CHILD: &str = "TTC_TEST_KILLED";
const SESSIONS: u64 = 8;

/// Not a test by itself: the process that is killed. It says what the store has acknowledged.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the other test starts it"]
async fn process_that_is_killed() {
    let Ok(environment) = std::env::var(CHILD) else {
        return;
    };
    let (seed, path) = environment.split_once(' ').unwrap();
    let seed: u64 = seed.parse().unwrap();
    let mut draw = SplitMix64::new(seed);
    let one = cache(SqliteStore::open(path).await.unwrap());
    println!("\nready");
    for number in 1.. {
        let name = format!("s{}", draw.draw() % SESSIONS);
        let tokens = one.tokens(session(&name));
        if draw.draw().is_multiple_of(10) {
            println!("\nends {name}");
            if matches!(tokens.sign_out().await, Ok(Durability::Stored)) {
                println!("\nended {name}");
            }
            continue;
        }
        let text = format!("{seed}-{number}");
        println!("\nwrites {name} {text}");
        if tokens.insert("api", token(&text)).await.is_ok()
            && matches!(tokens.commit().await, Ok(Durability::Stored))
        {
            println!("\nwrote {name} {text}");
        }
    }
}

/// What each session may hold after what a process has said: the last that was acknowledged, or what was under way.
fn follow(line: &str, may_hold: &mut HashMap<String, Vec<Option<String>>>) {
    let words: Vec<_> = line.split(' ').collect();
    match words[..] {
        ["writes", name, text] => may_hold.get_mut(name).unwrap().push(Some(text.into())),
        ["ends", name] => may_hold.get_mut(name).unwrap().push(None),
        ["wrote", name, text] => *may_hold.get_mut(name).unwrap() = vec![Some(text.into())],
        ["ended", name] => *may_hold.get_mut(name).unwrap() = vec![None],
        _ => {}
    }
}

fn run(path: &Path, seed: u64, may_hold: &mut HashMap<String, Vec<Option<String>>>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "killed::process_that_is_killed",
            "--ignored",
            "--nocapture",
        ])
        .env(CHILD, format!("{seed} {}", path.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    assert!(lines.any(|line| line == "ready"));
    let mut draw = SplitMix64::new(seed);
    let pause = Duration::from_micros(20_000 + draw.draw() % 300_000);
    let reader = std::thread::spawn(move || Vec::from_iter(lines));
    std::thread::sleep(pause);
    child.kill().unwrap();
    child.wait().unwrap();
    for line in reader.join().unwrap() {
        follow(&line, may_hold);
    }
}

/// SqliteStore: "a commit survives the end of the process", and so does a sign-out. Another process has the file open all
/// the time, writes to it, and sees what was left within a quarter of a second.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kills() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.db");
    let here = cache(SqliteStore::open(&path).await.unwrap());
    let mut may_hold = HashMap::new();
    for number in 0..SESSIONS {
        may_hold.insert(format!("s{number}"), vec![None]);
    }
    let mut written = 0;
    for seed in 1..=25 {
        let (path, mut held) = (path.clone(), may_hold.clone());
        let busy = tokio::spawn({
            let here = here.clone();
            async move {
                let mut done = 0;
                loop {
                    let tokens = here.tokens(session("here"));
                    tokens
                        .insert("api", token(&format!("{done}")))
                        .await
                        .unwrap();
                    if tokens.commit().await.is_ok() {
                        done += 1;
                    }
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
            }
        });
        may_hold = tokio::task::spawn_blocking(move || {
            run(&path, seed, &mut held);
            held
        })
        .await
        .unwrap();
        busy.abort();
        tokio::time::sleep(Duration::from_millis(600)).await;
        let fresh = cache(
            SqliteStore::open(folder.path().join("tokens.db"))
                .await
                .unwrap(),
        );
        for (name, may) in &mut may_hold {
            written += may.len();
            let stored = access(&fresh.tokens(session(name)), "api").await;
            assert!(
                may.contains(&stored),
                "{seed}: {name} has {stored:?}, may {may:?}"
            );
            let seen = access(&here.tokens(session(name)), "api").await;
            assert_eq!(seen, stored, "{seed}: {name} as the other process sees it");
            *may = vec![stored];
        }
    }
    let sessions = may_hold.values().filter(|may| may[0].is_some()).count();
    assert!(sessions > 0, "the processes have written something");
    println!("{written} states, {sessions} sessions at the end");
}
