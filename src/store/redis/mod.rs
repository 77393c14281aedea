//! `RedisStore`: partitions as hashes in Redis or Valkey.

mod pool;
mod record;
mod scripts;

use std::fmt;
use std::time::Duration;

use bb8_redis::bb8::RunError;
use bb8_redis::redis::io::tcp::TcpSettings;
use bb8_redis::redis::{
    Client, Cmd, ConnectionInfo, ErrorKind, IntoConnectionInfo, Pipeline, RedisError, RedisResult,
    ServerErrorKind, Value,
};

use self::pool::{Connection, Pool, pool};
use self::scripts::{Lua, hash_key};
use super::{
    Commit, Lease, LeaseState, Loaded, Origin, Outcome, PartitionId, Remaining, StoreFuture,
    TokenStore,
};
use crate::error::{ConfigError, StoreError, StoreErrorKind};

/// A store in Redis or Valkey (tested with Redis 7.0 and 8.0, Valkey 9.1): one hash per partition, under
/// `namespace:{digest}`, and one script per commit.
///
/// A few multiplexed connections serve everybody. One that breaks or does not answer in time is
/// replaced; scripts are loaded again where the server has lost them. Clones share the
/// connections.
#[derive(Clone)]
pub struct RedisStore {
    pool: Pool,
}

/// Sets up a [`RedisStore`].
#[derive(Debug)]
pub struct RedisStoreBuilder {
    url: String,
    response_timeout: Duration,
}

impl RedisStore {
    /// A store on the server of this URL: `redis://[user:password@]host[:port][/database]`.
    /// The server need not be up: connections are made, and made again, as they are needed.
    ///
    /// Call it on the runtime that is to drive the connections.
    ///
    /// # Errors
    /// [`ConfigError`] for a URL that cannot be used.
    pub async fn connect(url: impl Into<String>) -> Result<Self, ConfigError> {
        Self::builder(url).build()
    }

    /// A store with other settings than the defaults.
    pub fn builder(url: impl Into<String>) -> RedisStoreBuilder {
        RedisStoreBuilder {
            url: url.into(),
            response_timeout: Duration::from_millis(200),
        }
    }

    async fn connection(&self) -> Result<Connection, StoreError> {
        match self.pool.get().await {
            // A clone, so that the next request need not wait for this one to end.
            Ok(connection) => Ok(connection.clone()),
            Err(RunError::User(error)) => Err(store_error(error)),
            Err(RunError::TimedOut) => Err(StoreError::new(StoreErrorKind::Unreachable)),
        }
    }

    async fn send(&self, pipeline: &Pipeline) -> Result<Vec<RedisResult<Value>>, StoreError> {
        self.connection()
            .await?
            .send(pipeline)
            .await
            .map_err(store_error)
    }

    /// Runs one script per command. All our scripts may be repeated, so where the server has lost
    /// one the whole pipeline goes out again.
    async fn run(
        &self,
        script: &Lua,
        commands: impl Iterator<Item = Cmd>,
    ) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
        let mut pipeline = Pipeline::new();
        for command in commands {
            pipeline.add_command(command);
        }
        let mut connection = self.connection().await?;
        let mut answers = connection.send(&pipeline).await.map_err(store_error)?;
        if answers
            .iter()
            .any(|answer| answer.as_ref().is_err_and(lost_script))
        {
            let mut load = Pipeline::with_capacity(1);
            load.cmd("SCRIPT").arg("LOAD").arg(script.code);
            connection.send(&load).await.map_err(store_error)?;
            answers = connection.send(&pipeline).await.map_err(store_error)?;
        }
        Ok(answers
            .into_iter()
            .map(|answer| answer.map_err(store_error))
            .collect())
    }

    async fn run_one(&self, script: &Lua, command: Cmd) -> Result<Value, StoreError> {
        let answers = self.run(script, std::iter::once(command)).await?;
        answers
            .into_iter()
            .next()
            .unwrap_or_else(|| Err(unexpected()))
    }
}

impl RedisStoreBuilder {
    /// How long to wait for a connection, and for an answer, before the connection is given up.
    /// Defaults to 200 ms; keep it below the cache's
    /// [`soft_timeout`](crate::Builder::soft_timeout), so that a dead connection is noticed.
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = timeout;
        self
    }

    /// The store. It connects in the background.
    ///
    /// # Errors
    /// [`ConfigError`] for a URL that cannot be used, a timeout of zero, or a call outside of a
    /// tokio runtime.
    pub fn build(self) -> Result<RedisStore, ConfigError> {
        let info = connection_info(&self.url)?;
        let client = Client::open(info).map_err(|_| bad_url())?;
        if self.response_timeout.is_zero() {
            return Err(ConfigError::new("response_timeout", "must be above 0"));
        }
        tokio::runtime::Handle::try_current().map_err(|error| {
            ConfigError::new("runtime", "a Redis store must be made inside of tokio")
                .with_source(error)
        })?;
        Ok(RedisStore {
            pool: pool(client, self.response_timeout),
        })
    }
}

