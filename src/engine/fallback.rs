//! How long a read waits for L2, and what the policy allows where L2 fails.

use std::future::pending;
use std::sync::Arc;

use crate::engine::core::Engine;
use crate::engine::error::L2Error;
use crate::engine::partition::observed::Observed;
use crate::engine::partition::state::{Partition, State};
use crate::error::{Error, StoreErrorKind};
use crate::key::PartitionKey;
use crate::policy::{FailurePolicy, OnFailure};
use crate::race::{Either, race};

impl Engine {
    /// Reads the partition from L2. A handle that L2 has just failed, and whose policy is to degrade, does
    /// not ask again: no request waits for one outage more than once. Where memory `has` a value to degrade
    /// to, L2 is waited for only while it answers at all.
    pub(crate) async fn load_once(
        self: &Arc<Self>,
        key: &PartitionKey,
        policy: FailurePolicy,
        observed: &mut Option<Observed>,
        has: bool,
    ) -> (Arc<Partition>, Result<(), L2Error>) {
        let now = self.now();
        let degrades = policy == FailurePolicy::Degrade;
        if degrades && observed.is_some_and(|observed| observed.gave_up_on_l2(now)) {
            let failure = L2Error::of(StoreErrorKind::CircuitOpen);
            return (self.find(key), Err(failure));
        }
        let (partition, outcome) = match degrades && has {
            true => self.compare(key).await,
            false => {
                let (partition, outcome) = self.load(key).await;
                (partition, Some(outcome))
            }
        };
        // Reported as a timeout, and not noted as a failure of the handle: an entry that memory does not have
        // is still worth waiting for.
        let Some(outcome) = outcome else {
            return (partition, Err(L2Error::of(StoreErrorKind::Timeout)));
        };
        if let Err(failure) = &outcome
            && self.degrade(policy, failure.clone()).is_ok()
        {
            observed
                .get_or_insert_with(|| partition.lock().observe(now))
                .note_l2_failure(self.now());
        }
        (partition, outcome)
    }

    /// `Some` if memory is served without asking L2, because L2 does not answer; the bool says whether the caller is to
    /// probe it in the background.
    pub(crate) fn short_circuits(&self, key: &PartitionKey, state: &State) -> Option<bool> {
        // The partition's name in L2 costs a hash. An open breaker spares any question, mere silence none about what was announced
        // as changed.
        let shard = (!self.l2.shards.answer()).then(|| self.l2.shard_of(key));
        shard?.short_circuits(state.is_contradicted())
    }

    /// Reads the partition from L2. Returns no outcome if L2 does not answer; the load goes on.
    async fn compare(
        self: &Arc<Self>,
        key: &PartitionKey,
    ) -> (Arc<Partition>, Option<Result<(), L2Error>>) {
        let shard = self.l2.shard_of(key);
        let partition = self.find(key);
        let contradicted = partition.lock().is_contradicted();
        if let Some(probes) = shard.short_circuits(contradicted) {
            if probes {
                self.start_load(key, false);
            }
            return (partition, None);
        }
        let (partition, loading) = self.start_load(key, false);
        let sleep = |time| self.bounded(time, pending::<()>());
        let silence = shard.pace.silence(self.l2.timeouts.attempt_time(), sleep);
        let outcome = match race(loading.outcome(), silence).await {
            Either::First(outcome) => Some(outcome.unwrap_or_else(|| Err(L2Error::lost()))),
            Either::Second(()) => None,
        };
        (partition, outcome)
    }

    /// Whether a request goes on after this failure, by the hook's decision and its policy.
    pub(crate) fn degrade(&self, policy: FailurePolicy, failure: L2Error) -> Result<(), Error> {
        let goes_on = match failure.decision {
            OnFailure::Degrade => true,
            OnFailure::Fail => false,
            OnFailure::Retry | OnFailure::Policy => policy != FailurePolicy::Strict,
        };
        match goes_on {
            true => Ok(()),
            false => Err(Error::Unavailable(failure.error)),
        }
    }
}
