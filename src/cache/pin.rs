//! What a handle has seen of its partition.

use std::num::NonZeroU64;

use super::partition::{RECHECK, State};
use super::revocation::Number;
use crate::time::Timestamp;

/// What a handle saw when it first used the partition. Its changes are refused once the partition
/// was signed out after that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pin {
    generation: Option<Count>,
    prefix: Option<Number>,
    sign_outs: u32,
    since: Timestamp,
    /// When L2 last failed the handle.
    l2_failed_at: Option<Timestamp>,
}

/// A generation; an `Option` of it is no larger, which every request pays for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Count(NonZeroU64); // one more

impl From<u64> for Count {
    fn from(count: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(count))
    }
}

impl From<Count> for u64 {
    fn from(count: Count) -> Self {
        count.0.get() - 1
    }
}

impl Pin {
    /// Takes over the generation, if it was not known when the pin was taken.
    pub(super) fn learn(&mut self, state: &State) {
        if !state.is_clearing() {
            let known = state.generation.map(Count::from);
            self.generation = self.generation.or(known);
            self.prefix = self.prefix.or(state.prefix);
        }
    }

    /// Takes over what another pin of the same handle has seen later.
    pub(crate) fn follow(&mut self, later: &Self) {
        self.l2_failed_at = self.l2_failed_at.max(later.l2_failed_at);
    }

    pub(super) fn note_l2_failure(&mut self, now: Timestamp) {
        self.l2_failed_at = Some(now);
    }

    /// Whether L2 has failed the handle so recently that it should not wait for it again.
    pub(super) fn gave_up_on_l2(&self, now: Timestamp) -> bool {
        let failed = self.l2_failed_at.map(|at| at.saturating_add(RECHECK));
        failed.is_some_and(|until| now < until)
    }
}

impl State {
    /// What a handle that uses the partition now has seen.
    pub(crate) fn pin(&self, now: Timestamp) -> Pin {
        let ending = self.pending.as_ref().and_then(|pending| pending.clear);
        let generation = match ending {
            // It comes after a sign-out that L2 has yet to hear of, and is not ended by it.
            Some(ended) => ended.or(self.generation).map(|ended| ended + 1),
            None => self.generation,
        };
        Pin {
            generation: generation.map(Count::from),
            prefix: self.prefix,
            sign_outs: self.sign_outs,
            since: now,
            l2_failed_at: None,
        }
    }

    /// Whether the partition was signed out after `pin` was taken.
    pub(crate) fn signed_out_since(&self, pin: &Pin) -> bool {
        let ended = match (pin.generation, self.generation) {
            (Some(seen), Some(now)) => Count::from(now) > seen,
            (None, Some(_)) => self.cleared_since(pin.since),
            _ => false,
        };
        let revoked = match pin.prefix {
            Some(seen) => self.prefix > Some(seen),
            // Perhaps from before everybody was signed out.
            None => self.prefix.is_some() && pin.since < self.began,
        };
        ended || revoked || self.sign_outs > pin.sign_outs
    }

    /// Takes over the generation that a handle saw, where memory has none: L1 is off, or has
    /// evicted the partition since. L2 checks it in any case.
    pub(super) fn adopt(&mut self, pin: &Pin) {
        self.generation = self.generation.or(pin.generation.map(u64::from));
    }
}
