//! The engine's counters, as [`Stats`].

use crate::engine::core::Engine;
use crate::telemetry::{Stats, UnopenableReasons};

impl Engine {
    /// Also reports the numbers to the `metrics` crate, where that feature is on.
    pub(crate) fn stats(&self) -> Stats {
        let counters = &self.counters;
        let (l1_entries, l1_bytes) = self.partitions.size();
        let stats = Stats {
            l1_entries,
            l1_bytes,
            l1_hits: counters.l1_hits.get(),
            l1_misses: counters.l1_misses.get(),
            l2_reads: counters.l2_reads.get(),
            l2_commits: counters.l2_commits.get(),
            l2_errors: counters.l2_errors.get(),
            pending_changes: self.budget.pending(),
            pending_sign_outs: self.sign_outs.pending(),
            flushed_changes: counters.flushed_changes.get(),
            unopenable: counters.all_unopenable(),
            unopenable_reasons: UnopenableReasons::of(counters),
            accepted_plaintext: counters.accepted_plaintext.get(),
            signed_out_changes: counters.signed_out_changes.get(),
            superseded_changes: counters.superseded_changes.get(),
            invalid_keys: counters.invalid_keys.get(),
            dropped_events: counters.dropped_events.get(),
            revocations: counters.revocations.get(),
            failed_revocations: counters.failed_revocations.get(),
            pending_revocations: self.revocations.pending() as u64,
            acquisitions: counters.acquisitions.get(),
            failed_acquisitions: counters.failed_acquisitions.get(),
            waiting_acquisitions: self.flights.count() as u64,
            recovered_changes: counters.recovered_changes.get(),
            l2_state: self.l2.shards.state(),
            engine_alive: !self.queue.has_ended(),
            feed_alive: self.is_feed_alive(),
            feed_told: counters.feed_told.get(),
            feed_hints: counters.feed_hints.get(),
            feed_compares: counters.feed_compares.get(),
            staleness_bound: self.staleness_bound(),
            abandoned_changes: counters.abandoned_changes.get(),
            abandoned_sign_outs: counters.abandoned_sign_outs.get(),
        };
        counters.report(&stats);
        stats
    }
}
