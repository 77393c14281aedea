//! The engine: L1 and L2 behind one `TokenCache`.
//!
//! A read goes `read` → `partitions` → `l2`; a change goes `write` → `partitions` → `l2`. What memory
//! may answer or take in is decided in `partition`, under its lock.

mod acquire;
mod acquired;
mod admission;
mod bound;
mod breaker;
mod budget;
mod builder;
mod by_name;
mod coherence;
mod deadline;
mod deferred;
mod detached;
#[cfg(feature = "seal")]
mod encryption;
mod flight;
mod flights;
mod flush;
mod in_use;
mod index;
mod journal;
mod l1;
mod l2;
mod lease;
mod life;
mod load;
#[cfg(test)]
mod overload_tests;
mod owed;
mod pace;
mod partition;
mod partitions;
mod pending;
mod pin;
mod places;
mod protection;
mod questions;
mod queue;
mod read;
mod relocate;
mod revocation;
mod sessions;
mod setback;
mod shards;
mod shared;
mod sign_outs;
mod thread;
mod told;
mod turn;
mod until;
mod user_sign_outs;
mod users;
mod work;
mod write;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;

use self::acquire::Terms;
pub(crate) use self::acquire::{Landed, Need};
pub use self::breaker::BreakerState;
use self::budget::Budget;
pub use self::builder::Builder;
use self::coherence::Coherence;
use self::deferred::Deferred;
use self::detached::Operations;
use self::flights::Flights;
use self::journal::Journal;
pub use self::l1::L1;
use self::l2::L2;
use self::partition::Rules;
use self::partitions::Partitions;
pub(crate) use self::pin::Pin;
use self::questions::Questions;
use self::queue::Queue;
#[cfg(feature = "cookie")]
use self::revocation::Number;
use self::shared::Fingerprint;
use self::sign_outs::SignOuts;
use self::thread::EngineThread;
use self::user_sign_outs::UserSignOuts;
pub(crate) use self::work::Call;
pub(crate) use self::write::CommitWait;
use crate::error::Error;
use crate::key::PartitionKey;
use crate::policy::{FailurePolicy, WriteMode};
use crate::race::{Either, race};
use crate::sabotage::{self, Sabotage};
use crate::store::{Lifetime, Loaded, PartitionId, Revision, TokenStore};
use crate::telemetry::{Counters, Stats, UnopenableReasons};
#[cfg(feature = "cookie")]
use crate::time::Timestamp;
use crate::time::{Clock, Now};
use crate::tokens::Tokens;

/// What an allocator spends on one allocation besides its bytes.
pub(crate) const ALLOCATION: usize = 16;

/// The application's token cache: L1 in memory, L2 in a store, and the engine between them.
///
/// Cheap to clone; clones share everything. Give one to a
/// [`TokenCacheLayer`](crate::TokenCacheLayer), or take a handle outside of any request with
/// [`tokens`](TokenCache::tokens).
#[derive(Clone)]
pub struct TokenCache(pub(crate) Arc<Engine>);

/// State shared by all clones, handles and background tasks.
pub(crate) struct Engine {
    partitions: Partitions,
    coherence: Coherence,
    loads: Questions<Loaded>,
    confirmations: Questions<Revision>,
    l2: L2,
    queue: Queue,
    deferred: Deferred,
    sign_outs: SignOuts,
    journal: Option<Journal>,
    budget: Budget,
    pub(crate) counters: Arc<Counters>,
    pub(crate) clock: Clock,
    /// How often the machine had slept when somebody last looked.
    sleeps: AtomicU32,
    rules: Rules,
    flights: Flights,
    operations: Operations,
    terms: Terms,
    lifetime: Lifetime,
    pub(crate) failure_policy: FailurePolicy,
    pub(crate) write_mode: WriteMode,
    user_sign_outs: UserSignOuts,
    /// What the settings were, for [`TokenCache::shared`].
    fingerprint: Fingerprint,
    runtime: tokio::runtime::Handle,
    /// What drives it, where it is the engine's own.
    _thread: Option<EngineThread>,
}

/// What [`TokenCache::shutdown`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Changes that reached L2 during the shutdown.
    pub flushed: u64,
    /// Changes that did not.
    pub abandoned: u64,
    /// Sign-outs that L2 was told of during the shutdown.
    pub sign_outs_flushed: u64,
    /// Sign-outs that it was not told of, and that are in no [journal](Builder::journal): these
    /// sessions go on.
    pub sign_outs_abandoned: u64,
    /// Sign-outs that it was not told of, and that the next process with this journal will tell it.
    pub sign_outs_journaled: u64,
}

impl TokenCache {
    /// A cache over this store; [`Builder::build`] makes it.
    pub fn builder(store: impl TokenStore) -> Builder {
        Builder::new(store)
    }

    /// A handle for this partition, outside of any request: for background jobs and
    /// administration. Its changes are queued for L2 as they are made.
    pub fn tokens(&self, partition: PartitionKey) -> Tokens {
        Tokens::detached(self.0.clone(), partition)
    }

    /// What the store knows a partition by: a digest, keyed where there is a key ring. For the
    /// operator who looks for a user's record; in Redis it stands under
    /// `namespace:{`[`encoded`](PartitionId::encoded)`}`. It changes with
    /// [`revoke_all`](Self::revoke_all).
    ///
    /// # Errors
    /// [`Error::Unavailable`](crate::Error::Unavailable) when the namespace's number is not known
    /// yet, and L2 cannot be asked.
    pub async fn partition_id(&self, partition: &PartitionKey) -> Result<PartitionId, Error> {
        let id = self.0.id(partition).await;
        id.map_err(|failure| Error::Unavailable(failure.error))
    }

