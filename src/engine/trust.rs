//! What the change feed has proven, and until when: a hit compares memory with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::mutation::{self, Mutation};
use crate::time::Moment;

/// How long a proof of the feed is valid. A feed that is alive gives one every half second.
pub(crate) const TRUST: Duration = Duration::from_secs(3);

/// Counts the times when any partition may have changed unheard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Era(u32);

impl Era {
    /// Of a store that has no feed, or of one that has not begun.
    pub(crate) const NONE: Self = Self(0);
    /// That of a stale partition; never equal to one that may be used.
    pub(crate) const STALE: Self = Self(u32::MAX);
    /// No partition is of this era.
    const UNPROVEN: Self = Self(u32::MAX - 1);
}

/// The proofs of the feed. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct FeedTrust(Option<Arc<Proofs>>);

#[derive(Debug, Default)]
struct Proofs {
    /// Grows whenever any partition may have changed. What memory has of another era is compared with L2
    /// before it is used. 0 until the feed begins.
    era: AtomicU32,
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

    /// The era in which a read begins.
    pub(crate) fn era(&self) -> Era {
        let proofs = self.0.as_ref();
        proofs.map_or(Era::NONE, |proofs| proofs.era())
    }

    /// The era that a partition must be of to be used without asking L2. While the feed is not proven, or everybody may have
    /// been signed out, no partition is.
    pub(crate) fn usable_era(&self, now: Moment) -> Era {
        match &self.0 {
            Some(proofs) if !proofs.is_alive(now) || proofs.doubts_number() => Era::UNPROVEN,
            Some(proofs) => proofs.era(),
            None => Era::NONE,
        }
    }

    pub(crate) fn feed_state(&self, now: Moment) -> FeedState {
        match &self.0 {
            None => FeedState::None,
            Some(proofs) if proofs.is_alive(now) => FeedState::Alive,
            Some(_) => FeedState::Lost,
        }
    }

    /// Until when no change is missing from the events that were received.
    pub(crate) fn until(&self) -> Moment {
        let proofs = self.0.as_ref();
        proofs.map_or(Moment::default(), |proofs| proofs.until())
    }

    /// Whether the namespace's number may have changed since L2 was last asked: all partitions may be signed
    /// out.
    pub(crate) fn doubts_number(&self) -> bool {
        self.0.as_ref().is_some_and(|proofs| proofs.doubts_number())
    }

    /// The number of hints. To be read before L2 is asked for the number.
    pub(crate) fn number_hints(&self) -> u32 {
        let proofs = self.0.as_ref();
        proofs.map_or(0, |proofs| proofs.number_hints.load(Ordering::Acquire))
    }

    /// L2 was asked for the number when there had been this many hints.
    pub(crate) fn number_is_known(&self, hints: u32) {
        if let Some(proofs) = &self.0 {
            proofs.number_answered.fetch_max(hints, Ordering::AcqRel);
        }
    }

    pub(crate) fn hear_number(&self) {
        if let Some(proofs) = &self.0 {
            proofs.number_hints.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Whether `era` was an era of the feed, and at most one has begun since.
    pub(crate) fn was_heard_in(&self, era: Era) -> bool {
        self.0.is_some() && era != Era::NONE && self.era().0.wrapping_sub(era.0) <= 1
    }

    /// Any partition may have changed.
    pub(crate) fn begin_era(&self) {
        let Some(proofs) = &self.0 else { return };
        // Wraps long before it reaches [`Era::STALE`].
        let next = |era: u32| Some((era % (1 << 31)) + 1);
        let _ = proofs
            .era
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
    }

    pub(crate) fn believe_until(&self, moment: Moment) {
        if let Some(proofs) = &self.0 {
            proofs.until.store(moment.as_millis(), Ordering::Release);
        }
    }

    /// The last proof is no longer valid.
    pub(crate) fn lapse(&self, now: Moment) {
        if let Some(proofs) = &self.0 {
            proofs.until.fetch_min(now.as_millis(), Ordering::AcqRel);
        }
    }

    /// How old the last proof is.
    pub(crate) fn unproven_for(&self, now: Moment) -> Duration {
        TRUST.saturating_sub(self.until().since(now))
    }
}

impl Proofs {
    fn era(&self) -> Era {
        Era(self.era.load(Ordering::Acquire))
    }

    fn until(&self) -> Moment {
        Moment::from_millis(self.until.load(Ordering::Acquire))
    }

    fn doubts_number(&self) -> bool {
        let hints = self.number_hints.load(Ordering::Acquire);
        hints != self.number_answered.load(Ordering::Acquire)
    }

    fn is_alive(&self, now: Moment) -> bool {
        now < self.until() || mutation::is(Mutation::FeedBelievedForEver)
    }
}
