//! What the change feed has proven, and until when: a hit compares memory with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::sabotage::{self, Sabotage};
use crate::time::Moment;

/// How long a proof of the feed is valid. A feed that is alive gives one every half second.
pub(crate) const TRUST: Duration = Duration::from_secs(3);

/// The epoch before a feed has begun.
pub(crate) const NO_EPOCH: u32 = 0;

/// The epoch of a stale partition; never equal to the current one.
pub(crate) const STALE: u32 = u32::MAX;

/// The proofs of the feed. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct FeedTrust(Option<Arc<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// Grows whenever any partition may have changed. What memory has of another epoch is compared with L2
    /// before it is used. 0 until the feed begins.
    epoch: AtomicU32,
    /// Until this moment no change is missing from the events that were received.
    until: AtomicU64,
    /// How often the namespace's number may have changed, and how many of these hints had come when L2 was
    /// last asked.
    number_hints: AtomicU32,
    number_answered: AtomicU32,
}

/// Whether the changes of other instances are received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FeedState {
    /// The store has no feed.
    None,
    /// Proven.
    Alive,
    /// Not proven any more.
    Lost,
}

impl FeedTrust {
    /// The store has a feed, and it has not begun.
    pub(crate) fn silent() -> Self {
        Self(Some(Arc::default()))
    }

    /// Whether the store has no feed.
    pub(crate) fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// The epoch in which a read begins.
    pub(crate) fn epoch(&self) -> u32 {
        let known = self.0.as_ref();
        known.map_or(NO_EPOCH, |known| known.epoch.load(Ordering::Acquire))
    }

    /// The epoch that a partition has to have to be used without asking L2; [`STALE`] where none may.
    pub(crate) fn usable_epoch(&self, now: Moment) -> u32 {
        match &self.0 {
            Some(known) if !known.is_alive(now) || known.doubts_number() => STALE,
            Some(known) => known.epoch.load(Ordering::Acquire),
            None => NO_EPOCH,
        }
    }

    pub(crate) fn feed_state(&self, now: Moment) -> FeedState {
        match &self.0 {
            None => FeedState::None,
            Some(known) if known.is_alive(now) => FeedState::Alive,
            Some(_) => FeedState::Lost,
        }
    }

    /// Until when no change is missing from the events that were received.
    pub(crate) fn until(&self) -> Moment {
        let known = self.0.as_ref();
        known.map_or(Moment::default(), |known| known.until())
    }

    /// Whether the namespace's number may have changed since L2 was last asked: all partitions may be signed
    /// out.
    pub(crate) fn doubts_number(&self) -> bool {
        self.0.as_ref().is_some_and(|known| known.doubts_number())
    }

    /// The number of hints. To be read before L2 is asked for the number.
    pub(crate) fn number_hints(&self) -> u32 {
        let known = self.0.as_ref();
        known.map_or(0, |known| known.number_hints.load(Ordering::Acquire))
    }

    /// L2 was asked for the number when there had been this many hints.
    pub(crate) fn number_is_known(&self, hints: u32) {
        if let Some(known) = &self.0 {
            known.number_answered.fetch_max(hints, Ordering::AcqRel);
        }
    }

    pub(crate) fn hear_number(&self) {
        if let Some(known) = &self.0 {
            known.number_hints.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Whether `epoch` was an epoch of the feed, and at most one has begun since.
    pub(crate) fn was_told_in(&self, epoch: u32) -> bool {
        self.0.is_some() && epoch != NO_EPOCH && self.epoch().wrapping_sub(epoch) <= 1
    }

    /// Any partition may have changed.
    pub(crate) fn begin_epoch(&self) {
        let Some(known) = &self.0 else { return };
        // Wraps long before it reaches [`STALE`].
        let next = |epoch: u32| Some((epoch % (1 << 31)) + 1);
        let _ = known
            .epoch
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
    }

    pub(crate) fn believe_until(&self, moment: Moment) {
        if let Some(known) = &self.0 {
            known.until.store(moment.as_millis(), Ordering::Release);
        }
    }

    /// The last proof is no longer valid.
    pub(crate) fn lapse(&self, now: Moment) {
        if let Some(known) = &self.0 {
            known.until.fetch_min(now.as_millis(), Ordering::AcqRel);
        }
    }

    /// How old the last proof is.
    pub(crate) fn unproven_for(&self, now: Moment) -> Duration {
        TRUST.saturating_sub(self.until().since(now))
    }
}

impl Known {
    fn until(&self) -> Moment {
        Moment::from_millis(self.until.load(Ordering::Acquire))
    }

    fn doubts_number(&self) -> bool {
        let hints = self.number_hints.load(Ordering::Acquire);
        hints != self.number_answered.load(Ordering::Acquire)
    }

    fn is_alive(&self, now: Moment) -> bool {
        now < self.until() || sabotage::is(Sabotage::FeedBelievedForEver)
    }
}
