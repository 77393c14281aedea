//! What the cache counts, and what it says about each acquisition.

#[cfg(feature = "metrics")]
mod durations;
#[cfg(feature = "metrics")]
mod exported;
#[cfg(feature = "metrics")]
mod gauges;
mod record;

use crate::engine::l2::breaker::BreakerState;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The outcome of what has succeeded. Others are named after their error.
pub(crate) const OK: &str = "ok";

/// A number that only grows.
#[derive(Debug)]
pub(crate) struct Counter {
    count: AtomicU64,
    #[cfg(feature = "metrics")]
    exported: metrics::Counter,
}

impl Counter {
    /// A counter that the `metrics` crate knows by this name, without its prefix and suffix.
    #[cfg_attr(not(feature = "metrics"), expect(unused_variables))]
    fn new(name: &str, help: &'static str) -> Self {
        Self {
            count: AtomicU64::new(0),
            #[cfg(feature = "metrics")]
            exported: exported::counter(name, help),
        }
    }

    /// The counter of what could not be read for this reason.
    #[cfg_attr(not(feature = "metrics"), expect(unused_variables))]
    fn unopenable(reason: &'static str) -> Self {
        Self {
            count: AtomicU64::new(0),
            #[cfg(feature = "metrics")]
            exported: exported::counter_for(
                "unopenable",
                reason,
                "Entries in L2 that could not be read.",
            ),
        }
    }

    pub(crate) fn add(&self, count: u64) {
        self.count.fetch_add(count, Ordering::Relaxed);
        #[cfg(feature = "metrics")]
        self.exported.increment(count);
    }

    pub(crate) fn get(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// The counters of one cache.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) l1_hits: Counter,
    pub(crate) l1_misses: Counter,
    pub(crate) l2_reads: Counter,
    pub(crate) l2_commits: Counter,
    pub(crate) l2_errors: Counter,
    unopenable_for: [Counter; UnopenableReasons::COUNT],
    pub(crate) accepted_plaintext: Counter,
    pub(crate) signed_out_changes: Counter,
    pub(crate) abandoned_changes: Counter,
    pub(crate) abandoned_sign_outs: Counter,
    pub(crate) flushed_changes: Counter,
    pub(crate) superseded_changes: Counter,
    pub(crate) recovered_changes: Counter,
    pub(crate) acquisitions: Counter,
    pub(crate) failed_acquisitions: Counter,
    pub(crate) invalid_keys: Counter,
    pub(crate) dropped_events: Counter,
    pub(crate) revocations: Counter,
    pub(crate) failed_revocations: Counter,
    pub(crate) feed_told: Counter,
    pub(crate) feed_hints: Counter,
    pub(crate) feed_compares: Counter,
    #[cfg(feature = "metrics")]
    exported: exported::Exported,
}

impl Counters {
    /// All at zero, known to the recorder of the `metrics` crate that is installed by now.
    #[cfg_attr(not(feature = "metrics"), expect(unused_variables))]
    pub(crate) fn new(namespace: &str) -> Self {
        Self {
            l1_hits: Counter::new("l1_hits", "Reads that found their token in memory."),
            l1_misses: Counter::new("l1_misses", "Reads that had to ask L2."),
            l2_reads: Counter::new("l2_reads", "Partitions that were asked of L2."),
            l2_commits: Counter::new("l2_commits", "Commits sent to L2."),
            l2_errors: Counter::new("l2_errors", "Attempts at an L2 operation that failed."),
            unopenable_for: UnopenableReasons::NAMES.map(Counter::unopenable),
            accepted_plaintext: Counter::new(
                "accepted_plaintext",
                "Entries read without protection, as the settings still allow.",
            ),
            signed_out_changes: Counter::new(
                "signed_out_changes",
                "Changes dropped because their partition was signed out.",
            ),
            abandoned_changes: Counter::new("abandoned_changes", "Changes given up."),
            abandoned_sign_outs: Counter::new(
                "abandoned_sign_outs",
                "Sign-outs that L2 was not told of by the end of a shutdown.",
            ),
            flushed_changes: Counter::new("flushed_changes", "Changes that L2 has taken."),
            superseded_changes: Counter::new(
                "superseded_changes",
                "Acquired tokens dropped because others had replaced what they were to replace.",
            ),
            recovered_changes: Counter::new(
                "recovered_changes",
                "Entries that L2 had lost, and that were written to it again.",
            ),
            acquisitions: Counter::new("acquisitions", "Calls to the provider that gave tokens."),
            failed_acquisitions: Counter::new(
                "failed_acquisitions",
                "Calls to the provider that did not.",
            ),
            invalid_keys: Counter::new(
                "invalid_keys",
                "Requests whose partition key was not accepted.",
            ),
            dropped_events: Counter::new(
                "dropped_events",
                "Events that the hook for them was not told of.",
            ),
            revocations: Counter::new("revocations", "Refresh tokens that a provider has revoked."),
            failed_revocations: Counter::new(
                "failed_revocations",
                "Refresh tokens that could not be revoked.",
            ),
            feed_told: Counter::new("feed_told", "Changes that the store's feed has told of."),
            feed_hints: Counter::new("feed_hints", "Of these, those of partitions in memory."),
            feed_compares: Counter::new(
                "feed_compares",
                "Of these, those that were compared in the background.",
            ),
            #[cfg(feature = "metrics")]
            exported: exported::Exported::new(namespace),
        }
    }

