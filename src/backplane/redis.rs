//! Publish and subscribe in Redis.

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use bb8_redis::redis::aio::MultiplexedConnection;
use bb8_redis::redis::io::tcp::TcpSettings;
use bb8_redis::redis::{
    AsyncConnectionConfig, Client, IntoConnectionInfo, Pipeline, ProtocolVersion, PushInfo,
    PushKind, RedisError, RedisResult, Value,
};
use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    Backplane, BackplaneError, BackplaneFuture, KeepAlive, Link, LinkReceiver, LinkSender,
    MAX_MESSAGE,
};
use crate::error::ConfigError;

/// Messages received that may wait, before the link is given up with a gap: an instance that
/// cannot keep up is better off asking L2.
const CAPACITY: usize = 1024;
/// How long a connection may take to be made, and a command to be answered. More than the store
/// allows, as nobody waits for it.
const TIMEOUT: Duration = Duration::from_secs(1);

/// A backplane over publish and subscribe of Redis or Valkey, on the channel
/// `{namespace}:invalidate`.
///
/// It has two connections of its own, one to publish and one to subscribe, and speaks RESP3
/// (Redis 6 or later). They are made in the background when the cache is built, and again when
/// they fail. The user of an ACL needs `+publish`, `+subscribe` and `&{namespace}:invalidate`.
///
/// Publish and subscribe do not know databases: caches with one namespace in different databases
/// of a server share the channel. That is harmless, but give them different namespaces.
#[derive(Clone)]
pub struct RedisBackplane {
    client: Client,
    keep_alive: KeepAlive,
}

/// Sets up a [`RedisBackplane`].
#[derive(Clone)]
pub struct RedisBackplaneBuilder {
    url: String,
    keep_alive: KeepAlive,
}

impl RedisBackplane {
    /// A backplane on the server of this URL, the same as the store's. The server need not be up.
    ///
    /// # Errors
    /// [`ConfigError`] for a URL that cannot be used.
    pub async fn connect(url: impl Into<String>) -> Result<Self, ConfigError> {
        Self::builder(url).build()
    }

    /// A backplane with other settings than the defaults.
    pub fn builder(url: impl Into<String>) -> RedisBackplaneBuilder {
        RedisBackplaneBuilder {
            url: url.into(),
            keep_alive: KeepAlive::default(),
        }
    }
}

impl RedisBackplaneBuilder {
    /// How the channel is kept under watch. Defaults to [`KeepAlive::default`].
    pub fn keep_alive(mut self, keep_alive: KeepAlive) -> Self {
        self.keep_alive = keep_alive;
        self
    }

    /// The backplane.
    ///
    /// # Errors
    /// [`ConfigError`] for a URL that cannot be used, or a [`KeepAlive`] that does not hold
    /// together.
    pub fn build(self) -> Result<RedisBackplane, ConfigError> {
        Ok(RedisBackplane {
            client: client(&self.url)?,
            keep_alive: self.keep_alive.validate()?,
        })
    }
}

impl Backplane for RedisBackplane {
    fn join<'a>(&'a self, channel: &'a str) -> BackplaneFuture<'a, Result<Link, BackplaneError>> {
        Box::pin(async move {
            let (pushes, messages) = pushes();
            let mut subscriber = connection(&self.client, Some(pushes))
                .await
                .map_err(failed)?;
            let publisher = connection(&self.client, None).await.map_err(failed)?;
            subscriber.subscribe(channel).await.map_err(failed)?;
            let sender = Publisher {
                connection: publisher,
                channel: channel.into(),
            };
            let receiver = Subscriber {
                messages,
                _connection: subscriber,
            };
            Ok(Link::new(sender, receiver))
        })
    }

    fn keep_alive(&self) -> KeepAlive {
        self.keep_alive
    }
}

