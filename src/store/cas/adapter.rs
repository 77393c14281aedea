//! `CasAdapter`: partitions over compare-and-set.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use super::leases::{Leases, Watches};
use super::moves::Move;
use super::timed::Timed;
use super::{CasStore, blob, keys};
use crate::engine::limits::CLOCK_SKEW;
use crate::error::StoreError;
use crate::store::partition::Partition;
use crate::store::record::Record;
use crate::store::retries::Retries;
use crate::store::{
    Cleared, Commit, CommitId, Lease, LeaseState, Loaded, Origin, Outcome, PartitionId, Raise,
    Remaining, TOMBSTONE, TokenStore,
};
use crate::time::{Clock, Timestamp};

/// How many partitions of a group are asked for at a time.
const AT_A_TIME: usize = 32;

/// A [`TokenStore`] over a [`CasStore`]: each partition is one blob, under the key `namespace:digest`. A change reads
/// the blob, applies what the [contract](crate::store) says, and writes it if it is still as it was read; else the
/// change begins again, after a short random pause.
///
/// What it costs: a read is one round-trip, and a change is two, both of the whole partition. A group is so many
/// round-trips at the same time, 32 at most. A move is three: both are read, the old one is signed out if it is still as it
/// was read, and the new one is written. A failure before the last ends the old session, and the move can be repeated until
/// it is done. The new one is looked at before: a move that has no [room](CasStore::takes) leaves the old one. There is no
/// [feed](TokenStore::feed): other instances see a change within
/// [`L1::max_staleness`](crate::L1::max_staleness), and what the store has lost is not written back from memory.
///
/// # Whose clock counts
///
/// A `CasStore` has no clock, so lifetimes and expiries go by the wall clock of the instance that asks: let the
/// clocks be set by a time service. A session may end early, or late, by as much as a clock is off. No clock, and no
/// step of one, brings a signed-out session back: a tombstone counts for as long as the store has it, which is
/// [`TOMBSTONE`] at least from the last write on, as the store counts; and sign-outs and changes are ordered by
/// numbers.
///
/// Leases go by a monotonic clock: an instance takes a lease over only when it has itself seen the lease unchanged for
/// the whole of its time. So a lease whose owner has died is free that long after another instance first asks for it.
pub struct CasAdapter<C> {
    store: Timed<C>,
    clock: Clock,
    watches: Watches,
}

impl<C: CasStore> CasAdapter<C> {
    /// Partitions and leases in this store.
    pub fn new(store: C) -> Self {
        Self {
            store: Timed(store),
            clock: Clock::system(),
            watches: Watches::default(),
        }
    }

    /// The same store on another clock, for tests.
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The store beneath.
    pub fn inner(&self) -> &C {
        &self.store.0
    }

    fn leases(&self) -> Leases<'_, Timed<C>> {
        Leases {
            store: &self.store,
            clock: &self.clock,
            watches: &self.watches,
        }
    }

    async fn load_one(&self, id: &PartitionId) -> Result<Loaded, StoreError> {
        let Some((bytes, _)) = self.store.get(&keys::of_partition(id)).await? else {
            return Ok(Loaded::default());
        };
        let now = self.clock.now();
        Ok(match blob::read(&bytes) {
            Some(partition) if partition.record.is_absent(now) => Loaded::default(),
            Some(partition) => partition.loaded(now),
            None => Loaded {
                damaged: 1,
                ..Loaded::default()
            },
        })
    }

    /// A partition, and the time at which it is so.
    pub(super) async fn read(
        &self,
        id: &PartitionId,
    ) -> Result<Option<(Partition, Timestamp)>, StoreError> {
        let found = self.store.get(&keys::of_partition(id)).await?;
        let now = self.clock.now();
        let partition = found.and_then(|(bytes, _)| blob::read(&bytes));
        let partition = partition.filter(|partition| !partition.record.is_absent(now));
        Ok(partition.map(|partition| (partition, now)))
    }

    /// Deletes a partition that is like this; whether it was.
    pub(super) async fn delete_if(
        &self,
        id: &PartitionId,
        like: impl Fn(&Partition) -> bool + Send,
    ) -> Result<bool, StoreError> {
        let key = keys::of_partition(id);
        let mut retries = Retries::new();
        loop {
            let Some((bytes, revision)) = self.store.get(&key).await? else {
                return Ok(false);
            };
            if !blob::read(&bytes).is_some_and(|stored| like(&stored)) {
                return Ok(false);
            }
            if self.store.delete(&key, &revision).await? {
                return Ok(true);
            }
            retries.pause().await?;
        }
    }

    /// Changes a partition by compare-and-set. `change` may be called several times, of which the last counts.
    pub(super) async fn update<R>(
        &self,
        id: &PartitionId,
        change: impl Fn(&mut Option<Partition>, Timestamp) -> R + Send,
    ) -> Result<R, StoreError>
    where
        R: Send,
    {
        let key = keys::of_partition(id);
        let mut retries = Retries::new();
        loop {
            let found = self.store.get(&key).await?;
            let (now, found) = (self.clock.now(), found.as_ref());
            let mut partition = found.and_then(|(bytes, _)| blob::read(bytes));
            partition = partition.filter(|partition| !partition.record.is_absent(now));
            let result = change(&mut partition, now);
            let next = partition.map(|partition| (blob::write(&partition), partition.record));
            let changed =
                |(next, _): &(Bytes, Record)| found.is_none_or(|(bytes, _)| bytes != next);
            let Some((next, record)) = next.filter(changed) else {
                return Ok(result);
            };
            let revision = found.map(|(_, revision)| revision);
            if self
                .store
                .put(&key, next, revision, record.keep(now))
                .await?
            {
                return Ok(result);
            }
            retries.pause().await?;
        }
    }
}

