//! All calls to the store. `call` (in `attempts`) gives each its timeout, breaker, failure hook and retries.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::timeouts::Timeouts;
use crate::engine::error::L2Error;
use crate::engine::l2::entries::EntryCodec;
use crate::engine::l2::shards::{Shard, Shards};
use crate::engine::namespace::{NamespaceNumber, Number};
use crate::engine::partition::life::Life;
use crate::error::{StoreError, StoreErrorKind};
use crate::key::PartitionKey;
use crate::mutation::{self, Mutation};
use crate::policy::{FailureHook, L2Operation};
use crate::store::{
    Cleared, Commit, CommitId, DynStore, EntryId, Lease, LeaseState, Loaded, Names, Origin,
    Outcome, PartitionId, Raise, Remaining, Revision,
};
use crate::telemetry::Counters;

pub(crate) struct L2 {
    pub(crate) store: Arc<dyn DynStore>,
    pub(crate) codec: EntryCodec,
    pub(crate) number: NamespaceNumber,
    pub(crate) shards: Shards,
    pub(crate) hook: Option<FailureHook>,
    pub(crate) timeouts: Timeouts,
    pub(crate) counters: Arc<Counters>,
}

impl L2 {
    /// The partition's id in the store, under this number of the namespace.
    pub(crate) fn id(&self, key: &PartitionKey, under: Number) -> PartitionId {
        self.named(&self.codec.names(), key, under)
    }

    /// The same, named in this way: see [`EntryCodec::names`].
    pub(crate) fn named(&self, names: &Names, key: &PartitionKey, under: Number) -> PartitionId {
        let id = names.partition(&self.codec.namespace, key);
        id.under(under.get())
    }

    /// A life that L2 has reported.
    pub(crate) fn life(&self, id: Option<CommitId>) -> Option<Life> {
        let sealed = self.codec.seals();
        id.map(|id| Life { id, sealed })
    }

    /// The entry's id in the store.
    pub(crate) fn entry_id(&self, name: &str) -> EntryId {
        self.codec.entry(name)
    }

    /// Loads a group of one [shard](Self::by_shard) in one round-trip. Fails as a whole when every load in it
    /// failed.
    pub(crate) async fn load(
        &self,
        group: &[PartitionId],
    ) -> Result<Vec<Result<Loaded, L2Error>>, L2Error> {
        self.counters.l2_reads.add(group.len() as u64);
        let of: Vec<_> = group.iter().collect();
        let load = || async { all_failed(self.store.load(group).await) };
        let answers = self.call(L2Operation::Load, &of, load).await?;
        // The store has answered, and says that it cannot read these partitions.
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

    /// Loads one partition, in a round-trip of its own.
    pub(crate) async fn load_one(&self, partition: &PartitionId) -> Result<Loaded, L2Error> {
        let answers = self.load(std::slice::from_ref(partition)).await?;
        answers
            .into_iter()
            .next()
            .unwrap_or_else(|| Err(L2Error::lost()))
    }

    /// Asks for the revisions of a group of one [shard](Self::by_shard) in one round-trip.
    pub(crate) async fn revisions(
        &self,
        group: &[PartitionId],
    ) -> Result<Vec<Result<Revision, StoreError>>, L2Error> {
        let of: Vec<_> = group.iter().collect();
        self.call(L2Operation::Load, &of, || async {
            all_failed(self.store.revisions(group).await)
        })
        .await
    }

    /// Commits a group of one [shard](Self::by_shard) in one round-trip. Fails as a whole when every commit
    /// in it failed.
    pub(crate) async fn commit(
        &self,
        group: &[Commit],
    ) -> Result<Vec<Result<Outcome, StoreError>>, L2Error> {
        self.counters.l2_commits.add(group.len() as u64);
        let of: Vec<_> = group.iter().map(|commit| &commit.partition).collect();
        self.call(L2Operation::Commit, &of, || async {
            let answers = self.store.commit(group).await;
            all_failed(answers.into_iter().map(or_mutated).collect())
        })
        .await
    }

    pub(crate) async fn touch(
        &self,
        group: &[PartitionId],
    ) -> Result<Vec<Result<Remaining, StoreError>>, L2Error> {
        let of: Vec<_> = group.iter().collect();
        self.call(L2Operation::Touch, &of, || async {
            all_failed(self.store.touch(group).await)
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
        // The semaphore is never closed.
        let _permit = shard.leases.acquire().await;
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
        let _permit = shard.leases.acquire().await;
        self.call(L2Operation::Lease, &[&lease.partition], || {
            self.store.release_lease(lease)
        })
        .await
    }

    /// The shard of this partition: the part of the store that fails apart from the rest.
    pub(crate) fn shard(&self, partition: &PartitionId) -> Arc<Shard> {
        self.shards.get(self.store.server(partition))
    }

    /// The same for a partition whose name in the store may not be known yet.
    pub(crate) fn shard_of(&self, key: &PartitionKey) -> Arc<Shard> {
        match self.number.known() {
            Some(under) => self.shard(&self.id(key, under)),
            None => self.shards.get(0),
        }
    }

    /// Divides a group by shard, so that only the partitions of a shard wait for it when it does not answer.
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
}

/// Mutation: what L2 has given up counts as applied.
fn or_mutated(answer: Result<Outcome, StoreError>) -> Result<Outcome, StoreError> {
    answer.or_else(|error| {
        let refused = matches!(
            error.kind(),
            StoreErrorKind::Refused | StoreErrorKind::Timeout
        );
        match refused && mutation::is(Mutation::RefusalTakenForSuccess) {
            true => Ok(Outcome::committed(0, None, None, Remaining::default())),
            false => Err(error),
        }
    })
}

/// Returns the first error if nothing in the group succeeded.
fn all_failed<T>(
    answers: Vec<Result<T, StoreError>>,
) -> Result<Vec<Result<T, StoreError>>, StoreError> {
    match answers.first() {
        Some(Err(error)) if answers.iter().all(Result::is_err) => Err(error.clone()),
        _ => Ok(answers),
    }
}
