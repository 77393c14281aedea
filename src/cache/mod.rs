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
mod confirm;
#[cfg(feature = "seal")]
mod encryption;
mod flight;
mod flush;
mod l1;
mod l2;
mod lease;
mod load;
mod partition;
mod partitions;
mod pending;
mod pin;
mod protection;
mod queue;
mod read;
mod relocate;
mod revocation;
mod sessions;
mod setback;
mod told;
mod turn;
mod user_sign_outs;
mod users;
mod write;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;

pub(crate) use self::acquire::{Call, Landed, Need};
use self::acquire::{Flights, Terms};
pub use self::breaker::BreakerState;
use self::budget::Budget;
pub use self::builder::Builder;
use self::coherence::Coherence;
use self::confirm::Confirmations;
pub use self::l1::L1;
use self::l2::L2;
use self::partition::Rules;
use self::partitions::Partitions;
pub(crate) use self::pin::Pin;
use self::queue::Queue;
#[cfg(feature = "cookie")]
use self::revocation::Number;
use self::user_sign_outs::UserSignOuts;
pub(crate) use self::write::CommitWait;
use crate::error::Error;
use crate::key::PartitionKey;
use crate::policy::{FailurePolicy, WriteMode};
use crate::sabotage::{self, Sabotage};
use crate::store::{Lifetime, PartitionId, TokenStore};
use crate::telemetry::{Counters, Stats, UnopenableReasons};
use crate::time::Clock;
#[cfg(feature = "cookie")]
use crate::time::Timestamp;
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
    confirmations: Confirmations,
    l2: L2,
    queue: Queue,
    budget: Budget,
    pub(crate) counters: Arc<Counters>,
    pub(crate) clock: Clock,
    rules: Rules,
    flights: Flights,
    terms: Terms,
    lifetime: Lifetime,
    pub(crate) failure_policy: FailurePolicy,
    pub(crate) write_mode: WriteMode,
    user_sign_outs: UserSignOuts,
    runtime: tokio::runtime::Handle,
}

/// What [`TokenCache::shutdown`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Changes that reached L2 during the shutdown.
    pub flushed: u64,
    /// Changes that did not.
    pub abandoned: u64,
}

impl TokenCache {
    /// A cache over this store; [`Builder::build`] makes it.
    pub fn builder(store: impl TokenStore) -> Builder {
        Builder::new(Arc::new(store))
    }

    /// The cache of this name in this process, made by `build` if there is none yet.
    ///
    /// For frameworks that build one application per worker thread, such as actix-web: all
    /// workers share one L1 and one queue. The name is free again once the last clone is dropped.
    ///
    /// # Errors
    /// What `build` returns.
    pub fn shared<E>(name: &str, build: impl FnOnce() -> Result<Self, E>) -> Result<Self, E> {
        static NAMED: LazyLock<Mutex<HashMap<String, Weak<Engine>>>> =
            LazyLock::new(Mutex::default);
        let mut named = NAMED.lock();
        if let Some(engine) = named.get(name).and_then(Weak::upgrade) {
            return Ok(Self(engine));
        }
        let cache = build()?;
        named.retain(|_, engine| engine.strong_count() > 0);
        named.insert(name.into(), Arc::downgrade(&cache.0));
        Ok(cache)
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
            flushed_changes: counters.flushed_changes.get(),
            unopenable: counters.unopenable.get(),
            unopenable_reasons: UnopenableReasons::of(counters),
            accepted_plaintext: counters.accepted_plaintext.get(),
            signed_out_changes: counters.signed_out_changes.get(),
            superseded_changes: counters.superseded_changes.get(),
            acquisitions: counters.acquisitions.get(),
            failed_acquisitions: counters.failed_acquisitions.get(),
            recovered_changes: counters.recovered_changes.get(),
            l2_state: engine.l2.breaker.state(),
            backplane_alive: engine.coherence.is_alive(),
            staleness_bound: engine.staleness_bound(),
            abandoned_changes: counters.abandoned_changes.get(),
        };
        counters.report(&stats);
        stats
    }

    /// Writes everything that waits to L2, and reports how many changes got there and how many
    /// did not within the deadline. Changes made afterwards fail with
    /// [`Error::ShutDown`](crate::Error::ShutDown); reads still work.
    ///
    /// Call it after the server has stopped, and before the runtime ends.
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        let engine = &self.0;
        let before = engine.counters.flushed_changes.get();
        engine.close();
        let drained = async {
            // Whoever has spent a refresh token has its successor to write.
            engine.flights.landed().await;
            if !sabotage::is(Sabotage::ShutdownWithoutDrain) {
                engine.budget.drained().await;
            }
            engine.told_of_sign_outs().await;
            engine.coherence.close().await;
        };
        if tokio::time::timeout(deadline, drained).await.is_err() {
            tracing::error!(
                abandoned = engine.budget.pending(),
                "shut down before the drain ended"
            );
        }
        let abandoned = match sabotage::is(Sabotage::ShutdownWithoutDrain) {
            true => 0,
            false => engine.budget.pending(),
        };
        engine.counters.abandoned_changes.add(abandoned);
        ShutdownReport {
            flushed: engine.counters.flushed_changes.get() - before,
            abandoned,
        }
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache").finish_non_exhaustive()
    }
}
