//! Operations on the connections: one of those that read, or a transaction of the one that writes.

use std::collections::HashMap;
use std::time::Duration;

use super::code::store_error;
use super::connections::{Taken, Transaction};
use super::{SqliteStore, leases, rows};
use crate::error::{StoreError, StoreErrorKind};
use crate::store::found::{Depth, Found};
use crate::store::partition::Partition;
use crate::store::{Cleared, Commit, CommitId, Lease, LeaseState, Origin, Outcome, PartitionId};
use crate::time::Timestamp;

impl SqliteStore {
    pub(super) async fn begin(&self) -> sqlx::Result<Transaction> {
        self.file.check()?;
        self.writer.begin().await
    }

    pub(super) async fn reader(&self) -> sqlx::Result<Taken> {
        self.file.check()?;
        self.readers.take().await
    }

    /// Reads partitions together, or each alone where one of them cannot be read: the others must not suffer.
    pub(super) async fn read_group<R: Send>(
        &self,
        group: &[PartitionId],
        depth: Depth,
        answer: impl Fn(&Found, Timestamp) -> R + Send + Sync,
    ) -> Vec<Result<R, StoreError>> {
        let ids: Vec<_> = group.iter().collect();
        let error = match self.read(&ids, depth, &answer).await {
            Ok(answers) => return answers.into_iter().map(Ok).collect(),
            Err(error) => store_error(error),
        };
        let mut answers = Vec::with_capacity(group.len());
        for id in ids {
            answers.push(match is_of_one(&error, group.len()) {
                true => only(self.read(&[id], depth, &answer).await),
                false => Err(error.clone()),
            });
        }
        answers
    }

    pub(super) async fn read<R>(
        &self,
        ids: &[&PartitionId],
        depth: Depth,
        answer: impl Fn(&Found, Timestamp) -> R + Send,
    ) -> sqlx::Result<Vec<R>> {
        let mut reader = self.reader().await?;
        let now = self.clock.now();
        let found = rows::read(&mut reader.connection, ids, depth, now).await?;
        reader.keep();
        Ok(found.iter().map(|found| answer(found, now)).collect())
    }

    /// Changes partitions in one transaction, or each in one of its own where one of them is refused, for its size or for a
    /// damaged page. `act` is told which of them, and may be called twice.
    pub(super) async fn change_group<R: Send>(
        &self,
        ids: &[&PartitionId],
        act: impl Fn(usize, &mut Option<Partition>, Timestamp) -> R + Send + Sync,
    ) -> Vec<Result<R, StoreError>> {
        let error = match self.change_each(ids, &act).await {
            Ok(answers) => return answers.into_iter().map(Ok).collect(),
            Err(error) => store_error(error),
        };
        let mut answers = Vec::with_capacity(ids.len());
        for (at, id) in ids.iter().enumerate() {
            answers.push(match is_of_one(&error, ids.len()) {
                true => {
                    let alone = self.change_one(id, |stored, now| act(at, stored, now));
                    alone.await.map_err(store_error)
                }
                false => Err(error.clone()),
            });
        }
        answers
    }

    /// All or, on an error, none. A partition that is named twice is changed twice, one after the other.
    async fn change_each<R: Send>(
        &self,
        ids: &[&PartitionId],
        act: impl Fn(usize, &mut Option<Partition>, Timestamp) -> R + Send + Sync,
    ) -> sqlx::Result<Vec<R>> {
        let mut once = Vec::with_capacity(ids.len());
        let mut places = HashMap::with_capacity(ids.len());
        for id in ids {
            places.entry(*id).or_insert_with(|| {
                once.push(*id);
                once.len() - 1
            });
        }
        let changed = self.change(&once, |partitions, now| {
            let each = ids.iter().enumerate();
            each.map(|(at, id)| act(at, &mut partitions[places[*id]], now))
                .collect()
        });
        changed.await
    }

    /// Changes one partition.
    pub(super) async fn change_one<R: Send>(
        &self,
        id: &PartitionId,
        act: impl FnOnce(&mut Option<Partition>, Timestamp) -> R + Send,
    ) -> sqlx::Result<R> {
        self.change(&[id], |partitions, now| act(&mut partitions[0], now))
            .await
    }

    /// Changes partitions in one transaction. Each is named once.
    async fn change<R: Send>(
        &self,
        ids: &[&PartitionId],
        act: impl FnOnce(&mut [Option<Partition>], Timestamp) -> R + Send,
    ) -> sqlx::Result<R> {
        let mut transaction = self.begin().await?;
        let now = self.clock.now();
        let found = rows::read(transaction.connection(), ids, Depth::Heads, now).await?;
        let mut partitions: Vec<_> = found.iter().map(|it| it.partition.clone()).collect();
        let result = act(&mut partitions, now);
        let each = ids.iter().zip(found.iter().zip(&partitions));
        let differences = each.filter_map(|(id, (found, next))| {
            let difference = found.difference(next.as_ref())?;
            Some((*id, difference))
        });
        let differences: Vec<_> = differences.collect();
        rows::write(transaction.connection(), &differences).await?;
        transaction.commit().await?;
        Ok(result)
    }

    pub(super) async fn clear_one(
        &self,
        partition: &PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> sqlx::Result<Cleared> {
        let clear = |stored: &mut _, now| Partition::clear(stored, expected, id, now);
        let cleared = self.change_one(partition, clear).await?;
        self.scrubber.scrub().await;
        Ok(cleared)
    }

    pub(super) async fn relocate_one(
        &self,
        from: &Origin,
        commit: &Commit,
    ) -> sqlx::Result<Outcome> {
        let relocate = |partitions: &mut [Option<Partition>], now| {
            let [source, target] = partitions else {
                return Outcome::Conflict;
            };
            Partition::relocate(source, target, from, commit, now)
        };
        let ids = [&from.partition, &commit.partition];
        let outcome = self.change(&ids, relocate).await?;
        self.scrubber.scrub().await;
        Ok(outcome)
    }

    pub(super) async fn acquire_one(
        &self,
        lease: &Lease,
        ttl: Duration,
    ) -> sqlx::Result<LeaseState> {
        let mut transaction = self.begin().await?;
        let uptime = self.clock.uptime();
        let state = leases::acquire(transaction.connection(), lease, ttl, uptime).await?;
        transaction.commit().await?;
        self.sweep(self.clock.now()).await;
        Ok(state)
    }

    pub(super) async fn renew_one(&self, lease: &Lease, ttl: Duration) -> sqlx::Result<bool> {
        let mut transaction = self.begin().await?;
        let uptime = self.clock.uptime();
        let renewed = leases::renew(transaction.connection(), lease, ttl, uptime).await?;
        transaction.commit().await?;
        Ok(renewed)
    }

    pub(super) async fn release_one(&self, lease: &Lease) -> sqlx::Result<bool> {
        let mut transaction = self.begin().await?;
        let uptime = self.clock.uptime();
        let released = leases::release(transaction.connection(), lease, uptime).await?;
        transaction.commit().await?;
        Ok(released)
    }
}

/// Whether an error of a group may be of one of its partitions alone.
fn is_of_one(error: &StoreError, group: usize) -> bool {
    group > 1 && error.kind() == StoreErrorKind::Refused
}

fn only<R>(answers: sqlx::Result<Vec<R>>) -> Result<R, StoreError> {
    let answer = answers.map(|answers| answers.into_iter().next());
    let answer = answer.and_then(|answer| answer.ok_or(sqlx::Error::RowNotFound));
    answer.map_err(store_error)
}
