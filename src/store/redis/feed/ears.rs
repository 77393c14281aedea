//! The connections over which masters tell what changes.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bb8_redis::redis::aio::{AsyncPushSender, MultiplexedConnection, SendError};
use bb8_redis::redis::{Pipeline, PushInfo, PushKind, RedisError, RedisResult, Value, cmd};
use futures_util::future::try_join_all;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::places::{Masters, Places, TIMEOUT, another, config};
use crate::random;
use crate::store::redis::access::Opened;
use crate::store::redis::credentials::Login;
use crate::store::redis::failure::{is_master, no_connection};
use crate::store::redis::serving::{Server, Serving};

/// Messages that may wait; one names all keys that changed in a turn of the server's loop. Who is further
/// behind takes it that anything may have changed.
const ROOM: usize = 1024;

/// A connection to each master.
pub(super) struct Ears {
    masters: Masters,
    connections: Vec<MultiplexedConnection>,
    /// Of each connection that has to sign in again.
    logins: Vec<Option<Login>>,
    /// Where the name leads, and which server this listens to.
    serving: Serving,
    server: Server,
    pushes: mpsc::Receiver<PushInfo>,
    missed: Arc<AtomicBool>,
    prefix: String,
}

/// What a server has told.
pub(super) enum News {
    Changed(Vec<[u8; 32]>),
    Everything,
}

impl Ears {
    /// Listens to all masters.
    pub(super) async fn open(places: &Places, prefix: &str) -> RedisResult<Self> {
        let (masters, clients) = places.masters().await?;
        let (sender, pushes) = mpsc::channel(ROOM);
        let missed = Arc::<AtomicBool>::default();
        let opens = clients.iter().map(async |client| {
            let pushes = Pushes {
                sender: sender.clone(),
                missed: missed.clone(),
            };
            let config = config().set_push_sender(pushes);
            let Opened {
                mut connection,
                login,
            } = places.connect(client, config).await?;
            let mut tracking = cmd("CLIENT");
            tracking.arg("TRACKING").arg("ON").arg("BCAST");
            tracking.arg("PREFIX").arg(prefix);
            tracking.query_async::<()>(&mut connection).await?;
            is_still_master(&mut connection).await?;
            RedisResult::Ok((connection, login))
        });
        let opened = try_join_all(opens).await?;
        let (mut connections, logins): (Vec<_>, Vec<_>) = opened.into_iter().unzip();
        let server = Server::default();
        if let (Masters::One, [connection]) = (&masters, connections.as_mut_slice()) {
            places.serving().look(&server, connection).await;
        }
        let mut ears = Self {
            connections,
            logins,
            serving: places.serving().clone(),
            server,
            masters,
            pushes,
            missed,
            prefix: prefix.to_owned(),
        };
        ears.try_out().await?;
        Ok(ears)
    }

    /// Changes a key of its own, and waits until that is told: what stands in between may take the command
    /// and swallow the messages. A cluster has nothing in between, and no key that is each master's.
    async fn try_out(&mut self) -> RedisResult<()> {
        let [connection] = self.connections.as_mut_slice() else {
            return Ok(());
        };
        let key = format!(
            "{}{:x}}}",
            self.prefix,
            random::number().unwrap_or_default()
        );
        let mut change = Pipeline::with_capacity(2);
        change.cmd("HSET").arg(&key).arg("f").arg("");
        change.cmd("DEL").arg(&key);
        let answers = connection.send_packed_commands(&change, 0, 2).await?;
        let is_changed = answers.into_iter().all(|it| it.extract_error().is_ok());
        if !is_changed {
            // A server that is full takes none, and tells all the same.
            return Ok(());
        }
        loop {
            let push = timeout(TIMEOUT, self.pushes.recv()).await;
            let push = push.map_err(|_| silent())?.ok_or_else(cut)?;
            match (push.kind, push.data.into_iter().next()) {
                (PushKind::Disconnection, _) => return Err(cut()),
                (PushKind::Invalidate, Some(Value::Array(keys))) => {
                    let is_ours =
                        |it: &Value| matches!(it, Value::BulkString(it) if *it == key.as_bytes());
                    if keys.iter().any(is_ours) {
                        return Ok(());
                    }
                }
                _ => {}
            }
        }
    }

