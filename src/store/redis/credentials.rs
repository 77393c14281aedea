//! How the store signs in to servers where the password changes.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bb8_redis::redis::aio::MultiplexedConnection;
use bb8_redis::redis::{ConnectionInfo, RedisError, RedisResult, cmd};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use crate::acquire::BoxError;
use crate::panics::caught;
use crate::secret::Secret;

/// How long the application may take to name the credentials, before the attempt at a connection is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts to sign in again.
const RETRY: Duration = Duration::from_secs(5);
/// The same after one that has succeeded, however short its credentials are good for.
const LEAST: Duration = Duration::from_secs(1);

/// A user of Redis and its password, which may be a token. `Debug` shows neither.
#[derive(Clone)]
pub struct RedisCredentials {
    user: String,
    password: Secret,
    good_for: Option<Duration>,
}

impl RedisCredentials {
    /// This password of this user; an empty user is the default user.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            password: Secret::from(password.into()),
            good_for: None,
        }
    }

    /// How long they are good from now on. Once three quarters of that have passed, each connection asks for new ones
    /// when it is next used, and signs in again, before the server cuts it; not more often than each second. Defaults to
    /// no end: Redis keeps
    /// connections whose password has changed, and new connections ask.
    pub fn good_for(mut self, time: Duration) -> Self {
        self.good_for = Some(time);
        self
    }

    fn due(&self) -> Option<Instant> {
        let time = self.good_for?;
        Instant::now().checked_add((time * 3 / 4).max(LEAST))
    }
}

impl fmt::Debug for RedisCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCredentials")
            .field("good_for", &self.good_for)
            .finish_non_exhaustive()
    }
}

type Answer = Result<RedisCredentials, BoxError>;

/// Who names the credentials. Clones are the same.
#[derive(Clone)]
pub(super) struct Provider(
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>,
);

impl Provider {
    pub(super) fn new<F>(ask: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(ask())))
    }

    async fn ask(&self) -> RedisResult<RedisCredentials> {
        let answer = timeout(PATIENCE, caught(|| (self.0)())).await;
        let answer = answer.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
        let failed = |error: BoxError| RedisError::from(io::Error::other(error));
        answer
            .map_err(|panicked| failed(panicked.into()))?
            .map_err(failed)
    }

    /// How to sign in to this server now.
    pub(super) async fn login(
        &self,
        info: &ConnectionInfo,
    ) -> RedisResult<(ConnectionInfo, Login)> {
        let credentials = self.ask().await?;
        let settings = info.redis_settings().clone();
        let mut settings = settings.set_password(credentials.password.expose());
        if !credentials.user.is_empty() {
            settings = settings.set_username(&credentials.user);
        }
        let login = Login(Arc::new(Inner {
            provider: self.clone(),
            due: Mutex::new(credentials.due()),
        }));
        Ok((info.clone().set_redis_settings(settings), login))
    }
}

/// Until when a connection is signed in. Clones are the same.
#[derive(Clone)]
pub(super) struct Login(Arc<Inner>);

struct Inner {
    provider: Provider,
    /// When to sign in again.
    due: Mutex<Option<Instant>>,
}

impl Login {
    /// Signs in again, in the background, once it is time. What is under way is not held up.
    pub(super) fn renew(&self, connection: &MultiplexedConnection) {
        let now = Instant::now();
        {
            let mut due = self.0.due.lock();
            if due.is_none_or(|due| due > now) {
                return;
            }
            *due = Some(now + RETRY);
        }
        let (login, mut connection) = (self.clone(), connection.clone());
        tokio::spawn(async move {
            match login.sign_in(&mut connection).await {
                Ok(due) => *login.0.due.lock() = due,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "a connection to Redis could not sign in again");
                }
            }
        });
    }

    async fn sign_in(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<Option<Instant>> {
        let credentials = self.0.provider.ask().await?;
        let mut auth = cmd("AUTH");
        if !credentials.user.is_empty() {
            auth.arg(&credentials.user);
        }
        auth.arg(credentials.password.expose());
        auth.query_async::<()>(connection).await?;
        Ok(credentials.due())
    }
}
