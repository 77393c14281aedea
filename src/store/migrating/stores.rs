//! Which of the two stores decides on a partition, and how that changes.

use std::time::Duration;

use futures_util::future::join_all;

use super::fence::{self, Fence};
use super::split::{Place, first, pick, positions};
use crate::error::{StoreError, StoreErrorKind};
use crate::store::{
    Change, Cleared, Commit, CommitId, Loaded, Movable, Origin, PartitionId, Portable, Revision,
};

/// How often a move begins again because the partition was changed meanwhile.
const ATTEMPTS: u32 = 32;
/// Moves of a group at a time.
const AT_A_TIME: usize = 32;
/// Lifetimes of zero are none: what is to be forgotten lives for this long.
const SHORTEST: Duration = Duration::from_millis(1);

pub(super) struct Stores<O, N> {
    pub(super) old: O,
    pub(super) new: N,
}

/// Where a partition is, and as what.
#[derive(Clone, Copy)]
pub(super) struct Look {
    pub(super) place: Place,
    pub(super) revision: Revision,
}

/// Whether a store has nothing, not even a tombstone.
pub(super) fn is_absent(revision: &Revision) -> bool {
    *revision == Revision::default()
}

impl<O: Movable, N: Movable> Stores<O, N> {
    /// Where these partitions are. What neither store has is in the old one. The new one has none that is not behind a
    /// fence, so that what it has needs no look at the old one.
    pub(super) async fn look(&self, ids: &[PartitionId]) -> Vec<Result<Look, StoreError>> {
        let in_new = |revision| Look {
            place: Place::New,
            revision,
        };
        let found = self.new.revisions(ids).await.into_iter();
        let mut looks: Vec<_> = found.map(|revision| revision.map(in_new)).collect();
        let is_missing =
            |look: &Result<Look, _>| matches!(look, Ok(look) if is_absent(&look.revision));
        let missing = positions(&looks, is_missing);
        if missing.is_empty() {
            return looks;
        }
        let revisions = self.old.revisions(&pick(ids, &missing)).await;
        for (at, revision) in missing.into_iter().zip(revisions) {
            // What is boxed is rare, and large.
            looks[at] = match revision.map(|it| (Fence::read(&ids[at], it.commit), it)) {
                Ok((Some(fence), _)) => Box::pin(self.look_behind(&ids[at], fence)).await,
                Ok((None, revision)) => Ok(Look {
                    place: Place::Old,
                    revision,
                }),
                Err(error) => Err(error),
            };
        }
        looks
    }

    async fn look_behind(&self, id: &PartitionId, fence: Fence) -> Result<Look, StoreError> {
        self.finish(id, fence).await?;
        let revision = first(self.new.revisions(std::slice::from_ref(id)).await)?;
        let place = Place::New;
        Ok(Look { place, revision })
    }

    /// Which store decides on each of these partitions: the new one for all, if they are to be moved.
    pub(super) async fn homes(
        &self,
        ids: &[PartitionId],
        move_them: bool,
    ) -> Vec<Result<Place, StoreError>> {
        let looks = self.look(ids).await;
        let mut homes: Vec<_> = looks
            .into_iter()
            .map(|look| look.map(|it| it.place))
            .collect();
        if move_them {
            let to_move = positions(&homes, |home| matches!(home, Ok(Place::Old)));
            for some in to_move.chunks(AT_A_TIME) {
                let moved = join_all(some.iter().map(|at| self.bring(&ids[*at]))).await;
                for (at, moved) in some.iter().zip(moved) {
                    homes[*at] = moved.map(|_| Place::New);
                }
            }
        }
        homes
    }

    pub(super) async fn home(&self, id: &PartitionId, move_it: bool) -> Result<Place, StoreError> {
        first(self.homes(std::slice::from_ref(id), move_it).await)
    }

    /// Whether there is a fence; then the move is finished.
    pub(super) async fn has_moved(&self, id: &PartitionId) -> Result<bool, StoreError> {
        let revision = first(self.old.revisions(std::slice::from_ref(id)).await)?;
        match Fence::read(id, revision.commit) {
            // Rare, and large.
            Some(fence) => Box::pin(self.finish(id, fence)).await.map(|()| true),
            None => Ok(false),
        }
    }

    /// What the new store has of a partition behind a fence.
    pub(super) async fn load_moved(&self, id: &PartitionId) -> Result<Loaded, StoreError> {
        self.has_moved(id).await?;
        first(self.new.load(std::slice::from_ref(id)).await)
    }

    /// Moves a partition: from here on the new store decides. Whether there was something to move.
    pub(super) async fn bring(&self, id: &PartitionId) -> Result<bool, StoreError> {
        for _ in 0..ATTEMPTS {
            let found = self.old.export(id).await?;
            let last = found.as_ref().and_then(|found| found.recent.last());
            if let Some(fence) = Fence::read(id, last.copied()) {
                self.finish(id, fence).await?;
                return Ok(false);
            }
            let is_there = found.is_some();
            let found = found.unwrap_or_default();
            let fence = Fence::of(id, &found);
            let aside = fence.aside(id);
            if is_there {
                self.new.adopt(&aside, &found).await?;
            }
            let origin = match is_there {
                true => found.origin(id.clone()),
                false => Origin::new(id.clone(), 0, 0),
            };
            if self.old.withdraw(&origin, fence.id()).await? {
                if is_there {
                    self.finish(id, fence).await?;
                }
                return Ok(is_there);
            }
            if is_there {
                self.discard(&aside, &found).await;
            }
        }
        Err(StoreError::new(StoreErrorKind::Timeout))
    }

    /// Puts what was put aside in its place. All who find the fence may do it, and one of them does.
    async fn finish(&self, id: &PartitionId, fence: Fence) -> Result<(), StoreError> {
        let aside = fence.aside(id);
        // Nothing is there where another has finished.
        if let Some(copy) = self.new.export(&aside).await? {
            self.new.adopt(id, &copy).await?;
            self.discard(&aside, &copy).await;
        }
        Ok(())
    }

    /// Forgets a copy. One that cannot be forgotten ends when its session would have ended.
    async fn discard(&self, aside: &PartitionId, copy: &Portable) {
        if copy.has_ended() {
            return;
        }
        let id = Fence::of(aside, copy).id();
        let mut commit = Commit::new(aside.clone(), id, copy.generation);
        let entries = copy.entries.iter();
        commit.changes = entries.map(|it| Change::new(it.entry, None)).collect();
        commit.lifetime.since_write = Some(SHORTEST);
        commit.life = copy.recent.first().copied();
        let _ = self.new.commit(&[commit]).await;
    }

    /// A sign-out in the old store. One that expects nothing must not replace a fence that comes at this moment.
    pub(super) async fn clear_in_old(
        &self,
        partition: &PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> Result<Cleared, StoreError> {
        if expected.is_some() {
            return self.old.clear(partition, expected, id).await;
        }
        for _ in 0..ATTEMPTS {
            let found = self.old.export(partition).await?.unwrap_or_default();
            let generation = found.generation;
            let is_repeated = found.recent.contains(&id);
            if is_repeated || fence::is_fence(partition, found.recent.last().copied()) {
                return Ok(Cleared::new(generation, is_repeated));
            }
            if self
                .old
                .withdraw(&found.origin(partition.clone()), id)
                .await?
            {
                return Ok(Cleared::new(generation.saturating_add(1), true));
            }
        }
        Err(StoreError::new(StoreErrorKind::Timeout))
    }
}
