//! The namespace's number, which is part of every partition's name in L2.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::random;
use crate::time::Timestamp;

/// A number that an epoch can begin with: milliseconds since the Unix epoch, and then ten random bits,
/// so that two that are begun in one moment differ. Below 2^53 until the year 2248.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Number(NonZeroU64);

/// How many there are of one millisecond.
const RANDOM: u64 = 1 << 10;

/// Leaves room to count on.
const LATEST: u64 = 1 << 52;

impl Number {
    pub(crate) const FIRST: Self = Self(NonZeroU64::MIN);

    pub(crate) fn at(now: Timestamp) -> Self {
        let random = random::number().unwrap_or_default() & (RANDOM - 1);
        let number = now.as_millis().saturating_mul(RANDOM).min(LATEST) | random;
        Self(NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN))
    }

    /// When it began, as its maker's clock says, which may be ahead or behind.
    #[cfg(feature = "cookie")]
    pub(crate) fn began(self) -> Timestamp {
        Timestamp::from_millis(self.get() / RANDOM)
    }

    pub(crate) fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    pub(crate) fn get(self) -> u64 {
        self.0.get()
    }
}

/// The number as far as it is known. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct NamespaceGeneration(pub(crate) Arc<Known>);

#[derive(Debug, Default)]
pub(crate) struct Known {
    /// 0 is unknown.
    number: AtomicU64,
    /// L2 was asked, and nothing was heard since that makes it worth another question.
    pub(crate) asked: AtomicBool,
    /// What this process begins with where it has to: the same however often it asks.
    pub(crate) mine: OnceLock<Number>,
    /// What the store calls it.
    pub(crate) digest: OnceLock<[u8; 32]>,
    /// Held to ask how old a number is.
    pub(crate) asks: tokio::sync::Mutex<()>,
    /// When everybody was signed out last, by this process's clock; 0 when nobody was that it knows of.
    raised_at: AtomicU64,
}

impl NamespaceGeneration {
    /// One that begins with the first number before L2 was asked, for partitions that are brought
    /// by requests and named before anything can be awaited.
    pub(crate) fn assumed() -> Self {
        let prefix = Self::default();
        let first = Number::FIRST.get();
        prefix.0.number.store(first, Ordering::Release);
        prefix
    }

    pub(crate) fn known(&self) -> Option<Number> {
        Number::new(self.0.number.load(Ordering::Acquire))
    }

    pub(crate) fn settled(&self) -> Option<Number> {
        self.known()
            .filter(|_| self.0.asked.load(Ordering::Acquire))
    }

    /// When the number was raised, by this process's clock: what was done before that, by somebody who did
    /// not know any, is from before everybody was signed out.
    pub(crate) fn raised_at(&self) -> Timestamp {
        Timestamp::from_millis(self.0.raised_at.load(Ordering::Acquire))
    }

    /// Whether this one is later than what was known, and supersedes it.
    pub(crate) fn learn(&self, number: Number, raised_at: Timestamp) -> bool {
        if self.known() < Some(number) {
            // Before anybody goes by the number.
            let at = raised_at.as_millis();
            self.0.raised_at.fetch_max(at, Ordering::AcqRel);
        }
        let known = self.0.number.fetch_max(number.get(), Ordering::AcqRel);
        self.0.asked.store(true, Ordering::Release);
        known > 0 && known < number.get()
    }
}
