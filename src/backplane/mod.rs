//! Invalidations between instances, and when not to trust that they arrive.
//!
//! A [`Backplane`] is a channel that all instances of an application share: what one sends, all
//! receive. It may lose, repeat, delay and reorder. [`open`] makes of it what the engine needs: a
//! [`Publisher`] that never waits, and [`Events`] that say what others have changed, and from when
//! to when that cannot be relied on.
//!
//! # The gap protocol
//!
//! A *gap* begins with [`Event::Lost`] and ends with [`Event::Alive`]; the time before the first
//! `Alive` is one too. What others changed during a gap may never be heard of. So, of whoever
//! keeps copies in memory:
//!
//! 1. While the channel is lost, no copy is used before its version was compared with L2's.
//! 2. After `Alive`, each copy whose load *began* before that is compared once before it is used.
//!    (A counter does: it grows with each `Alive`, a copy remembers its value from before the
//!    load, and is good while the channel is alive and the counter has not moved.)
//! 3. [`Event::Invalidated`] and [`Event::EverythingChanged`] are obeyed at any time, also while
//!    the channel is lost. They may be repeated, late or out of order: a copy of the
//!    very commit that was named is as good as before, and one of an earlier version is out of date.
//!    One of a later or another is so, too, if L2 has lost data since and counts anew, which L2
//!    alone knows: it is compared once.
//! 4. A commit is published after L2 has acknowledged it, and a change that was kept during an
//!    outage of L2 after it was replayed.
//!
//! Comparing may be limited to once per partition and second; that second is then the bound on
//! what is stale during a gap.
//!
//! # When the channel is alive
//!
//! Being connected proves nothing: a half-open connection is silent for minutes, and so is a
//! subscription that the server has dropped. The channel is alive while
//!
//! - **our own heartbeat comes back.** One is sent through the channel each second
//!   ([`KeepAlive::heartbeat`]). Only one that was *sent* less than three seconds ago
//!   ([`KeepAlive::lost_after`]) counts; without one the link is given up and another is made;
//! - **everybody else is heard of.** An instance that is cut off from the channel, but not from
//!   L2, commits what nobody hears. One that is silent for `lost_after` is such a one until it is
//!   heard again, or says goodbye, or was silent for [`KeepAlive::forget_after`] and is taken to
//!   have died;
//! - **nothing is missing.** Each instance numbers its messages, and its heartbeats name the last
//!   number: a message that was lost is noticed with the next one, within a second. So is the
//!   first message of an instance that was not heard before, when it is not its number one. A
//!   publisher whose bounded queue overflows drops the queue and skips a number, so that everybody
//!   notices. Such a gap is a `Lost` with an `Alive` right after it.
//!
//! What this cannot see is an instance that commits and was never once on the channel (an ACL
//! forbids it to publish, say), or is cut off for longer than `forget_after`. Its own side knows,
//! and logs it; the others are left with L1's freshness bound.
//!
//! # Messages, version 1
//!
//! Numbers are big-endian. Whatever has another length than its kind says is counted and ignored.
//!
//! | bytes | are |
//! |---|---|
//! | 4 | `ttcb` |
//! | 1 | the format's version, 1. Others are counted and ignored |
//! | 1 | the kind |
//! | 16 | the sender: a random number per instance and start |
//! | 8 | the sequence number; heartbeats and goodbyes have that of the sender's last other message, 0 if there was none |
//!
//! | kind | body |
//! |---|---|
//! | 1, invalidated | how many (2 bytes, 1 to 1024), then of each the partition's digest (32), generation (8), version (8) and commit (8, zeros if there is none) |
//! | 2, everything changed | the generation of the prefix (8) |
//! | 3, heartbeat | its number, which says something to its sender only (8); milliseconds to the next (4) |
//! | 4, goodbye | none: the sender has left, with everything sent |
//! | others | from a newer release: taken for a lost message |
//!
//! Messages hold digests and counters, no key and no token, and are not authenticated: who can
//! publish on the channel can make instances ask L2 more often, as can who can write to L2.
//! Applications that share a channel but not a store, such as two databases of one Redis with the
//! same namespace, cost each other a few more questions to L2 and nothing else.

mod channel;
mod driver;
mod inbox;
mod keep_alive;
mod link;
mod memory;
mod monitor;
mod outbox;
#[cfg(feature = "redis")]
mod redis;
#[cfg(test)]
mod tests;
mod wire;

use std::fmt;

use tokio::time::Instant;

use crate::store::CommitId;

pub use self::channel::{ChannelStats, Events, Publisher, open};
pub use self::keep_alive::KeepAlive;
pub use self::link::{Backplane, BackplaneError, BackplaneFuture, Link, LinkReceiver, LinkSender};
pub use self::memory::MemoryBackplane;
#[cfg(feature = "redis")]
pub use self::redis::{RedisBackplane, RedisBackplaneBuilder};
pub use self::wire::MAX_MESSAGE;

/// A partition that has changed in L2.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Invalidation {
    /// The [digest](crate::store::PartitionId::digest) of the partition.
    pub partition: [u8; 32],
    /// Its generation now. A higher one than known says that it was signed out.
    pub generation: u64,
    /// Its version now.
    pub version: u64,
    /// The commit that made it; `None` where that is not known, or it was signed out.
    pub commit: Option<CommitId>,
}

impl fmt::Debug for Invalidation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, ..] = self.partition;
        write!(
            f,
            "Invalidation({a:02x}{b:02x}{c:02x}…, generation {}, version {})",
            self.generation, self.version
        )
    }
}

/// What the channel has to say. The [module](self) tells what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Other instances have changed these partitions. Never empty.
    Invalidated(Vec<Invalidation>),
    /// The prefix has this generation now: every partition is signed out.
    EverythingChanged {
        /// The generation of the prefix.
        generation: u64,
    },
    /// A gap begins: the channel is not provably alive.
    Lost {
        /// Until then everything was heard; what came after may not have been.
        since: Instant,
    },
    /// The gap ends: the channel is provably alive.
    Alive {
        /// Everything sent from then on is heard. What was loaded before is to be compared.
        since: Instant,
    },
}
