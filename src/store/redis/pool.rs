//! Connections to one server: pooled, multiplexed, replaced when they fail.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bb8_redis::bb8::{self, RunError};
use bb8_redis::redis::{
    AsyncConnectionConfig, Client, Pipeline, RedisError, RedisResult, Value, cmd,
};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::access::Access;
use super::eviction::Eviction;
use super::failure::{is_unanswered, no_connection, timed_out, was_cut};
use super::multiplexed::Multiplexed;
use super::pool_failure::Failure;
#[cfg(feature = "redis-sentinel")]
use super::sentinel::{Place, Sentinels};
use super::serving::{Server, Serving};
use crate::patience::within;
use crate::race::{Either, race};
use crate::reasons::Reasons;

/// Connections per store. Each is multiplexed, so four serve any number of requests; more than one
/// keeps a small read from waiting behind a large commit.
const CONNECTIONS: u32 = 4;
/// A connection that has answered within this time is taken to work, and is not pinged.
const TRUSTED: Duration = Duration::from_secs(1);
/// How often a pipeline goes out whose connection is cut: of a healthy server the new connection may
/// be cut as well.
const ATTEMPTS: u32 = 6;
/// Response timeouts by which this process may be late itself.
const LATE: u32 = 3;
/// How long a request waits for an attempt at a connection that another one may have begun.
const ASK_AGAIN: Duration = Duration::from_millis(25);
/// Before the third attempt, and doubling: a server that cuts all is not to be overrun.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// The connections.
#[derive(Clone)]
pub(super) struct Pool {
    connections: bb8::Pool<Manager>,
    /// Why the last attempt at another connection has failed.
    failures: watch::Receiver<Option<RedisError>>,
    timeout: Duration,
}

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
struct Manager {
    target: Target,
    access: Access,
    timeout: Duration,
    shared: Arc<Shared>,
    eviction: Eviction,
}

/// What all connections have in common.
struct Shared {
    started: Instant,
    /// When one was cut, in milliseconds from `started`: the others may be, too.
    cut: AtomicU64,
    reasons: Reasons,
}

/// A multiplexed connection and what is known of its health, shared by all its clones.
#[derive(Clone)]
struct Connection {
    inner: Multiplexed,
    health: Arc<Health>,
    shared: Arc<Shared>,
    serving: Serving,
    server: Server,
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

impl Pool {
    /// Makes the first connection in the background.
    pub(super) fn new(target: Target, access: &Access, timeout: Duration) -> Self {
        let shared = Arc::new(Shared {
            started: Instant::now(),
            cut: AtomicU64::new(0),
            reasons: Reasons::default(),
        });
        let manager = Manager {
            target,
            access: access.clone(),
            timeout,
            shared: shared.clone(),
            eviction: Eviction::default(),
        };
        let (sender, failures) = watch::channel(None);
        let sink = Failures { sender, shared };
        let connections = bb8::Pool::builder()
            .max_size(CONNECTIONS)
            .min_idle(CONNECTIONS)
            .connection_timeout(timeout)
            .retry_connection(false)
            .error_sink(Box::new(sink))
            .build_unchecked(manager);
        let pool = Self {
            connections,
            failures,
            timeout,
        };
        let first = pool.clone();
        // Why there is none is told by the sink.
        tokio::spawn(async move { first.get().await.map(drop) });
        pool
    }

    /// Sends all commands of the pipeline in one round-trip. Each has an answer of its own. Where the
    /// connection is cut they go out again over another within the response timeout: all that we send
    /// can be repeated.
    pub(super) async fn send(&self, pipeline: &Pipeline) -> RedisResult<Vec<RedisResult<Value>>> {
        let deadline = Instant::now() + self.timeout;
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.attempt(pipeline, deadline).await {
                Err(error) if was_cut(&error) && attempt < ATTEMPTS => {}
                answers => return answers,
            }
            if attempt > 1 {
                tokio::time::sleep(FIRST_PAUSE * 2_u32.pow(attempt - 2)).await;
            }
        }
    }

    async fn attempt(
        &self,
        pipeline: &Pipeline,
        deadline: Instant,
    ) -> RedisResult<Vec<RedisResult<Value>>> {
        let connection = timeout_at(deadline, self.get()).await;
        let mut connection = connection.unwrap_or_else(|_| Err(no_connection()))?;
        let left = deadline.saturating_duration_since(Instant::now());
        let answers = within(
            left,
            deadline + self.timeout * LATE,
            connection.send(pipeline),
        )
        .await;
        answers.unwrap_or_else(|_| {
            let error = timed_out();
            connection.failed(&error);
            Err(error)
        })
    }

