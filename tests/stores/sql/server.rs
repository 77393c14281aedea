//! What the tests need of a database, whichever it is.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::disk::SmallDisk;
use common::mariadb::MariaDbServer;
use common::postgres::PostgresServer;
use common::process::Process;
use tower_token_cache::seal::KeyRepository;
use tower_token_cache::store::{Commit, Listed, Movable, Outcome, PartitionId, SqlKeys};
use tower_token_cache::{
    ConfigError, MySql, MySqlStore, Postgres, PostgresStore, StoreError, TokenStore,
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A server and the stores in it.
pub(crate) trait Server: Send + Sync + Sized + 'static {
    type Store: Movable + Listed + Clone;
    type Keys: KeyRepository + Clone;

    fn start() -> Self;
    /// With its tables on this disk.
    fn start_on(disk: &SmallDisk) -> Self;
    fn shared() -> Arc<Self>;
    fn url(&self) -> String;
    fn query(&self, sql: &str) -> Vec<String>;
    /// A client that runs what it reads.
    fn client(&self) -> Command;
    fn hang(&self);
    fn wake(&self);
    fn kill(&mut self);
    fn restart(&mut self);

    fn build(url: &str, prefix: &str, timeout: Duration) -> Result<Self::Store, ConfigError>;
    fn connect(
        url: &str,
        prefix: &str,
        patience: Duration,
    ) -> impl Future<Output = Result<Self::Store, ConfigError>> + Send;
    fn migrate(store: &Self::Store) -> impl Future<Output = Result<(), StoreError>> + Send;
    fn statements(store: &Self::Store) -> Vec<String>;
    fn keys(store: &Self::Store, namespace: &str) -> Self::Keys;

    /// A store with tables of its own; their prefix.
    fn store(&self, timeout: Duration) -> impl Future<Output = (Self::Store, String)> + Send {
        async move {
            let prefix = new_prefix();
            let store = Self::build(&self.url(), &prefix, timeout).unwrap();
            Self::migrate(&store).await.unwrap();
            (store, prefix)
        }
    }
}

/// Two sets of tables have two prefixes.
pub(crate) fn new_prefix() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    format!("t{}_", NUMBER.fetch_add(1, Ordering::Relaxed))
}

macro_rules! server {
    ($server:ty, $store:ident, $dialect:ident, $client:expr, $hang:expr, $wake:expr, $kill:expr) => {
        impl Server for $server {
            type Store = $store;
            type Keys = SqlKeys<$dialect>;

            fn start() -> Self {
                Self::start()
            }

            fn start_on(disk: &SmallDisk) -> Self {
                Self::start_on(disk)
            }

            fn shared() -> Arc<Self> {
                Self::shared()
            }

            fn url(&self) -> String {
                self.url()
            }

            fn query(&self, sql: &str) -> Vec<String> {
                self.query(sql)
            }

            fn client(&self) -> Command {
                $client(self)
            }

            fn hang(&self) {
                $hang(self)
            }

            fn wake(&self) {
                $wake(self)
            }

            fn kill(&mut self) {
                $kill(self)
            }

            fn restart(&mut self) {
                self.restart()
            }

            fn build(url: &str, prefix: &str, timeout: Duration) -> Result<$store, ConfigError> {
                let builder = $store::builder(url).table_prefix(prefix);
                builder.response_timeout(timeout).build()
            }

            async fn connect(
                url: &str,
                prefix: &str,
                patience: Duration,
            ) -> Result<$store, ConfigError> {
                let builder = $store::builder(url).table_prefix(prefix);
                builder.connect(patience).await
            }

            async fn migrate(store: &$store) -> Result<(), StoreError> {
                store.migrate().await
            }

            fn statements(store: &$store) -> Vec<String> {
                store.statements()
            }

            fn keys(store: &$store, namespace: &str) -> SqlKeys<$dialect> {
                store.keys(namespace)
            }
        }
    };
}

server!(
    MariaDbServer,
    MySqlStore,
    MySql,
    MariaDbServer::session,
    |server: &MariaDbServer| Process::hang(server),
    |server: &MariaDbServer| Process::wake(server),
    |server: &mut MariaDbServer| Process::kill(server)
);
server!(
    PostgresServer,
    PostgresStore,
    Postgres,
    |server: &PostgresServer| server.psql("tokens"),
    PostgresServer::hang,
    PostgresServer::wake,
    PostgresServer::kill
);

/// Runs a test on each server.
macro_rules! on_both {
    ($($test:ident)*) => {
        mod postgres {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    super::$test::<common::postgres::PostgresServer>().await;
                }
            )*
        }
        mod mariadb {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    super::$test::<common::mariadb::MariaDbServer>().await;
                }
            )*
        }
    };
}
pub(crate) use on_both;

/// Somebody else's session in the database.
pub(crate) struct Foreign(Child);

impl Foreign {
    /// One that has run these statements.
    pub(crate) fn after(server: &impl Server, statements: &str) -> Self {
        let mut client = server.client();
        client
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut foreign = Self(client.spawn().expect("a client"));
        let output = foreign.0.stdout.take().expect("piped");
        foreign.run(&format!("{statements}; SELECT 'is ready'"));
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        assert!(
            lines.any(|line| line == "is ready"),
            "it runs: {statements}"
        );
        foreign
    }

    /// Does not wait for it.
    pub(crate) fn run(&mut self, statements: &str) {
        let input = self.0.stdin.as_mut().expect("piped");
        writeln!(input, "{statements};").expect("it reads");
    }

    /// Runs these, and ends.
    pub(crate) fn end(mut self, statements: &str) {
        self.run(statements);
        drop(self.0.stdin.take());
        self.0.wait().expect("it ends");
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn partition(name: &str) -> PartitionId {
    PartitionId::for_tests("test", name)
}

/// As a literal of both databases.
pub(crate) fn hex(partition: &PartitionId, server: &str) -> String {
    let digits: String = partition
        .digest()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    match server.starts_with("postgres") {
        true => format!("'\\x{digits}'"),
        false => format!("x'{digits}'"),
    }
}

pub(crate) async fn send(store: &impl TokenStore, commit: &Commit) -> Result<Outcome, StoreError> {
    store.commit(std::slice::from_ref(commit)).await.remove(0)
}

/// The version that a commit has made.
pub(crate) fn version(outcome: Result<Outcome, StoreError>) -> u64 {
    match outcome {
        Ok(Outcome::Committed { version, .. }) => version,
        other => panic!("it is applied: {other:?}"),
    }
}

/// An error with all its sources.
pub(crate) fn reasons(error: &(dyn std::error::Error + 'static)) -> String {
    let all = std::iter::successors(Some(error), |error| error.source());
    all.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
