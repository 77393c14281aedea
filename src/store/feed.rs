//! The change feed: how a store tells every instance what changed in it.
//!
//! L2 orders the writes, so L2 says what changed. What a feed tells is a *hint*: it makes the engine
//! compare what memory has with the store, and nothing is ever adopted from it. What a feed promises is
//! *completeness*: memory is trusted only while the feed proves, again and again, that everything has been
//! told.

use std::pin::Pin;
use std::time::Instant;

use futures_util::Stream;

/// What a feed tells, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FeedEvent {
    /// The partitions of these [digests](super::PartitionId::digest) may have changed: by a commit, a
    /// sign-out, a move, a raise, eviction or by hand, through anybody, this process included. A touch may be
    /// told as well, and need not be; nor need the end of a partition or an entry that was
    /// [said beforehand](super::Loaded::remaining).
    Changed(Vec<[u8; 32]>),
    /// Anything may have changed. A feed begins with this, and tells it whenever it has missed something or
    /// more has changed than it can name. From here on everything is told.
    Everything,
    /// Whatever the store had acknowledged to anybody before this time has been told. The time is this
    /// process's own, and is taken *before* the store is asked for the proof. To be told every half second: three
    /// seconds after the moment that the last one names memory is no longer believed.
    CompleteUntil(Instant),
    /// Nothing is told until the next [`Everything`](FeedEvent::Everything).
    Lost,
}

/// The feed of a namespace: it never ends, connects again by itself, and does its work while it is polled,
/// so that a process that stands still proves nothing. [`TokenStore::feed`](super::TokenStore::feed) is called once
/// for each cache, perhaps outside of a runtime; the feed is polled on the runtime that the cache works on.
///
/// It is a `Stream` of the `futures` crates. One for changes that come over a channel, by somebody who tells
/// all of them before it acknowledges them:
///
/// ```
/// use std::time::{Duration, Instant};
/// use tokio::sync::mpsc::{UnboundedReceiver, error::TryRecvError};
/// use tower_token_cache::store::{Feed, FeedEvent};
///
/// fn feed(changes: UnboundedReceiver<[u8; 32]>) -> Feed {
///     let first = futures_util::stream::once(async { FeedEvent::Everything });
///     let rest = futures_util::stream::unfold(changes, |mut changes| async {
///         let asked = Instant::now();
///         // What was acknowledged before now is in the channel.
///         let event = match changes.try_recv() {
///             Ok(digest) => FeedEvent::Changed(vec![digest]),
///             Err(TryRecvError::Empty) => {
///                 let half = Duration::from_millis(500);
///                 match tokio::time::timeout(half, changes.recv()).await {
///                     Ok(Some(digest)) => FeedEvent::Changed(vec![digest]),
///                     Ok(None) => FeedEvent::Lost,
///                     Err(_) => FeedEvent::CompleteUntil(asked),
///                 }
///             }
///             Err(TryRecvError::Disconnected) => std::future::pending().await,
///         };
///         Some((event, changes))
///     });
///     use futures_util::StreamExt;
///     Box::pin(first.chain(rest))
/// }
/// ```
pub type Feed = Pin<Box<dyn Stream<Item = FeedEvent> + Send>>;
