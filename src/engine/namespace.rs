//! The namespace's number: a part of every partition's name in L2. Raising it signs out all partitions at
//! once; see [`sign_out::all`](crate::engine::sign_out::all).

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::engine::error::L2Error;
use crate::engine::sync::once;
use crate::random;
use crate::time::{Moment, Timestamp};

/// The number of an epoch: milliseconds since the Unix epoch, then ten random bits, so that two epochs that
/// begin in the same millisecond differ. Below 2^53 until the year 2248.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Number(NonZeroU64);

/// Numbers per millisecond.
const RANDOM: u64 = 1 << 10;

/// The largest number that is taken from a clock. Leaves room to count on.
const LATEST: u64 = 1 << 52;

impl Number {
    pub(crate) const FIRST: Self = Self(NonZeroU64::MIN);

    pub(crate) fn at(now: Timestamp) -> Self {
        let random = random::number().unwrap_or_default() & (RANDOM - 1);
        let number = now.as_millis().saturating_mul(RANDOM).min(LATEST) | random;
        Self(NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN))
    }

    /// When the epoch began, by the clock of the instance that chose the number. That clock may be ahead or
    /// behind.
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

/// What this process knows of the number. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct NamespaceNumber(pub(crate) Arc<KnownNumber>);

#[derive(Debug, Default)]
pub(crate) struct KnownNumber {
    /// 0 while unknown.
    number: AtomicU64,
    /// How often L2 had to be asked for the number, because it may have changed.
    doubts: AtomicU32,
    /// How many of these doubts L2 has answered.
    answered: AtomicU32,
    /// The number that this process begins with if L2 has none: the same at every attempt.
    pub(crate) mine: OnceLock<Number>,
    /// The digest of the number's record in L2.
    pub(crate) digest: OnceLock<[u8; 32]>,
    /// L2 is asked for the number, for all that need it.
    pub(crate) lookup: Mutex<Option<Lookup>>,
    /// Held while L2 is asked how old a number is, so that one task asks for all.
    pub(crate) asks: tokio::sync::Mutex<()>,
    /// When the number was last raised; 0 if no raise is known.
    raised_at: AtomicU64,
}

/// A question for the number.
#[derive(Debug)]
pub(crate) struct Lookup {
    /// How many doubts there were before: it answers these, and no later one.
    pub(crate) doubts: u32,
    pub(crate) answer: once::Receiver<Result<Number, L2Error>>,
}

impl NamespaceNumber {
    /// Begins with the first number before L2 was asked: for partitions that are brought by requests, and
    /// named before anything can be awaited.
    pub(crate) fn assumed() -> Self {
        let number = Self::default();
        let first = Number::FIRST.get();
        number.0.number.store(first, Ordering::Release);
        number.doubt();
        number
    }

    pub(crate) fn known(&self) -> Option<Number> {
        Number::new(self.0.number.load(Ordering::Acquire))
    }

    pub(crate) fn settled(&self) -> Option<Number> {
        let answered = self.0.answered.load(Ordering::Acquire);
        self.known().filter(|_| self.doubts() == answered)
    }

    /// The number may have changed: L2 is asked for it before it is used.
    pub(crate) fn doubt(&self) {
        self.0.doubts.fetch_add(1, Ordering::AcqRel);
    }

    /// To be read before L2 is asked, for [`settle`](Self::settle).
    pub(crate) fn doubts(&self) -> u32 {
        self.0.doubts.load(Ordering::Acquire)
    }

    /// L2 was asked after so many doubts, and has been [learnt](Self::learn) from.
    pub(crate) fn settle(&self, doubts: u32) {
        self.0.answered.fetch_max(doubts, Ordering::AcqRel);
    }

    /// When the number was last raised. A change made before that, by a task that knew no number yet, is
    /// from before the raise.
    pub(crate) fn raised_at(&self) -> Moment {
        Moment::from_millis(self.0.raised_at.load(Ordering::Acquire))
    }

    /// Takes over a number. Returns whether it supersedes an earlier one that was known.
    pub(crate) fn learn(&self, number: Number, raised_at: Moment) -> bool {
        if self.known() < Some(number) {
            // Before the number can be read.
            let at = raised_at.as_millis();
            self.0.raised_at.fetch_max(at, Ordering::AcqRel);
        }
        let known = self.0.number.fetch_max(number.get(), Ordering::AcqRel);
        known > 0 && known < number.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_to_an_earlier_question_settles_no_later_doubt() {
        let number = NamespaceNumber::default();
        assert_eq!(number.settled(), None, "it is not known");
        number.learn(Number::FIRST, Moment::default());
        assert_eq!(number.settled(), Some(Number::FIRST));
        number.doubt();
        let before = number.doubts();
        number.doubt();
        number.settle(before);
        assert_eq!(number.settled(), None, "it may have changed since");
        number.settle(number.doubts());
        assert_eq!(number.settled(), Some(Number::FIRST));
        assert_eq!(
            NamespaceNumber::assumed().settled(),
            None,
            "nobody was asked"
        );
    }
}