    /// Asks all of them at once. Whatever they told before they answer is here once this is ready.
    pub(super) fn proof(&self) -> impl Future<Output = RedisResult<()>> + Send + use<> {
        for (login, connection) in self.logins.iter().zip(&self.connections) {
            if let Some(login) = login {
                login.renew(connection);
            }
        }
        let (masters, connections) = (self.masters.clone(), self.connections.clone());
        let (serving, server) = (self.serving.clone(), self.server.clone());
        async move {
            // Each of them: one that is cut off from the others believes what was.
            let asks = connections.into_iter().map(async |mut connection| {
                is_still_master(&mut connection).await?;
                masters.are_still(&mut connection).await
            });
            try_join_all(asks).await?;
            match serving.is_another(&server) {
                true => Err(another()),
                false => Ok(()),
            }
        }
    }

    /// What is told next.
    pub(super) async fn news(&mut self) -> RedisResult<News> {
        let push = self.pushes.recv().await;
        push.map_or_else(|| Err(cut()), |push| self.read(push))
    }

    /// What has been told by now, if anything.
    pub(super) fn next(&mut self) -> Option<RedisResult<News>> {
        let push = self.pushes.try_recv().ok()?;
        Some(self.read(push))
    }

    fn read(&self, push: PushInfo) -> RedisResult<News> {
        if self.missed.swap(false, Ordering::AcqRel) {
            return Ok(News::Everything);
        }
        match (push.kind, push.data.into_iter().next()) {
            (PushKind::Disconnection, _) => Err(cut()),
            (PushKind::Invalidate, Some(Value::Array(keys))) => {
                let digests = keys.iter().filter_map(|key| self.digest(key));
                Ok(News::Changed(digests.collect()))
            }
            // All keys are gone.
            (PushKind::Invalidate, _) => Ok(News::Everything),
            _ => Ok(News::Changed(Vec::new())),
        }
    }

    /// The partition of a key, if it is one.
    fn digest(&self, key: &Value) -> Option<[u8; 32]> {
        let Value::BulkString(key) = key else {
            return None;
        };
        let encoded = key
            .strip_prefix(self.prefix.as_bytes())?
            .strip_suffix(b"}")?;
        let mut digest = [0; 32];
        let length = URL_SAFE_NO_PAD.decode_slice(encoded, &mut digest).ok()?;
        (length == digest.len()).then_some(digest)
    }
}

/// Whether the server is a master, in an answer that comes after all that it has told.
async fn is_still_master(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    let mut pipeline = Pipeline::with_capacity(2);
    pipeline.cmd("PING").cmd("ROLE");
    let answers = connection.send_packed_commands(&pipeline, 0, 2).await?;
    let [ping, role] = <[Value; 2]>::try_from(answers).map_err(|_| no_connection())?;
    ping.extract_error()?;
    match is_master(&role.extract_error()) {
        true => Ok(()),
        false => Err(another()),
    }
}

fn cut() -> RedisError {
    std::io::Error::new(ErrorKind::ConnectionReset, "the connection was cut").into()
}

/// What the server takes for granted is not so.
fn silent() -> RedisError {
    std::io::Error::other("a change of our own was not told").into()
}

/// Takes what is told out of a connection.
struct Pushes {
    sender: mpsc::Sender<PushInfo>,
    missed: Arc<AtomicBool>,
}

impl AsyncPushSender for Pushes {
    fn send(&self, push: PushInfo) -> Result<(), SendError> {
        match self.sender.try_send(push) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => {
                // Before what waits is read.
                self.missed.store(true, Ordering::Release);
                Ok(())
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Err(SendError),
        }
    }
}