/// The error never holds the URL, which may hold a password.
fn bad_url() -> ConfigError {
    ConfigError::new(
        "url",
        "must be redis://[user:password@]host[:port][/database]",
    )
}

fn connection_info(url: &str) -> Result<ConnectionInfo, ConfigError> {
    let info = url.into_connection_info().map_err(|_| bad_url())?;
    if !info.addr().is_supported() {
        return Err(bad_url());
    }
    let tcp = TcpSettings::default().set_nodelay(true);
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    let tcp = tcp.set_user_timeout(Duration::from_secs(5));
    Ok(info.set_tcp_settings(tcp))
}

impl TokenStore for RedisStore {
    fn load<'a>(&'a self, id: &'a PartitionId) -> StoreFuture<'a, Result<Loaded, StoreError>> {
        Box::pin(async move {
            let mut pipeline = Pipeline::with_capacity(2);
            pipeline.cmd("HGETALL").arg(hash_key(id)).cmd("TIME");
            let mut answers = self.send(&pipeline).await?.into_iter();
            let (Some(hash), Some(time)) = (answers.next(), answers.next()) else {
                return Err(unexpected());
            };
            let now = record::time(time.map_err(store_error)?).ok_or_else(unexpected)?;
            match hash {
                Ok(hash) => record::load(hash, now).ok_or_else(unexpected),
                // Something that is no hash stands in the partition's place.
                Err(error) if error.code() == Some("WRONGTYPE") => Ok(Loaded {
                    damaged: 1,
                    ..Loaded::default()
                }),
                Err(error) => Err(store_error(error)),
            }
        })
    }

    fn commit<'a>(
        &'a self,
        group: &'a [Commit],
    ) -> StoreFuture<'a, Vec<Result<Outcome, StoreError>>> {
        Box::pin(async move {
            let outcome = |answer| record::outcome(answer).ok_or_else(unexpected);
            match self
                .run(&scripts::COMMIT, group.iter().map(scripts::commit))
                .await
            {
                Ok(answers) => answers
                    .into_iter()
                    .map(|answer| answer.and_then(outcome))
                    .collect(),
                Err(error) => vec![Err(error); group.len()],
            }
        })
    }

    fn touch<'a>(
        &'a self,
        group: &'a [PartitionId],
    ) -> StoreFuture<'a, Vec<Result<Remaining, StoreError>>> {
        Box::pin(async move {
            let remaining = |answer| record::touched(answer).ok_or_else(unexpected);
            match self
                .run(&scripts::TOUCH, group.iter().map(scripts::touch))
                .await
            {
                Ok(answers) => answers
                    .into_iter()
                    .map(|answer| answer.and_then(remaining))
                    .collect(),
                Err(error) => vec![Err(error); group.len()],
            }
        })
    }

    fn clear<'a>(
        &'a self,
        id: &'a PartitionId,
        expected: Option<u64>,
    ) -> StoreFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            let command = scripts::clear(id, expected);
            match self.run_one(&scripts::CLEAR, command).await? {
                Value::Int(generation) => Ok(generation.unsigned_abs()),
                _ => Err(unexpected()),
            }
        })
    }

    fn relocate<'a>(
        &'a self,
        from: &'a Origin,
        commit: &'a Commit,
    ) -> StoreFuture<'a, Result<Outcome, StoreError>> {
        Box::pin(async move {
            if from.partition == commit.partition {
                return Err(StoreError::new(StoreErrorKind::Refused));
            }
            let command = scripts::relocate(from, commit);
            let answer = self.run_one(&scripts::RELOCATE, command).await?;
            record::outcome(answer).ok_or_else(unexpected)
        })
    }

    fn acquire_lease<'a>(
        &'a self,
        lease: &'a Lease,
        ttl: Duration,
    ) -> StoreFuture<'a, Result<LeaseState, StoreError>> {
        Box::pin(async move {
            let command = scripts::acquire(lease, ttl);
            let answer = self.run_one(&scripts::ACQUIRE, command).await?;
            record::lease(answer).ok_or_else(unexpected)
        })
    }

    fn renew_lease<'a>(
        &'a self,
        lease: &'a Lease,
        ttl: Duration,
    ) -> StoreFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            let command = scripts::renew(lease, ttl);
            Ok(self.run_one(&scripts::RENEW, command).await? == Value::Int(1))
        })
    }

    fn release_lease<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            let command = scripts::release(lease);
            Ok(self.run_one(&scripts::RELEASE, command).await? == Value::Int(1))
        })
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("connections", &self.pool.state().connections)
            .finish_non_exhaustive()
    }
}

fn lost_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

fn store_error(error: RedisError) -> StoreError {
    let kind = if error.is_timeout() {
        StoreErrorKind::Timeout
    } else if error.is_io_error() || error.is_connection_dropped() || error.is_unrecoverable_error()
    {
        StoreErrorKind::Unreachable
    } else {
        StoreErrorKind::Refused
    };
    StoreError::with_source(kind, error)
}

/// The server's answer is not of the form that our commands have.
fn unexpected() -> StoreError {
    StoreError::new(StoreErrorKind::Refused)
}
