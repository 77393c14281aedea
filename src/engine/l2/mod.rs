//! The engine's way to the L2 store: timeouts, breakers, failure hook, counters.

pub(crate) mod breaker;
pub(crate) mod entries;
pub(crate) mod pace;
pub(crate) mod questions;
pub(crate) mod shards;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::error::L2Error;
use crate::engine::l2::entries::Protection;
use crate::engine::l2::shards::{Shard, Shards, Way, reads};
use crate::engine::namespace::{Number, Prefix};
use crate::error::{StoreError, StoreErrorKind};
use crate::key::PartitionKey;
use crate::patience::within;
use crate::policy::{FailureHook, L2Failure, L2Operation, OnFailure};
use crate::random::{SLIGHTLY, jittered};
use crate::store::{
    Cleared, Commit, CommitId, EntryId, Lease, LeaseState, Loaded, Names, Origin, Outcome,
    PartitionId, Raise, Remaining, Revision, StoreFuture, TokenStore,
};
use crate::telemetry::Counters;

/// Attempts at one operation, the first included, however often the hook answers retry.
const MAX_ATTEMPTS: u32 = 3;
const FIRST_BACKOFF: Duration = Duration::from_millis(20);

pub(crate) struct L2 {
    pub(crate) store: Arc<dyn TokenStore>,
    pub(crate) protection: Protection,
    pub(crate) prefix: Prefix,
    pub(crate) shards: Shards,
    pub(crate) hook: Option<FailureHook>,
    /// How long one attempt may take.
    pub(crate) soft_timeout: Duration,
    /// How long an operation may take with all its attempts.
    pub(crate) hard_timeout: Duration,
    pub(crate) counters: Arc<Counters>,
}

impl L2 {
    /// What the store knows a partition by, under this number of the namespace.
    pub(crate) fn id(&self, key: &PartitionKey, under: Number) -> PartitionId {
        self.named(&self.protection.names(), key, under)
    }

    /// The same by these names.
    pub(crate) fn named(&self, names: &Names, key: &PartitionKey, under: Number) -> PartitionId {
        let id = names.partition(&self.protection.namespace, key);
        id.under(under.get())
    }

    /// What the store knows an entry by.
    pub(crate) fn entry_id(&self, name: &str) -> EntryId {
        self.protection.entry(name)
    }