impl Record {
    /// Whether nothing of it counts any more. A tombstone counts for as long as the store has it: a clock that is
    /// ahead must not forget a sign-out.
    pub(super) fn is_absent(&self, now: Timestamp) -> bool {
        self.cleared_at.is_none() && self.ended(now)
    }

    /// How long the store has to keep it. The time of a sign-out may be by a clock that is behind, so the tombstone's
    /// time begins anew with each change.
    pub(super) fn keep(&self, now: Timestamp) -> Option<Duration> {
        let tombstone = self.cleared_at.map_or(Duration::ZERO, |_| TOMBSTONE);
        let keep = self.end?.since(now).max(tombstone);
        Some(keep.saturating_add(CLOCK_SKEW))
    }
}

/// The answers of a group, in its order.
async fn each<'a, T, R, F>(group: &'a [T], ask: impl Fn(&'a T) -> F) -> Vec<R>
where
    F: Future<Output = R>,
{
    let mut answers = Vec::with_capacity(group.len());
    for some in group.chunks(AT_A_TIME) {
        answers.extend(join_all(some.iter().map(&ask)).await);
    }
    answers
}

impl<C: CasStore> TokenStore for CasAdapter<C> {
    fn identity(&self) -> u64 {
        self.store.identity()
    }

    async fn load(&self, group: &[PartitionId]) -> Vec<Result<Loaded, StoreError>> {
        each(group, |id| self.load_one(id)).await
    }

    async fn commit(&self, group: &[Commit]) -> Vec<Result<Outcome, StoreError>> {
        each(group, |commit| {
            self.update(&commit.partition, move |stored, now| {
                Partition::commit(stored, commit, true, now)
            })
        })
        .await
    }

    async fn touch(&self, group: &[PartitionId]) -> Vec<Result<Remaining, StoreError>> {
        let touch = |stored: &mut Option<Partition>, now| {
            let touched = stored.as_mut().and_then(|partition| partition.touch(now));
            touched.unwrap_or_default()
        };
        each(group, |id| self.update(id, touch)).await
    }

    async fn clear(
        &self,
        partition: &PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> Result<Cleared, StoreError> {
        let clear =
            |stored: &mut Option<Partition>, now| Partition::clear(stored, expected, id, now);
        self.update(partition, clear).await
    }

    async fn raise(
        &self,
        partition: &PartitionId,
        raise: Raise,
        keep: Option<Duration>,
    ) -> Result<u64, StoreError> {
        let raise =
            |stored: &mut Option<Partition>, now| Partition::raise(stored, raise, keep, now);
        self.update(partition, raise).await
    }

    async fn relocate(&self, from: &Origin, commit: &Commit) -> Result<Outcome, StoreError> {
        let (store, clock) = (&self.store, &self.clock);
        Move { store, clock }.make(from, commit).await
    }

    async fn acquire_lease(&self, lease: &Lease, ttl: Duration) -> Result<LeaseState, StoreError> {
        self.leases().acquire(lease, ttl).await
    }

    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        self.leases().renew(lease, ttl).await
    }

    async fn release_lease(&self, lease: &Lease) -> Result<bool, StoreError> {
        self.leases().release(lease).await
    }
}

impl<C> fmt::Debug for CasAdapter<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CasAdapter").finish_non_exhaustive()
    }
}
