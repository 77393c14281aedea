//! `Home`: where the stores of a test are, whichever they are.

use std::sync::Arc;

use common::mariadb::MariaDbServer;
use common::memcached::MemcachedServer;
use common::postgres::PostgresServer;
use common::redis::RedisServer;
use common::support::redis_store;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, SqliteConnection};
use tempfile::TempDir;
use tower_token_cache::{MemcachedStore, RedisStore, SqliteStore, TokenStore};

use crate::sql::server::{PATIENCE, Server, new_prefix};

/// A server or a file. Stores in it share everything.
pub(crate) trait Home: Send + Sync + Sized + 'static {
    type Store: TokenStore;

    /// One with nothing in it.
    fn start() -> impl Future<Output = Self> + Send;

    /// One that a test may do harm to.
    fn alone() -> impl Future<Output = Self> + Send {
        Self::start()
    }

    fn store(&self) -> impl Future<Output = Self::Store> + Send;

    /// What the playground calls it.
    fn name(&self) -> String;

    /// It takes no change from now on.
    fn hang(&mut self) -> impl Future<Output = ()> + Send;

    fn wake(&mut self) -> impl Future<Output = ()> + Send;
}

/// One that comes back after a crash with all that it has acknowledged.
pub(crate) trait Durable: Home {
    fn kill(&mut self);
    fn restart(&mut self);
}

/// Tables in a database.
pub(crate) struct Tables<S> {
    server: Arc<S>,
    prefix: String,
}

impl<S: Server> Tables<S> {
    async fn on(server: Arc<S>) -> Self {
        let prefix = new_prefix();
        let store = S::build(&server.url(), &prefix, PATIENCE).unwrap();
        S::migrate(&store).await.unwrap();
        Self { server, prefix }
    }

    fn server(&mut self) -> &mut S {
        Arc::get_mut(&mut self.server).expect("it is alone")
    }
}

impl<S: Server> Home for Tables<S> {
    type Store = S::Store;

    async fn start() -> Self {
        Self::on(S::shared()).await
    }

    async fn alone() -> Self {
        Self::on(Arc::new(S::start())).await
    }

    async fn store(&self) -> S::Store {
        S::build(&self.server.url(), &self.prefix, PATIENCE).unwrap()
    }

    fn name(&self) -> String {
        self.server.url()
    }

    async fn hang(&mut self) {
        self.server.hang();
    }

    async fn wake(&mut self) {
        self.server.wake();
    }
}

impl<S: Server> Durable for Tables<S> {
    fn kill(&mut self) {
        self.server().kill();
    }

    fn restart(&mut self) {
        self.server().restart();
    }
}

pub(crate) type Postgres = Tables<PostgresServer>;
pub(crate) type MariaDb = Tables<MariaDbServer>;

/// A server that appends every write to disk.
pub(crate) struct Redis(RedisServer);

impl Home for Redis {
    type Store = RedisStore;

    async fn start() -> Self {
        Self(RedisServer::start_persistent())
    }

    async fn store(&self) -> RedisStore {
        redis_store(&self.0).await
    }

    fn name(&self) -> String {
        self.0.url()
    }

    async fn hang(&mut self) {
        self.0.hang();
    }

    async fn wake(&mut self) {
        self.0.wake();
    }
}

impl Durable for Redis {
    fn kill(&mut self) {
        self.0.kill();
    }

    fn restart(&mut self) {
        self.0.restart();
    }
}

pub(crate) struct Memcached(MemcachedServer);

impl Home for Memcached {
    type Store = MemcachedStore;

    async fn start() -> Self {
        Self(MemcachedServer::start())
    }

    async fn store(&self) -> MemcachedStore {
        MemcachedStore::connect(&self.0.url()).await.unwrap()
    }

    fn name(&self) -> String {
        self.0.url()
    }

    async fn hang(&mut self) {
        self.0.hang();
    }

    async fn wake(&mut self) {
        self.0.wake();
    }
}

/// A file, and who holds its lock.
pub(crate) struct Sqlite(TempDir, Option<SqliteConnection>);

impl Sqlite {
    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("tokens.db")
    }
}

impl Home for Sqlite {
    type Store = SqliteStore;

    async fn start() -> Self {
        Self(tempfile::tempdir().unwrap(), None)
    }

    async fn store(&self) -> SqliteStore {
        SqliteStore::open(self.path()).await.unwrap()
    }

    fn name(&self) -> String {
        format!("sqlite:{}", self.path().display())
    }

    async fn hang(&mut self) {
        let options = SqliteConnectOptions::new().filename(self.path());
        let mut other = options.connect().await.unwrap();
        let lock = sqlx::raw_sql("BEGIN IMMEDIATE");
        lock.execute(&mut other).await.unwrap();
        self.1 = Some(other);
    }

    async fn wake(&mut self) {
        self.1 = None;
    }
}