    /// The same where requests bring their partitions, by the number that is known now.
    #[cfg(feature = "cookie")]
    pub(crate) fn brought_id(&self, partition: &PartitionKey) -> PartitionId {
        let under = self.0.l2.prefix.known().unwrap_or(Number::FIRST);
        self.0.l2.id(partition, under)
    }

    /// Whether what was issued then is from before everybody was signed out.
    #[cfg(feature = "cookie")]
    pub(crate) fn has_revoked(&self, issued_at: Timestamp) -> bool {
        let number = self.0.l2.prefix.known();
        number.is_some_and(|number| number > Number::FIRST && issued_at <= number.began())
    }

    /// What the cache has done since it was built.
    pub fn stats(&self) -> Stats {
        let engine = &self.0;
        let counters = &engine.counters;
        let (l1_entries, l1_bytes) = engine.partitions.size();
        let stats = Stats {
            l1_entries,
            l1_bytes,
            l1_hits: counters.l1_hits.get(),
            l1_misses: counters.l1_misses.get(),
            l2_reads: counters.l2_reads.get(),
            l2_commits: counters.l2_commits.get(),
            l2_errors: counters.l2_errors.get(),
            pending_changes: engine.budget.pending(),
            pending_sign_outs: engine.sign_outs.pending(),
            flushed_changes: counters.flushed_changes.get(),
            unopenable: counters.unopenable.get(),
            unopenable_reasons: UnopenableReasons::of(counters),
            accepted_plaintext: counters.accepted_plaintext.get(),
            signed_out_changes: counters.signed_out_changes.get(),
            superseded_changes: counters.superseded_changes.get(),
            acquisitions: counters.acquisitions.get(),
            failed_acquisitions: counters.failed_acquisitions.get(),
            waiting_acquisitions: engine.flights.count() as u64,
            recovered_changes: counters.recovered_changes.get(),
            l2_state: engine.l2.shards.state(),
            engine_alive: !engine.queue.has_ended(),
            feed_alive: engine.is_feed_alive(),
            feed_told: counters.feed_told.get(),
            feed_hints: counters.feed_hints.get(),
            feed_compares: counters.feed_compares.get(),
            staleness_bound: engine.staleness_bound(),
            abandoned_changes: counters.abandoned_changes.get(),
            abandoned_sign_outs: counters.abandoned_sign_outs.get(),
        };
        counters.report(&stats);
        stats
    }

    /// Writes everything that waits to L2, and reports how many changes and sign-outs got there and
    /// how many did not within the deadline, which is logged as an error. Changes made afterwards fail with
    /// [`Error::ShutDown`](crate::Error::ShutDown); reads still work.
    ///
    /// Call it after the server has stopped, from any runtime or none. It returns at the deadline,
    /// whatever L2 and the engine do.
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        let engine = &self.0;
        let before = engine.counters.flushed_changes.get();
        let told_before = engine.sign_outs.told();
        engine.close();
        let (mut waiting, drained) = oneshot::channel();
        let drains = engine.clone();
        engine.runtime.spawn(async move {
            // An L2 that stays away must not keep the engine for ever.
            if let Either::Second(()) = race(waiting.closed(), drains.drain()).await {
                // Nobody waits any more otherwise.
                let _ = waiting.send(());
            }
        });
        let in_time = matches!(engine.bounded(deadline, drained).await, Ok(Ok(())));
        let abandoned = match sabotage::is(Sabotage::ShutdownWithoutDrain) {
            true => 0,
            false => engine.budget.pending(),
        };
        engine.journal_what_waits().await;
        let sign_outs_journaled = engine.sign_outs.kept();
        let sign_outs_abandoned = engine
            .sign_outs
            .pending()
            .saturating_sub(sign_outs_journaled);
        engine.counters.abandoned_changes.add(abandoned);
        engine.counters.abandoned_sign_outs.add(sign_outs_abandoned);
        if !in_time {
            tracing::error!(
                abandoned,
                sign_outs_abandoned,
                sign_outs_journaled,
                "shut down before the drain ended"
            );
        }
        ShutdownReport {
            flushed: engine.counters.flushed_changes.get() - before,
            abandoned,
            sign_outs_flushed: engine.sign_outs.told() - told_before,
            sign_outs_abandoned,
            sign_outs_journaled,
        }
    }
}

impl Engine {
    /// Both times. Every one that looks at them notices that the machine has slept: who has heard
    /// nothing may have missed something.
    #[inline]
    pub(crate) fn now(&self) -> Now {
        let now = self.clock.read();
        if now.sleeps != self.sleeps.load(Ordering::Relaxed) {
            self.wake_up(now.sleeps);
        }
        now
    }

    #[cold]
    fn wake_up(&self, sleeps: u32) {
        if self.sleeps.swap(sleeps, Ordering::Relaxed) != sleeps {
            tracing::info!("the machine has slept, or its clock was set ahead: L2 is asked again");
            self.rules.vouch.begin_epoch();
        }
    }

    /// Waits until L2 has everything.
    async fn drain(&self) {
        self.operations.ended().await;
        // Whoever has spent a refresh token has its successor to write.
        self.flights.landed().await;
        if !sabotage::is(Sabotage::ShutdownWithoutDrain) {
            self.budget.drained().await;
        }
        self.sign_outs.all_told().await;
        self.coherence.close();
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache").finish_non_exhaustive()
    }
}