    /// Tells the `metrics` crate what the cache holds now.
    #[cfg_attr(not(feature = "metrics"), expect(unused_variables))]
    pub(crate) fn report(&self, stats: &Stats) {
        #[cfg(feature = "metrics")]
        self.exported.report(stats);
    }
}

/// What a cache has done since it was built, and what it holds now.
///
/// With feature `serde` it is `Serialize`: each field under its name, but for the staleness bound, which is
/// `staleness_bound_seconds`.
///
/// # Metrics
///
/// With feature `metrics` the recorder that is installed when a cache is built gets each field, and durations.
/// Several caches in one process add up. Counters are exported at once. Gauges are as of the last
/// [`stats`](crate::TokenCache::stats), which the cache calls once a minute while its runtime is there: where a
/// minute is too old, call it before each scrape. A series with the label `outcome`, and one of a duration, begins with its
/// first event.
///
/// | metric | kind | labels | is |
/// |---|---|---|---|
/// | `tower_token_cache_l1_entries` | gauge | — | `l1_entries` |
/// | `tower_token_cache_l1_bytes` | gauge | — | `l1_bytes` |
/// | `tower_token_cache_pending_changes` | gauge | — | `pending_changes` |
/// | `tower_token_cache_pending_sign_outs` | gauge | — | `pending_sign_outs` |
/// | `tower_token_cache_pending_revocations` | gauge | — | `pending_revocations` |
/// | `tower_token_cache_waiting_acquisitions` | gauge | — | `waiting_acquisitions` |
/// | `tower_token_cache_l2_state` | gauge | `state`: `closed`, `half_open`, `open` | caches by `l2_state` |
/// | `tower_token_cache_engine_state` | gauge | `state`: `alive`, `ended` | caches by `engine_alive` |
/// | `tower_token_cache_feed_state` | gauge | `state`: `alive`, `lost`, `none` | caches by `feed_alive` |
/// | `tower_token_cache_staleness_bound_seconds` | gauge | `namespace` | `staleness_bound`; infinite where it is `None` |
/// | `tower_token_cache_l1_hits_total` | counter | — | `l1_hits`: each one counts, and none is timed |
/// | `tower_token_cache_l1_misses_total` | counter | — | `l1_misses` |
/// | `tower_token_cache_l2_reads_total` | counter | — | `l2_reads` |
/// | `tower_token_cache_l2_commits_total` | counter | — | `l2_commits` |
/// | `tower_token_cache_l2_errors_total` | counter | — | `l2_errors` |
/// | `tower_token_cache_flushed_changes_total` | counter | — | `flushed_changes` |
/// | `tower_token_cache_accepted_plaintext_total` | counter | — | `accepted_plaintext` |
/// | `tower_token_cache_signed_out_changes_total` | counter | — | `signed_out_changes` |
/// | `tower_token_cache_superseded_changes_total` | counter | — | `superseded_changes` |
/// | `tower_token_cache_recovered_changes_total` | counter | — | `recovered_changes` |
/// | `tower_token_cache_feed_told_total` | counter | — | `feed_told` |
/// | `tower_token_cache_feed_hints_total` | counter | — | `feed_hints` |
/// | `tower_token_cache_feed_compares_total` | counter | — | `feed_compares` |
/// | `tower_token_cache_acquisitions_total` | counter | — | `acquisitions` |
/// | `tower_token_cache_failed_acquisitions_total` | counter | — | `failed_acquisitions` |
/// | `tower_token_cache_invalid_keys_total` | counter | — | `invalid_keys` |
/// | `tower_token_cache_dropped_events_total` | counter | — | `dropped_events` |
/// | `tower_token_cache_revocations_total` | counter | — | `revocations` |
/// | `tower_token_cache_failed_revocations_total` | counter | — | `failed_revocations` |
/// | `tower_token_cache_abandoned_changes_total` | counter | — | `abandoned_changes` |
/// | `tower_token_cache_abandoned_sign_outs_total` | counter | — | `abandoned_sign_outs` |
/// | `tower_token_cache_unopenable_total` | counter | `reason`: the fields of [`UnopenableReasons`] | `unopenable`, as the sum |
/// | `tower_token_cache_acquire_failures_total` | counter | `outcome`: the kind of error, one of a dozen | acquisitions that gave no token, by answer |
/// | `tower_token_cache_duration_total_seconds` | histogram | `token_source`, `cache_level`, `cache_refresh_reason` | [`duration_total`](crate::Metadata::duration_total); without a token too, as `token_source="none"` |
/// | `tower_token_cache_duration_in_cache_seconds` | histogram | `token_source`, `cache_level`, `cache_refresh_reason` | [`duration_in_cache`](crate::Metadata::duration_in_cache) |
/// | `tower_token_cache_duration_in_http_seconds` | histogram | `token_source`, `cache_level`, `cache_refresh_reason` | [`duration_in_http`](crate::Metadata::duration_in_http) |
/// | `tower_token_cache_l2_duration_seconds` | histogram | `operation`, `outcome` | one attempt at an operation on L2 |
///
/// | label | of | values |
/// |---|---|---|
/// | `token_source` | durations of asking | `cache`, `identity_provider`, `none` |
/// | `cache_level` | durations of asking | `none`, `l1`, `l2`, `unavailable` |
/// | `cache_refresh_reason` | durations of asking | `not_applicable`, `force_refresh_or_claims`, `no_cached_access_token`, `expired`, `proactively_refreshed` |
/// | `operation` | durations of L2 | `load`, `commit`, `touch`, `clear`, `relocate`, `lease` |
/// | `outcome` | durations of L2 | `ok`, `unreachable`, `timeout`, `refused` |
///
/// Durations of asking are those of [`acquire`](crate::Tokens::acquire), of
/// [`get_with_metadata`](crate::Tokens::get_with_metadata), and of a [`get_or_acquire`](crate::Tokens::get_or_acquire) that
/// memory could not answer. Other hits are counted and not timed, because two readings of the clock would cost
/// as much as the hit. The share of hits is `l1_hits / (l1_hits + l1_misses)`.
///
/// No label holds a key or anything else of a user. Worth an alarm: a falling share of hits, a rise of
/// `acquire_failures`, a total over one second, a rise of the time in L2 or in HTTP, `l2_state="open"`,
/// `engine_state="ended"`, pending sign-outs.
///
/// A `tracing` event of level debug says the same of each acquisition that is timed.
///
/// # Spans
///
/// These are spans of `tracing`, of level debug and with target `tower_token_cache`. Where that level is off
/// none is made; and a hit in memory by [`get`](crate::Tokens::get) or
/// [`get_or_acquire`](crate::Tokens::get_or_acquire) has none. `tracing-opentelemetry` exports them (see the example `telemetry`): let its
/// layer have `tower_token_cache=debug`.
///
/// | span | fields | is |
/// |---|---|---|
/// | `token_cache.acquire` | `outcome`, `token_source`, `cache_level`, `cache_refresh_reason` | an acquisition, as a request sees it |
/// | `token_cache.provider` | — | one run of the acquire function, within the acquisition that started it; where the level is off, spans of the function are within the request's |
/// | `token_cache.l2` | `operation`, `partitions`, `attempts`, `outcome` | an operation on L2 with its attempts, within an acquisition; a root where it is for several requests, or for none |
///
/// Fields have the values of the labels above; `outcome` of an operation may also be `circuit_open`, after no attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
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
    /// Sign-outs that L2 has not heard of now: until it has, other instances go on with these
    /// sessions, and so does the next process if this one ends. Worth an alarm.
    pub pending_sign_outs: u64,
    /// Changes that L2 has taken.
    pub flushed_changes: u64,
    /// Records and entries in L2 that could not be read: corrupt, foreign, of an unknown version.
    pub unopenable: u64,
    /// The same by reason.
    pub unopenable_reasons: UnopenableReasons,
    /// Entries read without protection, because `accept_plaintext_until` on the builder (feature
    /// `seal`) still allows it.
    pub accepted_plaintext: u64,
    /// Changes dropped because their partition was signed out before they reached L2.
    pub signed_out_changes: u64,
    /// Acquired tokens dropped because others had replaced what they were to replace.
    pub superseded_changes: u64,
    /// Entries that L2 had lost, and that were written to it again.
    pub recovered_changes: u64,
    /// Whether L2 is asked. There is a circuit breaker for reads and one for writes, for each server
    /// of a cluster; this is the worst of them.
    pub l2_state: BreakerState,
    /// Whether the runtime that the cache works on is there; see
    /// [`Builder::runtime`](crate::Builder::runtime). Without it nothing is read from L2 or written
    /// to it.
    pub engine_alive: bool,
    /// Whether the store's [feed](crate::store::FeedEvent) is provably alive, so that changes of other
    /// instances are heard of; `None` where the store has none.
    pub feed_alive: Option<bool>,
    /// Changes that the feed has told of.
    pub feed_told: u64,
    /// Of these, those of partitions in memory.
    pub feed_hints: u64,
    /// Of these, those that this process may have made itself, and that were compared in the background. Others
    /// are compared when the partition is next used, and count as [`l2_reads`](Self::l2_reads).
    pub feed_compares: u64,
    /// How old a change can be of which this instance does not know: the age of the last proof while the
    /// feed is alive, which changes between 0 and half a second; 1 s while each use is compared with the
    /// store; the setting of L1 where the store has no feed. To it comes the time that a comparison takes which is
    /// under way. `None` is without bound: the store does not answer, or there is no such setting.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "staleness_bound_seconds", serialize_with = "seconds")
    )]
    pub staleness_bound: Option<Duration>,
    /// Requests whose partition key was not accepted, as two cookies of one name; see
    /// [`InvalidKey`](crate::InvalidKey).
    pub invalid_keys: u64,
    /// [Events](crate::Builder::on_event) that the hook was not told of, because too many waited for it.
    pub dropped_events: u64,
    /// Refresh tokens of signed-out sessions that a provider has [revoked](crate::Builder::revoke_with).
    pub revocations: u64,
    /// Those that could not be revoked: they are good until they expire.
    pub failed_revocations: u64,
    /// Those that wait to be revoked now, or for the provider's answer.
    pub pending_revocations: u64,
    /// Calls to the provider that gave tokens.
    pub acquisitions: u64,
    /// Calls to the provider that did not.
    pub failed_acquisitions: u64,
    /// Acquisitions under way now: calls to the provider, and those that wait for their turn.
    pub waiting_acquisitions: u64,
    /// Changes given up: still pending at the end of a shutdown, or for longer than a tombstone
    /// could protect a sign-out from them.
    pub abandoned_changes: u64,
    /// Sign-outs that L2 had not heard of at the end of a shutdown.
    pub abandoned_sign_outs: u64,
}