    /// A clone, so that the next request need not wait for this one to end.
    async fn get(&self) -> RedisResult<Connection> {
        let mut failures = self.failures.clone();
        failures.mark_unchanged();
        loop {
            let getting = pin!(self.connections.get());
            let got = match timeout(ASK_AGAIN, race(getting, failures.changed())).await {
                Ok(got) => got,
                // A request that comes while an attempt fails counts on that one, and bb8 starts no other: it
                // asks again.
                Err(_) => continue,
            };
            return match got {
                Either::First(Ok(connection)) => Ok(connection.clone()),
                Either::First(Err(RunError::User(Failure::Connect(error)))) => Err(error),
                Either::First(Err(_)) => Err(no_connection()),
                Either::Second(_) => {
                    let failure = failures.borrow().clone();
                    Err(failure.unwrap_or_else(no_connection))
                }
            };
        }
    }
}

impl Shared {
    fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn connected(&self) {
        if self.reasons.recovered() {
            tracing::info!("connected to Redis again");
        }
    }

    /// One line for each reason, not for each attempt.
    fn failed(&self, error: &RedisError) {
        let news = self.reasons.is_news(error);
        let error = error as &dyn std::error::Error;
        match news {
            true => tracing::warn!(error, "Redis cannot be connected to"),
            false => tracing::debug!(error, "Redis still cannot be connected to"),
        }
    }
}

impl Connection {
    async fn send(&mut self, pipeline: &Pipeline) -> RedisResult<Vec<RedisResult<Value>>> {
        let answers = self.inner.send(pipeline).await;
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
        let now = self.shared.now();
        self.health.answered.store(now, Ordering::Relaxed);
    }

    /// Gives the connection up where another one may do better: after an I/O error, a timeout, or
    /// when the server behind it has become a replica.
    fn failed(&self, error: &RedisError) {
        if was_cut(error) {
            self.shared
                .cut
                .fetch_max(self.shared.now(), Ordering::AcqRel);
        }
        let unusable = is_unanswered(error)
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
        self.health.broken.load(Ordering::Acquire) || self.serving.is_another(&self.server)
    }

    fn is_trusted(&self) -> bool {
        let answered = self.health.answered.load(Ordering::Relaxed);
        let cut = self.shared.cut.load(Ordering::Acquire);
        let since = self.shared.now().saturating_sub(answered);
        Duration::from_millis(since) < TRUSTED && (cut == 0 || cut < answered)
    }
}

impl bb8::ManageConnection for Manager {
    type Connection = Connection;
    type Error = Failure;

    async fn connect(&self) -> Result<Connection, Failure> {
        let config = AsyncConnectionConfig::new()
            // Sooner than those who wait for it give up, so that they learn why.
            .set_connection_timeout(Some(self.timeout * 9 / 10))
            .set_response_timeout(Some(self.timeout));
        #[cfg(feature = "redis-sentinel")]
        let mut named_by = None;
        let server = Server::default();
        let opened = match &self.target {
            Target::Server(client) => {
                let connecting = self.access.connect(client, &config);
                let opened = connecting.await.map_err(Failure::connect)?;
                self.eviction.look(String::new, &opened.connection);
                let (serving, seen) = (self.access.serving.clone(), server.clone());
                let mut asked = opened.connection.clone();
                tokio::spawn(async move { serving.look(&seen, &mut asked).await });
                opened
            }
            #[cfg(feature = "redis-sentinel")]
            Target::Sentinels(sentinels) => {
                let master = sentinels.connect().await.map_err(Failure::connect)?;
                let (host, port) = &master.place;
                let place = || format!("{host}:{port}");
                self.eviction.look(place, &master.opened.connection);
                named_by = Some((sentinels.clone(), master.place));
                master.opened
            }
        };
        let connection = Connection {
            inner: Multiplexed::new(opened),
            health: Arc::default(),
            shared: self.shared.clone(),
            serving: self.access.serving.clone(),
            server,
            #[cfg(feature = "redis-sentinel")]
            named_by,
        };
        self.shared.connected();
        connection.healthy();
        Ok(connection)
    }

    async fn is_valid(&self, connection: &mut Connection) -> Result<(), Failure> {
        if connection.is_broken() {
            return Err(Failure::Invalid);
        }
        if connection.is_trusted() {
            return Ok(());
        }
        let mut ping = Pipeline::with_capacity(1);
        ping.add_command(cmd("PING"));
        let answered = connection.send(&ping).await;
        answered.map(drop).map_err(|_| Failure::Invalid)
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        connection.is_broken()
    }
}

/// Tells those who wait for a connection why there is none.
#[derive(Clone)]
struct Failures {
    sender: watch::Sender<Option<RedisError>>,
    shared: Arc<Shared>,
}

impl bb8::ErrorSink<Failure> for Failures {
    fn sink(&self, failure: Failure) {
        if let Failure::Connect(error) = failure {
            self.shared.failed(&error);
            self.sender.send_replace(Some(error));
        }
    }

    fn boxed_clone(&self) -> Box<dyn bb8::ErrorSink<Failure>> {
        Box::new(self.clone())
    }
}

impl std::fmt::Debug for Failures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Failures").finish_non_exhaustive()
    }
}
