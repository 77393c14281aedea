//! The engine's state. Clones of the cache, handles and background tasks share it; the parts add their
//! methods to [`Engine`] in their own files.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cache::acquisitions::Acquisitions;
use crate::engine::acquire::flights::Flights;
use crate::engine::budget::Budget;
use crate::engine::coherence::Coherence;
use crate::engine::error::L2Error;
use crate::engine::events::Events;
use crate::engine::fingerprint::Fingerprint;
use crate::engine::journal::unacknowledged::SignOuts;
use crate::engine::journal::writer::Journal;
use crate::engine::l1::table::Partitions;
use crate::engine::l2::calls::L2;
use crate::engine::l2::questions::Questions;
use crate::engine::partition::rules::Rules;
use crate::engine::revocations::Revocations;
use crate::engine::runtime::operations::Operations;
use crate::engine::runtime::thread::EngineThread;
use crate::engine::sign_out::owed_users::UserSignOuts;
use crate::engine::write_behind::deferred::Deferred;
use crate::engine::write_behind::queue::Queue;
use crate::key::PartitionKey;
use crate::policy::{FailurePolicy, RefusedRefreshToken, WriteMode};
use crate::store::{Loaded, PartitionId, Revision};
use crate::telemetry::Counters;
use crate::time::{Clock, Now};

/// The state that clones of the cache, handles and background tasks share.
pub(crate) struct Engine {
    pub(crate) partitions: Partitions,
    pub(crate) coherence: Coherence,
    pub(crate) loads: Questions<Loaded>,
    pub(crate) confirmations: Questions<Revision>,
    pub(crate) l2: L2,
    pub(crate) queue: Queue<Engine>,
    pub(crate) deferred: Deferred,
    pub(crate) sign_outs: SignOuts,
    pub(crate) journal: Option<Journal>,
    pub(crate) budget: Budget,
    pub(crate) counters: Arc<Counters>,
    pub(crate) clock: Clock,
    /// How often the machine had slept at the last reading of the clock.
    pub(crate) sleeps: AtomicU32,
    pub(crate) rules: Rules,
    pub(crate) flights: Flights,
    pub(crate) operations: Operations,
    pub(crate) revocations: Revocations,
    pub(crate) events: Events,
    pub(crate) acquisitions: Acquisitions,
    pub(crate) failure_policy: FailurePolicy,
    pub(crate) refused_refresh_token: RefusedRefreshToken,
    pub(crate) write_mode: WriteMode,
    pub(crate) user_sign_outs: UserSignOuts,
    /// The settings, for [`TokenCache::shared`](crate::TokenCache::shared) to compare.
    pub(crate) fingerprint: Fingerprint,
    pub(crate) runtime: tokio::runtime::Handle,
    /// The thread that drives `runtime`, where the runtime is the engine's own.
    pub(crate) _thread: Option<EngineThread>,
}

impl Engine {
    /// Reads both clocks. If the machine has slept since the last reading, events of the feed may be lost:
    /// then, where there is a feed, a new era begins, and memory is compared with L2 before it is used.
    #[inline]
    pub(crate) fn now(&self) -> Now {
        let now = self.clock.read();
        if now.sleeps != self.sleeps.load(Ordering::Acquire) {
            self.wake_up(now.sleeps);
        }
        now
    }

    /// The partition's present id in the store.
    pub(crate) async fn id(self: &Arc<Self>, key: &PartitionKey) -> Result<PartitionId, L2Error> {
        Ok(self.l2.id(key, self.number().await?))
    }

    #[cold]
    fn wake_up(&self, sleeps: u32) {
        // First, because another thread that sees the new count goes by the era. One era too many does no harm.
        self.rules.trust.begin_era();
        if self.sleeps.swap(sleeps, Ordering::AcqRel) != sleeps {
            tracing::info!("the machine has slept, or its clock was set ahead: L2 is asked again");
        }
    }
}
