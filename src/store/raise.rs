//! What [`TokenStore::raise`](super::TokenStore::raise) makes of a generation.

use std::time::Duration;

/// How far a generation is to be raised. Numbers are below 2^53, the most that every store counts
/// exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raise {
    /// Above what the store has, and at least to this number: what was under it is over.
    Beyond(u64),
    /// To this number where the store has a lower one or none; a higher one stays. Repeated, it changes
    /// nothing more.
    To(u64),
    /// To this number where the store has none (the partition is absent, or of generation 0); what
    /// it has stays.
    Begin(u64),
}

impl Raise {
    /// The generation in force afterwards, where this one is stored; 0 is absent.
    pub(super) fn from(self, stored: u64) -> u64 {
        match self {
            Self::Beyond(number) => stored.saturating_add(1).max(number),
            Self::To(number) => stored.max(number),
            Self::Begin(number) if stored == 0 => number,
            Self::Begin(_) => stored,
        }
    }

    pub(crate) fn number(self) -> u64 {
        match self {
            Self::Beyond(number) | Self::To(number) | Self::Begin(number) => number,
        }
    }
}

/// One past the greatest generation that every store counts exactly.
pub(super) const LIMIT: u64 = 1 << 53;

/// How long an epoch is kept from now on, if not longer by now; `None` is without end.
pub(super) type Keep = Option<Duration>;
