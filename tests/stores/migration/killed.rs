//! Processes that are killed in the middle of a move: a mover, and an instance whose requests move what they change.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use common::mariadb::MariaDbServer;
use common::postgres::PostgresServer;
use futures_util::StreamExt;
use tower_token_cache::store::{CommitId, MigratingStore, Outcome};
use tower_token_cache::{MySqlStore, PostgresStore, TokenStore};

use super::{NAMESPACE, id, load, move_all, put};
use crate::sql::server::{PATIENCE, Server};

/// In the environment of a process that is to be killed: what it does, in which round, and where the stores are.
const VICTIM: &str = "TTC_TEST_VICTIM";
const USERS: u64 = 60;
const ROUNDS: u64 = 5;

/// What an instance has acknowledged: of which user, and in which round.
#[derive(Default)]
struct Acknowledged {
    put: BTreeMap<u64, u64>,
    signed_out: BTreeMap<u64, u64>,
}

fn stores(place: &[&str]) -> (PostgresStore, MySqlStore) {
    let [old, old_prefix, new, new_prefix] = place else {
        panic!("{place:?}");
    };
    (
        <PostgresServer as Server>::build(old, old_prefix, PATIENCE).unwrap(),
        <MariaDbServer as Server>::build(new, new_prefix, PATIENCE).unwrap(),
    )
}

/// What such a process runs; elsewhere it is no test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victim() {
    let Ok(told) = std::env::var(VICTIM) else {
        return;
    };
    let told: Vec<_> = told.split('|').collect();
    let round: u64 = told[1].parse().unwrap();
    let (old, new) = stores(&told[2..]);
    let store = MigratingStore::moving(old, new);
    if told[0] == "mover" {
        let mut run = std::pin::pin!(store.mover(NAMESPACE).per_second(50).run());
        while let Some(progress) = run.next().await {
            progress.unwrap();
        }
        return;
    }
    for at in 0..USERS {
        let at = (at + 17 * round) % USERS;
        let (name, number) = (format!("user {at}"), round << 32 | at);
        if at.is_multiple_of(5) {
            let number = CommitId(number.to_be_bytes());
            store.clear(&id(&name), None, number).await.unwrap();
            println!("victim: out {at}");
        } else if let Outcome::Committed { .. } =
            put(&store, &name, number, &format!("{round}")).await
        {
            println!("victim: put {at}");
        }
    }
}

fn start(what: &str, round: u64, place: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "migration::killed::victim", "--nocapture"]);
    command.env(VICTIM, format!("{what}|{round}|{place}"));
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().unwrap()
}

impl Acknowledged {
    /// Both processes run until the instance has acknowledged so much; what it has, after it is killed.
    fn round(&mut self, round: u64, place: &str) {
        let mut victims = ["instance", "mover"].map(|what| start(what, round, place));
        let output = BufReader::new(victims[0].stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some((_, said)) = line.split_once("victim: ") {
                    let _ = sender.send(said.to_owned());
                }
            }
        });
        let mut said = Vec::new();
        for _ in 0..1 + 4 * round {
            said.push(lines.recv_timeout(Duration::from_secs(20)).unwrap());
        }
        for victim in &mut victims {
            victim.kill().unwrap();
            victim.wait().unwrap();
        }
        reader.join().unwrap();
        said.extend(lines);
        for said in said {
            let (what, at) = said.split_once(' ').unwrap();
            let acknowledged = match what {
                "put" => &mut self.put,
                _ => &mut self.signed_out,
            };
            acknowledged.insert(at.parse().unwrap(), round);
        }
    }

    /// What was acknowledged is there, or what was written after it.
    async fn is_in(&self, store: &impl TokenStore, case: &str) {
        for at in 0..USERS {
            let loaded = load(store, &format!("user {at}")).await;
            let value = loaded.entries.first().map(|it| it.value.to_vec());
            let value = value.map(|it| String::from_utf8(it).unwrap().parse::<u64>().unwrap());
            let case = format!("{case}: user {at}: {value:?}");
            match (at % 5, self.signed_out.contains_key(&at)) {
                (0, true) => assert!(value.is_none() && loaded.generation > 0, "{case}"),
                // A sign-out that was under way may have been done.
                (0, false) => assert!(matches!(value, None | Some(0)), "{case}"),
                _ => assert!(
                    value >= Some(self.put.get(&at).copied().unwrap_or(0)),
                    "{case}"
                ),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_are_killed_in_a_move_lose_nothing() {
    let (postgres, mariadb) = (PostgresServer::shared(), MariaDbServer::shared());
    let (old, old_prefix) = Server::store(&*postgres, PATIENCE).await;
    let (new, new_prefix) = Server::store(&*mariadb, PATIENCE).await;
    for at in 0..USERS {
        put(&old, &format!("user {at}"), at, "0").await;
    }
    let (from, to) = (postgres.url(), mariadb.url());
    let place = format!("{from}|{old_prefix}|{to}|{new_prefix}");
    let mut acknowledged = Acknowledged::default();
    for round in 1..=ROUNDS {
        acknowledged.round(round, &place);
    }
    let following = MigratingStore::following(old.clone(), new.clone());
    acknowledged.is_in(&following, "after the last crash").await;
    assert!(
        move_all(&MigratingStore::moving(old, new.clone()))
            .await
            .done
    );
    acknowledged.is_in(&new, "after the move").await;
}
