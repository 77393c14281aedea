//! One operation each, in a transaction of its own or with others.

use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Sqlite, Transaction};

use super::code::store_error;
use super::{SqliteStore, changes, leases, rows};
use crate::error::{StoreError, StoreErrorKind};
use crate::store::{
    Cleared, Commit, CommitId, Lease, LeaseState, Origin, Outcome, PartitionId, Raise, Remaining,
    Revision,
};

impl SqliteStore {
    /// Takes the write lock at once: a transaction that reads first could not be upgraded after
    /// another process has written.
    pub(super) async fn begin(&self) -> sqlx::Result<Transaction<'static, Sqlite>> {
        self.file.check()?;
        self.writer.begin_with("BEGIN IMMEDIATE").await
    }

    pub(super) async fn reader(&self) -> sqlx::Result<PoolConnection<Sqlite>> {
        self.file.check()?;
        self.readers.acquire().await
    }

    /// Applies these commits in one transaction: all or, on an error, none.
    pub(super) async fn commit_together(&self, group: &[Commit]) -> sqlx::Result<Vec<Outcome>> {
        let mut transaction = self.begin().await?;
        let now = self.clock.now();
        let mut outcomes = Vec::with_capacity(group.len());
        for commit in group {
            outcomes.push(changes::commit(&mut transaction, commit, true, now).await?);
        }
        transaction.commit().await?;
        self.sweep(now).await;
        Ok(outcomes)
    }

    pub(super) async fn commit_group(&self, group: &[Commit]) -> Vec<Result<Outcome, StoreError>> {
        let error = match self.commit_together(group).await {
            Ok(outcomes) => return outcomes.into_iter().map(Ok).collect(),
            Err(error) => store_error(error),
        };
        if group.len() < 2 || error.kind() != StoreErrorKind::Refused {
            return vec![Err(error); group.len()];
        }
        // One of them is refused, for its size or for a damaged page: the others must not suffer.
        let mut answers = Vec::with_capacity(group.len());
        for commit in group {
            let alone = self.commit_together(std::slice::from_ref(commit)).await;
            let outcome = alone.map_err(store_error);
            answers.push(outcome.and_then(|o| o.first().copied().ok_or_else(|| error.clone())));
        }
        answers
    }

    pub(super) async fn read_revisions(
        &self,
        group: &[PartitionId],
    ) -> sqlx::Result<Vec<Revision>> {
        let mut connection = self.reader().await?;
        let now = self.clock.now();
        let mut answers = Vec::with_capacity(group.len());
        for id in group {
            answers.push(rows::revision(&mut connection, id, now).await?);
        }
        Ok(answers)
    }

    pub(super) async fn touch_together(
        &self,
        group: &[PartitionId],
    ) -> sqlx::Result<Vec<Remaining>> {
        let mut transaction = self.begin().await?;
        let now = self.clock.now();
        let mut answers = Vec::with_capacity(group.len());
        for id in group {
            answers.push(changes::touch(&mut transaction, id, now).await?);
        }
        transaction.commit().await?;
        Ok(answers)
    }

    pub(super) async fn clear_one(
        &self,
        partition: &PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> sqlx::Result<Cleared> {
        let mut transaction = self.begin().await?;
        let now = self.clock.now();
        let cleared = changes::clear(&mut transaction, partition, expected, id, now).await?;
        transaction.commit().await?;
        self.scrubber.scrub().await;
        Ok(cleared)
    }

    pub(super) async fn raise_one(
        &self,
        partition: &PartitionId,
        raise: Raise,
        keep: Option<Duration>,
    ) -> sqlx::Result<u64> {
        let mut transaction = self.begin().await?;
        let now = self.clock.now();
        let raised = changes::raise(&mut transaction, partition, raise, keep, now).await?;
        transaction.commit().await?;
        Ok(raised)
    }

    pub(super) async fn relocate_one(
        &self,
        from: &Origin,
        commit: &Commit,
    ) -> sqlx::Result<Outcome> {
        let mut transaction = self.begin().await?;
        let now = self.clock.now();
        let outcome = changes::relocate(&mut transaction, from, commit, now).await?;
        transaction.commit().await?;
        self.scrubber.scrub().await;
        Ok(outcome)
    }

    pub(super) async fn acquire_one(
        &self,
        lease: &Lease,
        ttl: Duration,
    ) -> sqlx::Result<LeaseState> {
        let mut transaction = self.begin().await?;
        let state = leases::acquire(&mut transaction, lease, ttl, self.clock.uptime()).await?;
        transaction.commit().await?;
        self.sweep(self.clock.now()).await;
        Ok(state)
    }

    pub(super) async fn renew_one(&self, lease: &Lease, ttl: Duration) -> sqlx::Result<bool> {
        let mut transaction = self.begin().await?;
        let renewed = leases::renew(&mut transaction, lease, ttl, self.clock.uptime()).await?;
        transaction.commit().await?;
        Ok(renewed)
    }

    pub(super) async fn release_one(&self, lease: &Lease) -> sqlx::Result<bool> {
        let mut transaction = self.begin().await?;
        let released = leases::release(&mut transaction, lease, self.clock.uptime()).await?;
        transaction.commit().await?;
        Ok(released)
    }
}