/// The error never holds the URL, which may hold a password.
fn client(url: &str) -> Result<Client, ConfigError> {
    let reason = "must be redis://[user:password@]host[:port][/database]";
    let bad_url = || ConfigError::new("url", reason);
    let info = url.into_connection_info().map_err(|_| bad_url())?;
    if !info.addr().is_supported() {
        return Err(bad_url());
    }
    let settings = info.redis_settings().clone();
    let tcp = TcpSettings::default().set_nodelay(true);
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    let tcp = tcp.set_user_timeout(Duration::from_secs(5));
    let info = info
        .set_tcp_settings(tcp)
        .set_redis_settings(settings.set_protocol(ProtocolVersion::RESP3));
    Client::open(info).map_err(|_| bad_url())
}

/// A connection of our own; one that subscribes hands its messages to `pushes`.
async fn connection(client: &Client, pushes: Option<Pushes>) -> RedisResult<MultiplexedConnection> {
    let mut config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(TIMEOUT))
        .set_response_timeout(Some(TIMEOUT));
    if let Some(pushes) = pushes {
        config = config.set_push_sender(move |push| pushes.take(push));
    }
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

/// Takes messages out of the connection. `None` once they end: the connection is gone, or too
/// many wait.
struct Pushes(Mutex<Option<mpsc::Sender<Bytes>>>);

fn pushes() -> (Pushes, mpsc::Receiver<Bytes>) {
    let (sender, receiver) = mpsc::channel(CAPACITY);
    (Pushes(Mutex::new(Some(sender))), receiver)
}

impl Pushes {
    fn take(&self, push: PushInfo) -> Result<(), mpsc::error::SendError<()>> {
        let mut sender = self
            .0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let ended = match push.kind {
            PushKind::Message => match (&*sender, push.data.into_iter().nth(1)) {
                (Some(sender), Some(Value::BulkString(message))) => {
                    // What is too long is passed on as what it starts with: it is counted.
                    let length = message.len().min(MAX_MESSAGE + 1);
                    sender
                        .try_send(Bytes::copy_from_slice(&message[..length]))
                        .is_err()
                }
                _ => false,
            },
            PushKind::Disconnection => true,
            _ => false,
        };
        if ended {
            *sender = None;
            return Err(mpsc::error::SendError(()));
        }
        Ok(())
    }
}

struct Publisher {
    connection: MultiplexedConnection,
    channel: String,
}

impl LinkSender for Publisher {
    fn send<'a>(
        &'a mut self,
        messages: &'a [Bytes],
    ) -> BackplaneFuture<'a, Result<(), BackplaneError>> {
        Box::pin(async move {
            let mut pipeline = Pipeline::with_capacity(messages.len());
            for message in messages {
                pipeline.cmd("PUBLISH").arg(&self.channel).arg(&message[..]);
            }
            let answers = self
                .connection
                .send_packed_commands(&pipeline, 0, messages.len())
                .await
                .map_err(failed)?;
            for answer in answers {
                answer.extract_error().map_err(failed)?;
            }
            Ok(())
        })
    }
}

struct Subscriber {
    messages: mpsc::Receiver<Bytes>,
    /// Lives as long as it is subscribed.
    _connection: MultiplexedConnection,
}

impl LinkReceiver for Subscriber {
    fn receive(&mut self) -> BackplaneFuture<'_, Result<Bytes, BackplaneError>> {
        Box::pin(async {
            let message = self.messages.recv().await;
            message.ok_or_else(|| BackplaneError::new("the subscription ended"))
        })
    }
}

fn failed(error: RedisError) -> BackplaneError {
    BackplaneError::new("Redis").with_source(error)
}

impl fmt::Debug for RedisBackplane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBackplane")
            .field("keep_alive", &self.keep_alive)
            .finish_non_exhaustive()
    }
}

/// Without the URL, which may hold a password.
impl fmt::Debug for RedisBackplaneBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBackplaneBuilder")
            .field("keep_alive", &self.keep_alive)
            .finish_non_exhaustive()
    }
}
