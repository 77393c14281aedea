//! `SqlStore`: an L2 in PostgreSQL, MySQL or MariaDB.
//!
//! A change reads the partitions and their stamps, applies the contract in this process, as `MemoryStore` does, and
//! writes the difference where the stamps are still the same. So no lock is held while an instance thinks or stands
//! still, and dialects have statements only.

mod builder;
mod changes;
mod dialect;
mod failure;
mod handle;
#[cfg(feature = "seal")]
mod keys;
mod lease_groups;
mod leases;
mod movable;
#[cfg(feature = "mysql")]
mod mysql;
mod operations;
mod plan;
#[cfg(feature = "postgres")]
mod postgres;
mod sweep;
mod tables;
mod url;

use std::time::Duration;

pub use self::builder::SqlStoreBuilder;
use self::dialect::Dialect;
pub use self::handle::SqlStore;
#[cfg(feature = "seal")]
pub use self::keys::SqlKeys;
use self::leases::{Acquire, Release};
#[cfg(all(feature = "mysql", feature = "__tests"))]
pub use self::mysql::Numbers;
#[cfg(feature = "mysql")]
pub use self::mysql::{MySql, MySqlStore};
use self::operations::Attempts;
#[cfg(feature = "postgres")]
pub use self::postgres::{Postgres, PostgresStore};
use super::found::{Depth, Found};
use super::partition::Partition;
use super::{
    Cleared, Commit, CommitId, Feed, Lease, LeaseState, Loaded, Origin, Outcome, PartitionId,
    Raise, Remaining, Revision, TokenStore,
};
use crate::error::{StoreError, StoreErrorKind};
use crate::time::Timestamp;

impl<D: Dialect> SqlStore<D> {
    /// Makes the tables, or brings those of an earlier version up to date; what is in them stays. Instances may do so
    /// at the same time. An instance of the earlier version makes no connection after that. What is there is not waited for:
    /// each instance can call this when it starts. Where something is to be made in PostgreSQL, a table that others hold,
    /// as a backup does, is waited for no longer than a second, because all who come after wait, too: call it again then.
    ///
    /// It needs the right to create tables. Where only a DBA has that, [`statements`](Self::statements) are for
    /// them, and this is not called.
    ///
    /// # Errors
    /// [`StoreError`], with what the database says as its source.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        self.make_tables().await
    }

    /// What [`migrate`](Self::migrate) runs, statement by statement, to be shown to a DBA or put among an
    /// application's own migrations.
    pub fn statements(&self) -> Vec<String> {
        self.dialect.statements()
    }

    /// Answers of a group that was read together.
    async fn read_group<R: Clone>(
        &self,
        group: &[PartitionId],
        depth: Depth,
        answer: impl Fn(&Found, Timestamp) -> R,
    ) -> Vec<Result<R, StoreError>> {
        if group.is_empty() {
            return Vec::new();
        }
        let ids: Vec<_> = group.iter().collect();
        match self.read(&ids, depth).await {
            Ok((now, found)) => found.iter().map(|it| Ok(answer(it, now))).collect(),
            Err(error) => vec![Err(error); group.len()],
        }
    }
}

impl<D: Dialect> TokenStore for SqlStore<D> {
    fn identity(&self) -> u64 {
        self.dialect.identity()
    }

    async fn load(&self, group: &[PartitionId]) -> Vec<Result<Loaded, StoreError>> {
        self.read_group(group, Depth::Values, Found::loaded).await
    }

    async fn revisions(&self, group: &[PartitionId]) -> Vec<Result<Revision, StoreError>> {
        let revision = |found: &Found, _| found.revision();
        self.read_group(group, Depth::Record, revision).await
    }

    async fn commit(&self, group: &[Commit]) -> Vec<Result<Outcome, StoreError>> {
        let ids: Vec<_> = group.iter().map(|commit| &commit.partition).collect();
        let answers = self.change(&ids, |at, stored, now| {
            Partition::commit(stored, &group[at], true, now)
        });
        let answers = answers.await;
        self.sweep_when_due();
        answers
    }

    async fn touch(&self, group: &[PartitionId]) -> Vec<Result<Remaining, StoreError>> {
        let ids: Vec<_> = group.iter().collect();
        let touch = |_: usize, stored: &mut Option<Partition>, now| {
            let touched = stored.as_mut().and_then(|partition| partition.touch(now));
            touched.unwrap_or_default()
        };
        self.change(&ids, touch).await
    }

    async fn clear(
        &self,
        partition: &PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> Result<Cleared, StoreError> {
        let clear = |stored: &mut _, now| Partition::clear(stored, expected, id, now);
        self.change_one(partition, clear).await
    }

    async fn raise(
        &self,
        partition: &PartitionId,
        raise: Raise,
        keep: Option<Duration>,
    ) -> Result<u64, StoreError> {
        let raise = |stored: &mut _, now| Partition::raise(stored, raise, keep, now);
        self.change_one(partition, raise).await
    }

    fn feed(&self, _: &str) -> Option<Feed> {
        // Rows do not say of which namespace they are: a hint too many does no harm.
        Some(D::feed(self.clone()))
    }

    async fn relocate(&self, from: &Origin, commit: &Commit) -> Result<Outcome, StoreError> {
        if from.partition == commit.partition {
            return Err(StoreError::new(StoreErrorKind::Refused));
        }
        self.relocate_together(from, commit).await
    }

    async fn acquire_lease(&self, lease: &Lease, ttl: Duration) -> Result<LeaseState, StoreError> {
        let lease = lease.clone();
        self.ask(Acquire { lease, ttl }).await
    }

    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        let mut attempts = Attempts::new();
        loop {
            let mut taken = self.take().await?;
            let asked = self.dialect.renew_lease(&mut taken.connection, lease, ttl);
            let answer = self.in_time(asked).await?;
            if let Some(answer) = self.settle(&mut attempts, taken, answer).await? {
                return Ok(answer);
            }
        }
    }

    async fn release_lease(&self, lease: &Lease) -> Result<bool, StoreError> {
        let lease = lease.clone();
        self.ask(Release { lease }).await
    }
}
