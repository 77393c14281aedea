//! What the change feed vouches for, and until when: what a hit compares memory with.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::sabotage::{self, Sabotage};
use crate::time::Moment;

/// How long a proof of the feed is good. A feed that is alive gives one every half second.
pub(crate) const TRUST: Duration = Duration::from_secs(3);

/// The epoch before a feed begins.
pub(crate) const UNTOLD: u32 = 0;

/// No epoch that there will ever be.
pub(crate) const STALE: u32 = u32::MAX;

/// What the feed vouches for. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct FeedTrust(Option<Arc<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// Grows whenever anything may have changed: what memory has from another epoch has to be compared with
    /// L2 before it is used. 0 until the feed begins.
    epoch: AtomicU32,
    /// The moment until which everything that was told is all there is.
    until: AtomicU64,
    /// How often the namespace's number may have changed, and how many of these L2 was asked since.
    number_hints: AtomicU32,
    number_answered: AtomicU32,
}

/// Whether changes of other instances are heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FeedState {
    /// The store has no feed.
    None,
    /// For certain.
    Alive,
    /// Perhaps not.
    Lost,
}

impl FeedTrust {
    /// Of a store with a feed, which has not begun.
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
        known.map_or(UNTOLD, |known| known.epoch.load(Ordering::Acquire))
    }

    /// The epoch that memory has to be of to be believed now; [`STALE`] where nothing is.
    pub(crate) fn at(&self, now: Moment) -> u32 {
        match &self.0 {
            Some(known) if !known.is_alive(now) || known.doubts_number() => STALE,
            Some(known) => known.epoch.load(Ordering::Acquire),
            None => UNTOLD,
        }
    }

    pub(crate) fn feed_state(&self, now: Moment) -> FeedState {
        match &self.0 {
            None => FeedState::None,
            Some(known) if known.is_alive(now) => FeedState::Alive,
            Some(_) => FeedState::Lost,
        }
    }

    /// Until when what was told is all there is.
    pub(crate) fn until(&self) -> Moment {
        let known = self.0.as_ref();
        known.map_or(Moment::default(), |known| known.until())
    }

    /// Whether the namespace's number may have changed, so that everybody may have been signed out.
    pub(crate) fn doubts_number(&self) -> bool {
        self.0.as_ref().is_some_and(|known| known.doubts_number())
    }

    /// To be taken before L2 is asked for the number.
    pub(crate) fn number_hints(&self) -> u32 {
        let known = self.0.as_ref();
        known.map_or(0, |known| known.number_hints.load(Ordering::Acquire))
    }

    /// L2 was asked for the number after so many hints.
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

    /// Whether `epoch` was one of the feed, and anything may have changed since once at most.
    pub(crate) fn was_told_in(&self, epoch: u32) -> bool {
        self.0.is_some() && epoch != UNTOLD && self.epoch().wrapping_sub(epoch) <= 1
    }

    /// Anything may have changed.
    pub(crate) fn begin_epoch(&self) {
        let Some(known) = &self.0 else { return };
        // Wraps long before it is the epoch of what is stale.
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

    /// Nothing more is vouched for.
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
