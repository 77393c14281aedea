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
    /// sign-out, a move, a raise, expiry, eviction or by hand, through anybody, this process included. A
    /// touch may be told as well.
    Changed(Vec<[u8; 32]>),
    /// Anything may have changed. A feed begins with this, and tells it whenever it has missed something or
    /// more has changed than it can name. From here on everything is told.
    Everything,
    /// Whatever the store had acknowledged to anybody before this time has been told. The time is this
    /// process's own, and is taken *before* the store is asked for the proof.
    CompleteUntil(Instant),
    /// Nothing is told until the next [`Everything`](FeedEvent::Everything).
    Lost,
}

/// The feed of a namespace: it never ends, connects again by itself, and does its work while it is polled,
/// so that a process that stands still proves nothing.
pub type Feed = Pin<Box<dyn Stream<Item = FeedEvent> + Send>>;
