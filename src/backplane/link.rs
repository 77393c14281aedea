//! What an implementation of a backplane provides: links that carry bytes.

use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use super::KeepAlive;

/// What a backplane's operation returns: a boxed future, so that the traits are object-safe.
pub type BackplaneFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A channel between the instances of an application. See the [module](super).
///
/// It need only carry bytes, at most once or more often, in any order. Heartbeats, sequence
/// numbers, timeouts and joining again after a failure are done for it.
pub trait Backplane: Send + Sync + 'static {
    /// Makes a link to the channel of this name: letters, digits, `.`, `_`, `-` and `:`.
    ///
    /// When the future is ready the link receives everything that anybody sends from then on, its
    /// own messages included. It may be dropped at any time.
    fn join<'a>(&'a self, channel: &'a str) -> BackplaneFuture<'a, Result<Link, BackplaneError>>;

    /// How the channel is kept under watch. Defaults to [`KeepAlive::default`].
    fn keep_alive(&self) -> KeepAlive {
        KeepAlive::default()
    }
}

/// One connection to the channel. It is dropped, and another made, at its first error.
pub struct Link {
    pub(super) sender: Box<dyn LinkSender>,
    pub(super) receiver: Box<dyn LinkReceiver>,
}

/// The end of a link that sends.
pub trait LinkSender: Send + 'static {
    /// Sends these messages, in this order. It is ready when the channel has them, not when they
    /// are buffered here: what hangs must be seen to hang. An error leaves open which were sent: they are sent
    /// again over the next link. Dropped, it may have sent some.
    fn send<'a>(
        &'a mut self,
        messages: &'a [Bytes],
    ) -> BackplaneFuture<'a, Result<(), BackplaneError>>;
}

/// The end of a link that receives.
pub trait LinkReceiver: Send + 'static {
    /// The next message. Dropped before it is ready, nothing is lost.
    ///
    /// What waits to be received must be bounded. Past the bound, answer with an error rather
    /// than pass over messages. Messages above [`MAX_MESSAGE`](super::MAX_MESSAGE) bytes are
    /// nobody's; they can be dropped.
    fn receive(&mut self) -> BackplaneFuture<'_, Result<Bytes, BackplaneError>>;
}

impl Link {
    /// A link of these two ends.
    pub fn new(sender: impl LinkSender, receiver: impl LinkReceiver) -> Self {
        Self {
            sender: Box::new(sender),
            receiver: Box::new(receiver),
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

/// Why a link could not be made, or has failed. Cloning shares the source.
#[derive(Clone, Debug)]
pub struct BackplaneError {
    reason: &'static str,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl BackplaneError {
    /// An error for this reason: a few words for the log.
    pub fn new(reason: &'static str) -> Self {
        Self {
            reason,
            source: None,
        }
    }

    /// The same with the error that caused it, whose message must hold no credential.
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into().into());
        self
    }
}

impl fmt::Display for BackplaneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the backplane failed: {}", self.reason)
    }
}

impl StdError for BackplaneError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
