//! `TokenCache`: what an application holds.

pub(crate) mod acquisitions;
mod build;
mod builder;
#[cfg(feature = "serde")]
mod config;
#[cfg(feature = "seal")]
mod encryption;
#[cfg(not(feature = "seal"))]
#[path = "cache/plain.rs"]
mod encryption;
#[cfg(feature = "serde")]
mod human;
pub(crate) mod l1;
pub(crate) mod lifetimes;
mod shared;
mod sign_out;
pub(crate) mod timeouts;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::acquisitions::Acquisitions;
pub use self::builder::Builder;
#[cfg(feature = "serde")]
pub use self::config::Config;
pub use self::l1::L1;
pub use self::lifetimes::Lifetimes;
pub use self::timeouts::Timeouts;
use crate::engine::core::Engine;
pub use crate::engine::health::Health;
pub use crate::engine::l2::breaker::BreakerState;
#[cfg(feature = "cookie")]
use crate::engine::namespace::Number;
pub use crate::engine::shutdown::ShutdownReport;
use crate::error::Error;
use crate::key::PartitionKey;
use crate::store::{PartitionId, TokenStore};
use crate::telemetry::Stats;
#[cfg(feature = "cookie")]
use crate::time::Timestamp;
use crate::tokens::Tokens;

/// The application's token cache: L1 in memory, L2 in a store, and the engine between them.
///
/// Cheap to clone; clones share everything. Give one to a
/// [`TokenCacheLayer`](crate::TokenCacheLayer), or take a handle outside of any request with
/// [`tokens`](TokenCache::tokens).
#[derive(Clone)]
pub struct TokenCache(pub(crate) Arc<Engine>);

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
    /// [`sign_out_all`](Self::sign_out_all).
    ///
    /// # Errors
    /// [`Error::Unavailable`](crate::Error::Unavailable) when the namespace's number is not known
    /// yet, and L2 cannot be asked.
    pub async fn partition_id(&self, partition: &PartitionKey) -> Result<PartitionId, Error> {
        let id = self.0.id(partition).await;
        id.map_err(|failure| Error::Unavailable(failure.error))
    }

    /// The same where requests bring their partitions: by the number that is known now, without asking L2.
    #[cfg(feature = "cookie")]
    pub(crate) fn brought_id(&self, partition: &PartitionKey) -> PartitionId {
        let under = self.0.l2.number.known().unwrap_or(Number::FIRST);
        self.0.l2.id(partition, under)
    }

    /// Whether a session that was issued at this time is from before the last `sign_out_all`.
    #[cfg(feature = "cookie")]
    pub(crate) fn has_revoked(&self, issued_at: Timestamp) -> bool {
        let number = self.0.l2.number.known();
        number.is_some_and(|number| number > Number::FIRST && issued_at <= number.began())
    }

    /// What the cache has done since it was built.
    pub fn stats(&self) -> Stats {
        self.0.stats()
    }

    /// Whether the cache can do its work now, for the probes of an orchestrator: asks the store for one small
    /// record, and reads the key ring where it is kept. The answer comes after `timeout` at the latest, whatever
    /// they and the engine do. A circuit breaker that is open keeps nothing from being asked here, and what fails
    /// here opens none. Of a cluster one node is asked.
    ///
    /// Under [`FailurePolicy::Degrade`](crate::FailurePolicy::Degrade) an instance serves the users in its memory
    /// while the store is away. A readiness probe that fails then takes all instances away at once. Use
    /// [`is_ready`](Health::is_ready) for the start, and for readiness where a request without the store is of no
    /// use.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_token_cache::{MemoryStore, TokenCache};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = TokenCache::builder(MemoryStore::new()).build()?;
    /// let health = cache.check(Duration::from_millis(500)).await;
    /// assert!(health.is_ready());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn check(&self, timeout: Duration) -> Health {
        self.0.check(timeout).await
    }

    /// Writes all pending changes and sign-outs to L2. Reports how many reached it, and how many did not by
    /// the deadline, which is logged as an error. Changes made afterwards fail with
    /// [`Error::ShutDown`](crate::Error::ShutDown); reads still work.
    ///
    /// Call it after the server has stopped, from any runtime or none. It returns at the deadline, whatever
    /// L2 and the engine do.
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        self.0.shut_down(deadline).await
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache").finish_non_exhaustive()
    }
}
