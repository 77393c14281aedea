//! Moves over compare-and-set.
//!
//! Both partitions are read. The old one is signed out as it was read, so that no commit to it is lost, and no value is
//! both taken and moved; then the new one is written. The old one goes first: a failure in between ends the session
//! rather than leave it with two names. Its tombstone remembers the move, so that it can be repeated.

use bytes::Bytes;
use futures_util::future::join;

use super::{CasStore, blob, keys};
use crate::error::{StoreError, StoreErrorKind};
use crate::store::partition::Partition;
use crate::store::retries::Retries;
use crate::store::{Commit, Origin, Outcome, PartitionId};
use crate::time::{Clock, Timestamp};

/// What makes a move.
pub(super) struct Move<'a, C> {
    pub(super) store: &'a C,
    pub(super) clock: &'a Clock,
}

/// A partition as it was read, to be written if it is still so.
struct Read<R> {
    key: String,
    found: Option<(Bytes, R)>,
    partition: Option<Partition>,
}

impl<R> Read<R> {
    /// The blob of the partition as it is now; `None` where that is what was read.
    fn changed(&self) -> Option<Bytes> {
        let next = blob::write(self.partition.as_ref()?);
        let found = self.found.as_ref();
        found
            .is_none_or(|(bytes, _)| *bytes != next)
            .then_some(next)
    }
}

impl<C: CasStore> Move<'_, C> {
    /// Makes it. It begins anew while other changes are faster.
    pub(super) async fn make(&self, from: &Origin, commit: &Commit) -> Result<Outcome, StoreError> {
        if from.partition == commit.partition {
            return Err(StoreError::new(StoreErrorKind::Refused));
        }
        let mut retries = Retries::new();
        loop {
            let (old, new) = join(self.read(&from.partition), self.read(&commit.partition)).await;
            let (mut old, mut new, now) = (old?, new?, self.clock.now());
            let outcome = Partition::commit(&mut new.partition, commit, true, now);
            let (Outcome::Committed { .. }, Some(written)) = (&outcome, new.changed()) else {
                return Ok(outcome);
            };
            // Where the generation has risen the sign-out changes nothing, and says whether this move was why.
            let record = old.partition.as_ref().map(|partition| &partition.record);
            let risen = record.is_some_and(|record| record.generation > from.generation);
            if !(risen || from.unmoved(record, now)) {
                return Ok(Outcome::Conflict);
            }
            let ended = Some(from.generation);
            if !Partition::clear(&mut old.partition, ended, commit.id, now).ended {
                return Ok(Outcome::Conflict);
            }
            if let Some(cleared) = old.changed() {
                if !self.store.takes(&new.key, written.len()).await? {
                    return Err(StoreError::new(StoreErrorKind::TooLarge));
                }
                if !self.put(&old, cleared, now).await? {
                    retries.pause().await?;
                    continue;
                }
            }
            if self.put(&new, written, now).await? {
                return Ok(outcome);
            }
            retries.pause().await?;
        }
    }

    async fn read(&self, id: &PartitionId) -> Result<Read<C::Revision>, StoreError> {
        let key = keys::of_partition(id);
        let found = self.store.get(&key).await?;
        let now = self.clock.now();
        let partition = found.as_ref().and_then(|(bytes, _)| blob::read(bytes));
        Ok(Read {
            key,
            partition: partition.filter(|partition| !partition.record.is_absent(now)),
            found,
        })
    }

    async fn put(
        &self,
        read: &Read<C::Revision>,
        next: Bytes,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let record = read.partition.as_ref().map(|partition| &partition.record);
        let keep = record.and_then(|record| record.keep(now));
        let revision = read.found.as_ref().map(|(_, revision)| revision);
        self.store.put(&read.key, next, revision, keep).await
    }
}
