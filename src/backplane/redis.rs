//! Publish and subscribe in Redis.

mod builder;
mod servers;

use std::fmt;
use std::sync::Arc;

use bb8_redis::redis::aio::MultiplexedConnection;
use bb8_redis::redis::{Pipeline, PushInfo, PushKind, RedisError, Value};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;

pub use self::builder::RedisBackplaneBuilder;
use self::servers::Servers;
use super::{
    Backplane, BackplaneError, BackplaneFuture, KeepAlive, Link, LinkReceiver, LinkSender,
    MAX_MESSAGE,
};
use crate::error::ConfigError;
use crate::race::{Either, race};

/// Messages received that may wait, before the link is given up with a gap: an instance that
/// cannot keep up is better off asking L2.
const CAPACITY: usize = 1024;

/// A backplane over publish and subscribe of Redis or Valkey, on the channel
/// `{namespace}:invalidate`.
///
/// It takes the URLs of [`RedisStore`](crate::RedisStore), and with them the same features. It has
/// two connections of its own to one server, one to publish and one to subscribe, and speaks RESP3
/// (Redis 6 or later). They are made in the background when the cache is built, and again when
/// they fail. The user of an ACL needs `+hello`, `+publish`, `+subscribe` and `&{namespace}:invalidate`;
/// behind sentinels `+role`, too, or a server is believed to be the master that no longer is.
///
/// | servers | the link is made to |
/// |---|---|
/// | one | it |
/// | a cluster | the first of the URL's nodes that answers, masters and replicas alike: nodes tell each other what is published. The next link begins with the next node. So name several |
/// | behind sentinels | the master, and it is left within about a second of the sentinels naming another. Replicas pass on what their master has, and not the reverse |
///
/// During a failover instances may be linked to servers that do not hear each other: an old master
/// that lives on alone, or a cluster's node that is cut off from the others. To each side the other
/// is silent, which is a gap like any: L2 is asked, as the [module](crate::backplane) tells, until
/// they meet again. But one that is silent for [`KeepAlive::forget_after`] is
/// taken to have died. So a node that is cut off from its cluster for longer, or an old master whose
/// clients reach no sentinel either, and that serves them all that time, divides the instances
/// unnoticed: the link is left when the server fails this instance, not when others are silent.
/// What bounds staleness then is L1's freshness.
///
/// Publish and subscribe do not know databases: caches with one namespace in different databases
/// of a server share the channel. That is harmless, but give them different namespaces.
#[derive(Clone)]
pub struct RedisBackplane {
    servers: Arc<Servers>,
    keep_alive: KeepAlive,
}

impl RedisBackplane {
    /// A backplane on the servers of this URL, the same as the store's. They need not be up.
    ///
    /// # Errors
    /// [`ConfigError`] for a URL that cannot be used, or not without another feature of this
    /// crate.
    pub async fn connect(url: impl Into<String>) -> Result<Self, ConfigError> {
        Self::builder(url).build()
    }

    /// A backplane with other settings than the defaults.
    pub fn builder(url: impl Into<String>) -> RedisBackplaneBuilder {
        RedisBackplaneBuilder::new(url.into())
    }
}

impl Backplane for RedisBackplane {
    fn join<'a>(&'a self, channel: &'a str) -> BackplaneFuture<'a, Result<Link, BackplaneError>> {
        Box::pin(async move {
            let server = self.servers.connect().await.map_err(failed)?;
            let (pushes, messages) = pushes();
            let config = servers::config().set_push_sender(move |push| pushes.take(push));
            let subscriber = servers::connection(&server.client, config).await;
            let mut subscriber = subscriber.map_err(failed)?;
            subscriber.subscribe(channel).await.map_err(failed)?;
            let sender = Publisher {
                connection: server.connection,
                channel: channel.into(),
            };
            let receiver = Subscriber {
                messages,
                replaced: server.replaced,
                _connection: subscriber,
            };
            Ok(Link::new(sender, receiver))
        })
    }

    fn keep_alive(&self) -> KeepAlive {
        self.keep_alive
    }
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
        let mut sender = self.0.lock();
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
    /// Goes on where it was when receiving is begun again.
    replaced: BackplaneFuture<'static, ()>,
    /// Lives as long as it is subscribed.
    _connection: MultiplexedConnection,
}

impl LinkReceiver for Subscriber {
    fn receive(&mut self) -> BackplaneFuture<'_, Result<Bytes, BackplaneError>> {
        Box::pin(async {
            match race(self.replaced.as_mut(), self.messages.recv()).await {
                Either::First(()) => {
                    self.messages.close();
                    self.replaced = Box::pin(std::future::pending());
                    Err(BackplaneError::new("another server is the master"))
                }
                Either::Second(Some(message)) => Ok(message),
                Either::Second(None) => Err(BackplaneError::new("the subscription ended")),
            }
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