    /// One round-trip for the whole group, which is of one [shard](Self::by_shard). Fails as a whole when every load in it failed.
    pub(crate) async fn load(
        &self,
        group: &[PartitionId],
    ) -> Result<Vec<Result<Loaded, L2Error>>, L2Error> {
        self.counters.l2_reads.add(group.len() as u64);
        let of: Vec<_> = group.iter().collect();
        let load = || -> StoreFuture<'_, _> {
            Box::pin(async move { all_failed(self.store.load(group).await) })
        };
        let answers = self.call(L2Operation::Load, &of, load).await?;
        // The store has answered: of these alone it says that it cannot.
        let answers = group.iter().zip(answers).map(|(partition, answer)| {
            answer.map_err(|error| {
                let shard = self.shard(partition);
                let way = shard.way(L2Operation::Load);
                let decision = self.failed(L2Operation::Load, Some(partition), 1, &error, way);
                L2Error { error, decision }
            })
        });
        Ok(answers.collect())
    }

    /// A load that goes out on its own.
    pub(crate) async fn load_one(&self, partition: &PartitionId) -> Result<Loaded, L2Error> {
        let answers = self.load(std::slice::from_ref(partition)).await?;
        answers
            .into_iter()
            .next()
            .unwrap_or_else(|| Err(L2Error::lost()))
    }

    /// One round-trip for the whole group, which is of one [shard](Self::by_shard).
    pub(crate) async fn revisions(
        &self,
        group: &[PartitionId],
    ) -> Result<Vec<Result<Revision, StoreError>>, L2Error> {
        let of: Vec<_> = group.iter().collect();
        self.call(L2Operation::Load, &of, || {
            Box::pin(async move { all_failed(self.store.revisions(group).await) })
        })
        .await
    }

    /// One round-trip for the whole group, which is of one [shard](Self::by_shard). Fails as a whole
    /// when every commit in it failed.
    pub(crate) async fn commit(
        &self,
        group: &[Commit],
    ) -> Result<Vec<Result<Outcome, StoreError>>, L2Error> {
        self.counters.l2_commits.add(group.len() as u64);
        let of: Vec<_> = group.iter().map(|commit| &commit.partition).collect();
        self.call(L2Operation::Commit, &of, || {
            Box::pin(async move { all_failed(self.store.commit(group).await) })
        })
        .await
    }

    pub(crate) async fn touch(
        &self,
        group: &[PartitionId],
    ) -> Result<Vec<Result<Remaining, StoreError>>, L2Error> {
        let of: Vec<_> = group.iter().collect();
        self.call(L2Operation::Touch, &of, || {
            Box::pin(async move { all_failed(self.store.touch(group).await) })
        })
        .await
    }

    pub(crate) async fn clear(
        &self,
        partition: &PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> Result<Cleared, L2Error> {
        self.call(L2Operation::Clear, &[partition], || {
            self.store.clear(partition, expected, id)
        })
        .await
    }

    pub(crate) async fn raise(
        &self,
        epoch: &PartitionId,
        raise: Raise,
        keep: Option<Duration>,
    ) -> Result<u64, L2Error> {
        self.call(L2Operation::Clear, &[epoch], || {
            self.store.raise(epoch, raise, keep)
        })
        .await
    }

    pub(crate) async fn relocate(
        &self,
        from: &Origin,
        commit: &Commit,
    ) -> Result<Outcome, L2Error> {
        self.counters.l2_commits.add(1);
        self.call(L2Operation::Relocate, &[&from.partition], || {
            self.store.relocate(from, commit)
        })
        .await
    }

    pub(crate) async fn acquire_lease(
        &self,
        lease: &Lease,
        ttl: Duration,
    ) -> Result<LeaseState, L2Error> {
        let shard = self.shard(&lease.partition);
        // Never closed.
        let _turn = shard.leases.acquire().await;
        self.call(L2Operation::Lease, &[&lease.partition], || {
            self.store.acquire_lease(lease, ttl)
        })
        .await
    }

    pub(crate) async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<bool, L2Error> {
        self.call(L2Operation::Lease, &[&lease.partition], || {
            self.store.renew_lease(lease, ttl)
        })
        .await
    }

    pub(crate) async fn release_lease(&self, lease: &Lease) -> Result<bool, L2Error> {
        let shard = self.shard(&lease.partition);
        let _turn = shard.leases.acquire().await;
        self.call(L2Operation::Lease, &[&lease.partition], || {
            self.store.release_lease(lease)
        })
        .await
    }

    /// What of the store keeps this partition, and fails apart from the rest.
    pub(crate) fn shard(&self, partition: &PartitionId) -> Arc<Shard> {
        self.shards.get(self.store.server(partition))
    }

    /// The same of a partition whose name in the store may not be known yet.
    pub(crate) fn shard_of(&self, key: &PartitionKey) -> Arc<Shard> {
        match self.prefix.known() {
            Some(under) => self.shard(&self.id(key, under)),
            None => self.shards.get(0),
        }
    }

    /// Divides a group by the shards of the partitions in it: one that does not answer is waited for
    /// by its own alone.
    pub(crate) fn by_shard<T>(
        &self,
        group: Vec<T>,
        id: impl Fn(&T) -> Option<PartitionId>,
    ) -> Vec<Vec<T>> {
        if group.len() < 2 || !self.shards.are_several() {
            return vec![group];
        }
        let mut groups: Vec<(usize, Vec<T>)> = Vec::new();
        for one in group {
            let shard = id(&one).map_or(0, |id| self.store.server(&id));
            match groups.iter_mut().find(|(known, _)| *known == shard) {
                Some((_, group)) => group.push(one),
                None => groups.push((shard, vec![one])),
            }
        }
        groups.into_iter().map(|(_, group)| group).collect()
    }

    /// Asks the store about these partitions of one shard.
    async fn call<'a, T>(
        &'a self,
        operation: L2Operation,
        of: &[&PartitionId],
        ask: impl Fn() -> StoreFuture<'a, Result<T, StoreError>>,
    ) -> Result<T, L2Error> {
        let first = of.first().map_or(0, |first| self.store.server(first));
        let shard = self.shards.get(first);
        let way = shard.way(operation);
        let alone = match of {
            [alone] => Some(*alone),
            _ => None,
        };
        let deadline = Instant::now() + self.hard_timeout;
        let mut number = 0;
        loop {
            number += 1;
            let Some(attempt) = way.breaker.attempt() else {
                return Err(L2Error::of(StoreErrorKind::CircuitOpen));
            };
            let question = reads(operation).then(|| shard.pace.ask());
            let answer = within(self.soft_timeout, deadline, ask()).await;
            let answer = answer.unwrap_or_else(|| Err(StoreError::new(StoreErrorKind::Timeout)));
            // A refusal is an answer: the store is there.
            let answered = match &answer {
                Ok(_) => true,
                Err(error) => error.kind() == StoreErrorKind::Refused,
            };
            if answered {
                if let Some(question) = question {
                    question.answered();
                    shard.answered();
                }
                if attempt.succeeded() {
                    self.closed(operation, &shard);
                }
            } else {
                if let Some(question) = question {
                    question.unanswered();
                }
                if attempt.failed() {
                    opened(operation);
                }
            }
            let error = match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let decision = self.failed(operation, alone, number, &error, way);
            let backoff = jittered(FIRST_BACKOFF * 2_u32.pow(number - 1), SLIGHTLY);
            let again = decision == OnFailure::Retry
                && number < MAX_ATTEMPTS
                && Instant::now() + backoff < deadline;
            if !again {
                return Err(L2Error { error, decision });
            }
            tokio::time::sleep(backoff).await;
        }
    }

    fn closed(&self, operation: L2Operation, shard: &Shard) {
        tracing::info!(reads = reads(operation), "the L2 store answers again");
        shard.way(operation).reasons.forget();
        if reads(operation) {
            shard.recovered();
        }
    }

    fn failed(
        &self,
        operation: L2Operation,
        partition: Option<&PartitionId>,
        attempt: u32,
        error: &StoreError,
        way: &Way,
    ) -> OnFailure {
        self.counters.l2_errors.add(1);
        let digest = partition.map(PartitionId::short);
        // Each attempt of an outage would be a line.
        match way.reasons.is_news(error) {
            true => tracing::warn!(
                ?operation,
                attempt,
                partition = digest.as_deref(),
                error = error as &dyn std::error::Error,
                "the L2 store failed"
            ),
            false => tracing::debug!(
                ?operation,
                attempt,
                partition = digest.as_deref(),
                error = error as &dyn std::error::Error,
                "the L2 store failed again"
            ),
        }
        let failure = L2Failure {
            operation,
            partition: digest.as_deref(),
            attempt,
            error,
        };
        self.hook
            .as_ref()
            .map_or(OnFailure::Policy, |hook| (hook.0)(&failure))
    }
}

fn opened(operation: L2Operation) {
    tracing::warn!(
        reads = reads(operation),
        "the L2 store does not answer, and is not asked for a while"
    );
}

/// Lifts the error out of a group in which nothing succeeded.
fn all_failed<T>(
    answers: Vec<Result<T, StoreError>>,
) -> Result<Vec<Result<T, StoreError>>, StoreError> {
    match answers.first() {
        Some(Err(error)) if answers.iter().all(Result::is_err) => Err(error.clone()),
        _ => Ok(answers),
    }
}