#[cfg(feature = "serde")]
fn seconds<S: serde::Serializer>(time: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    let seconds = time.map(|time| time.as_secs_f64());
    serde::Serialize::serialize(&seconds, to)
}

/// Why entries in L2 could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct UnopenableReasons {
    /// Not written by this crate.
    pub foreign: u64,
    /// Of a format version that this version does not know.
    pub unknown_version: u64,
    /// Corrupt: a record without its generation, an entry without protection that is cut off.
    pub damaged: u64,
    /// Larger than any entry this crate writes.
    pub too_large: u64,
    /// A sound entry in another entry's place.
    pub misplaced: u64,
    /// Sealed with a key that the ring does not have, or there is no ring.
    pub unknown_key: u64,
    /// Sealed with a key that was revoked.
    pub revoked_key: u64,
    /// Sealed, and changed, cut off, or moved here from another user, entry or sign-in.
    pub tampered: u64,
    /// Not sealed, where encryption is on.
    pub plaintext: u64,
}

impl UnopenableReasons {
    const COUNT: usize = 9;

    /// In the order of `Unopenable`, which is that of the fields.
    const NAMES: [&str; Self::COUNT] = [
        "foreign",
        "unknown_version",
        "damaged",
        "too_large",
        "misplaced",
        "unknown_key",
        "revoked_key",
        "tampered",
        "plaintext",
    ];

    pub(crate) fn of(counters: &Counters) -> Self {
        let [
            foreign,
            unknown_version,
            damaged,
            too_large,
            misplaced,
            unknown_key,
            revoked_key,
            tampered,
            plaintext,
        ] = counters.unopenable_for.each_ref().map(Counter::get);
        Self {
            foreign,
            unknown_version,
            damaged,
            too_large,
            misplaced,
            unknown_key,
            revoked_key,
            tampered,
            plaintext,
        }
    }
}

impl Counters {
    /// Entries that could not be read, for any reason.
    pub(crate) fn all_unopenable(&self) -> u64 {
        self.unopenable_for.iter().map(Counter::get).sum()
    }

    /// Counts an entry that could not be read; `reason` is its place in [`UnopenableReasons`].
    pub(crate) fn unopenable(&self, reason: usize) {
        if let Some(counter) = self.unopenable_for.get(reason) {
            counter.add(1);
        }
    }
}
