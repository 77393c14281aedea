//! What the cache counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) l1_hits: Counter,
    pub(crate) l1_misses: Counter,
    pub(crate) l2_reads: Counter,
    pub(crate) l2_commits: Counter,
    pub(crate) l2_errors: Counter,
    pub(crate) unopenable: Counter,
    pub(crate) signed_out_changes: Counter,
    pub(crate) abandoned_changes: Counter,
    pub(crate) flushed_changes: Counter,
}

/// What a cache has done since it was built, and what it holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Partitions in L1 now, those known to be absent included. Lags behind by moments.
    pub l1_entries: u64,
    /// What they cost in memory, in bytes, allocator and index overhead included.
    pub l1_bytes: u64,
    /// Reads that found their token in memory.
    pub l1_hits: u64,
    /// Reads that had to ask L2.
    pub l1_misses: u64,
    /// Partitions that were asked of L2.
    pub l2_reads: u64,
    /// Commits sent to L2, repeated ones included.
    pub l2_commits: u64,
    /// Attempts at an L2 operation that failed.
    pub l2_errors: u64,
    /// Changes that wait to be committed now.
    pub pending_changes: u64,
    /// Changes that L2 has taken.
    pub flushed_changes: u64,
    /// Records and entries in L2 that could not be read: corrupt, foreign, of an unknown version.
    pub unopenable: u64,
    /// Changes dropped because their partition was signed out before they reached L2.
    pub signed_out_changes: u64,
    /// Changes given up: still pending at the end of a shutdown, or for longer than a tombstone
    /// could protect a sign-out from them.
    pub abandoned_changes: u64,
}
