//! Connections to one server: pooled, multiplexed, replaced when they fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bb8_redis::bb8;
use bb8_redis::redis::aio::MultiplexedConnection;
use bb8_redis::redis::{
    AsyncConnectionConfig, Client, Pipeline, RedisError, RedisResult, Value, cmd,
};
use tokio::time::Instant;

#[cfg(feature = "redis-sentinel")]
use super::sentinel::{Place, Sentinels};

/// Connections per store. Each is multiplexed, so four serve any number of requests; more than one
/// keeps a small read from waiting behind a large commit.
const CONNECTIONS: u32 = 4;
/// A connection that has answered within this time is taken to work, and is not pinged.
const TRUSTED: Duration = Duration::from_secs(1);

pub(super) type Pool = bb8::Pool<Manager>;

/// Which server it is.
#[derive(Clone)]
pub(super) enum Target {
    /// This one.
    Server(Box<Client>),
    /// The one that is the master.
    #[cfg(feature = "redis-sentinel")]
    Sentinels(Arc<Sentinels>),
}

/// Makes connections, and tells working ones from others.
#[derive(Clone)]
pub(super) struct Manager {
    target: Target,
    connect_timeout: Duration,
    response_timeout: Duration,
    started: Instant,
}

/// A multiplexed connection and what is known of its health, shared by all its clones.
#[derive(Clone)]
pub(super) struct Connection {
    inner: MultiplexedConnection,
    health: Arc<Health>,
    started: Instant,
    /// Who says whether it is still the right server.
    #[cfg(feature = "redis-sentinel")]
    named_by: Option<(Arc<Sentinels>, Place)>,
}

#[derive(Debug, Default)]
struct Health {
    broken: AtomicBool,
    /// Milliseconds from `started` to the last answer.
    answered: AtomicU64,
}

pub(super) fn pool(target: Target, response_timeout: Duration) -> Pool {
    let manager = Manager {
        target,
        connect_timeout: response_timeout,
        response_timeout,
        started: Instant::now(),
    };
    bb8::Pool::builder()
        .max_size(CONNECTIONS)
        .min_idle(CONNECTIONS)
        .connection_timeout(response_timeout)
        .retry_connection(false)
        .error_sink(Box::new(LogErrors))
        .build_unchecked(manager)
}

impl Connection {
    /// Sends all commands of the pipeline in one round-trip. Each has an answer of its own.
    pub(super) async fn send(
        &mut self,
        pipeline: &Pipeline,
    ) -> RedisResult<Vec<RedisResult<Value>>> {
        let answers = self
            .inner
            .send_packed_commands(pipeline, 0, pipeline.len())
            .await;
        match &answers {
            Ok(_) => self.healthy(),
            Err(error) => self.failed(error),
        }
        let answers: Vec<RedisResult<Value>> =
            answers?.into_iter().map(Value::extract_error).collect();
        for error in answers.iter().filter_map(|answer| answer.as_ref().err()) {
            self.failed(error);
        }
        Ok(answers)
    }

    fn healthy(&self) {
        let millis = self.started.elapsed().as_millis() as u64;
        self.health.answered.store(millis, Ordering::Relaxed);
    }

    /// Gives the connection up where another one may do better: after an I/O error, a timeout, or
    /// when the server behind it has become a replica.
    fn failed(&self, error: &RedisError) {
        let unusable = error.is_io_error()
            || error.is_timeout()
            || error.is_connection_dropped()
            || error.is_unrecoverable_error()
            || matches!(error.code(), Some("READONLY" | "MASTERDOWN" | "UNKILLABLE"))
            // Servers before 7.0 wrap what a script has met.
            || error.detail().is_some_and(|detail| detail.contains("-READONLY"));
        if unusable {
            self.health.broken.store(true, Ordering::Release);
        }
    }

    fn is_broken(&self) -> bool {
        #[cfg(feature = "redis-sentinel")]
        if let Some((sentinels, place)) = &self.named_by
            && sentinels.name_another(place)
        {
            return true;
        }
        self.health.broken.load(Ordering::Acquire)
    }

    fn is_trusted(&self) -> bool {
        let answered = Duration::from_millis(self.health.answered.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(answered) < TRUSTED
    }
}

impl bb8::ManageConnection for Manager {
    type Connection = Connection;
    type Error = RedisError;

    async fn connect(&self) -> Result<Connection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(Some(self.response_timeout));
        #[cfg(feature = "redis-sentinel")]
        let mut named_by = None;
        let inner = match &self.target {
            Target::Server(client) => {
                let connecting = client.get_multiplexed_async_connection_with_config(&config);
                connecting.await?
            }
            #[cfg(feature = "redis-sentinel")]
            Target::Sentinels(sentinels) => {
                let master = sentinels.connect().await?;
                named_by = Some((sentinels.clone(), master.place));
                master.connection
            }
        };
        let connection = Connection {
            inner,
            health: Arc::default(),
            started: self.started,
            #[cfg(feature = "redis-sentinel")]
            named_by,
        };
        connection.healthy();
        Ok(connection)
    }

    async fn is_valid(&self, connection: &mut Connection) -> Result<(), RedisError> {
        if connection.is_broken() {
            return Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe).into());
        }
        if connection.is_trusted() {
            return Ok(());
        }
        let mut ping = Pipeline::with_capacity(1);
        ping.add_command(cmd("PING"));
        connection.send(&ping).await.map(drop)
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        connection.is_broken()
    }
}

/// Connections that fail in the background are events.
#[derive(Debug, Clone, Copy)]
struct LogErrors;

impl bb8::ErrorSink<RedisError> for LogErrors {
    fn sink(&self, error: RedisError) {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "a Redis connection failed"
        );
    }

    fn boxed_clone(&self) -> Box<dyn bb8::ErrorSink<RedisError>> {
        Box::new(*self)
    }
}
