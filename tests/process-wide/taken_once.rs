//! Of 50 callers in two processes that take a session value, one gets it: on each store that processes share.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::runtime::Handle;
use tower_token_cache::mutation::{self, Mutation};
use tower_token_cache::{
    Lookup, MemcachedStore, MySqlStore, PostgresStore, RedisStore, SqliteStore, Timeouts,
    TokenCache,
};

use common::assert_stored;
use common::mariadb::MariaDbServer;
use common::memcached::MemcachedServer;
use common::postgres::PostgresServer;
use common::redis::RedisServer;
use common::support::session;

/// In the environment of a process that takes: which store it has.
const STORE: &str = "TTC_TEST_TAKER_STORE";
/// There too, where the engine is to be broken.
const BROKEN: &str = "TTC_TEST_TAKER_BROKEN";
const ROUNDS: usize = 20;
const CALLERS: usize = 25;

/// For an answer of a database on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

async fn cache(store: &str) -> TokenCache {
    let (scheme, rest) = store.split_once(':').unwrap();
    let builder = match scheme {
        "file" => TokenCache::builder(SqliteStore::open(rest).await.unwrap()),
        "memcached" => TokenCache::builder(MemcachedStore::connect(store).await.unwrap()),
        "postgres" => {
            let builder = PostgresStore::builder(store).response_timeout(PATIENCE);
            let store = builder.build().unwrap();
            store.migrate().await.unwrap();
            TokenCache::builder(store)
        }
        "mysql" => {
            let builder = MySqlStore::builder(store).response_timeout(PATIENCE);
            let store = builder.build().unwrap();
            store.migrate().await.unwrap();
            TokenCache::builder(store)
        }
        _ => TokenCache::builder(RedisStore::connect(store).await.unwrap()),
    };
    let timeouts = Timeouts::new().attempt(PATIENCE).operation(PATIENCE);
    let builder = builder.timeouts(timeouts);
    builder.runtime(Handle::current()).build().unwrap()
}

/// A process that takes. It is told to begin, and says each time how many of its callers got the value.
struct Taker {
    process: Child,
    input: ChildStdin,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Taker {
    fn start(store: &str, broken: bool) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "taken_once::taker", "--nocapture"])
            .env(STORE, store)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if broken {
            command.env(BROKEN, "1");
        }
        let mut process = command.spawn().unwrap();
        let input = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut taker = Self {
            process,
            input,
            lines: output.lines(),
        };
        assert_eq!(taker.said(), "ready");
        taker
    }

    fn begin(&mut self, round: usize) {
        writeln!(self.input, "{round}").unwrap();
    }

    fn said(&mut self) -> String {
        let said = |line: String| Some(line.split_once("taker: ")?.1.to_owned());
        self.lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(said)
            .expect("it lives")
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What such a process runs; elsewhere it is no test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn taker() {
    let Ok(store) = std::env::var(STORE) else {
        return;
    };
    if std::env::var_os(BROKEN).is_some() {
        mutation::choose_for_all(Mutation::TakeWithoutCompareAndSet);
    }
    let cache = cache(&store).await;
    // The first use of a store takes longer.
    let unknown = cache.tokens(session("unknown"));
    assert_eq!(
        unknown.take::<String>("login").await.unwrap(),
        Lookup::Absent
    );
    println!("taker: ready");
    for round in std::io::stdin().lines() {
        let round = round.unwrap();
        let callers = (0..CALLERS).map(|_| {
            let tokens = cache.tokens(session(&round));
            tokio::spawn(async move { tokens.take::<String>("login").await.unwrap() })
        });
        let taken = join_all(callers).await.into_iter().map(Result::unwrap);
        let taken: Vec<_> = taken.collect();
        let undecided = taken.iter().any(|it| matches!(it, Lookup::Unavailable));
        assert!(!undecided, "L2 could be asked");
        println!("taker: {}", taken.iter().filter(|it| it.is_hit()).count());
    }
}

/// How many callers of two processes got each value.
async fn given(store: &str, broken: bool) -> Vec<usize> {
    let cache = cache(store).await;
    let mut takers = [(); 2].map(|()| Taker::start(store, broken));
    let mut given = Vec::new();
    for round in 0..ROUNDS {
        let tokens = cache.tokens(session(&round.to_string()));
        let minute = Duration::from_secs(60);
        tokens.put("login", "v", minute).await.unwrap();
        assert_stored(tokens.commit().await.unwrap());
        takers.iter_mut().for_each(|taker| taker.begin(round));
        let said = takers
            .iter_mut()
            .map(|it| it.said().parse::<usize>().unwrap());
        given.push(said.sum());
    }
    given
}

#[tokio::test]
async fn one_of_two_processes_takes_from_redis() {
    let server = RedisServer::start();
    assert_eq!(given(&server.url(), false).await, [1; ROUNDS]);
}

#[tokio::test]
async fn one_of_two_processes_takes_from_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("file:{}", folder.path().join("tokens.db").display());
    assert_eq!(given(&store, false).await, [1; ROUNDS]);
}

#[tokio::test]
async fn one_of_two_processes_takes_from_postgres() {
    let server = PostgresServer::start();
    assert_eq!(given(&server.url(), false).await, [1; ROUNDS]);
}

#[tokio::test]
async fn one_of_two_processes_takes_from_mariadb() {
    let server = MariaDbServer::start();
    assert_eq!(given(&server.url(), false).await, [1; ROUNDS]);
}

#[tokio::test]
async fn one_of_two_processes_takes_from_memcached() {
    let server = MemcachedServer::start();
    assert_eq!(given(&server.url(), false).await, [1; ROUNDS]);
}

/// The engine broken on purpose: the tests above would notice.
#[tokio::test]
async fn without_compare_and_set_several_take() {
    let server = RedisServer::start();
    let given = given(&server.url(), true).await;
    assert!(given.iter().any(|count| *count > 1), "{given:?}");
}
