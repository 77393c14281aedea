//! Which of the two stores decides on a partition, and how that changes.

use futures_util::future::join_all;

use super::fence::{self, Fence};
use super::number::{Agreed, is_number};
use super::split::{Place, first, pick, positions};
use crate::error::{StoreError, StoreErrorKind};
use crate::patience::answered;
use crate::store::{Cleared, CommitId, Loaded, Movable, Origin, PartitionId, Portable, Revision};
use crate::time::{Clock, Now};

/// How often a move begins again because the partition was changed meanwhile.
const ATTEMPTS: u32 = 32;
/// Moves of a group at a time.
const AT_A_TIME: usize = 32;

pub(super) struct Stores<O, N> {
    pub(super) old: O,
    pub(super) new: N,
    /// Says how much time passes between the two.
    pub(super) clock: Clock,
    pub(super) agreed: Agreed,
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
        answered();
        let mut looks: Vec<_> = found.map(|revision| revision.map(in_new)).collect();
        for (id, look) in ids.iter().zip(&mut looks) {
            let revision = look.as_ref().ok().map(|look| look.revision);
            if let Some(fence) = revision.and_then(|it| Fence::read(id, it.commit)) {
                // Rare, and large.
                *look = Box::pin(self.without_fence(id, fence)).await.map(in_new);
            } else if let Some(revision) = revision.filter(|_| is_number(id))
                && let Err(error) = Box::pin(self.check_number(id, &revision)).await
            {
                *look = Err(error);
            }
        }
        let is_missing =
            |look: &Result<Look, _>| matches!(look, Ok(look) if is_absent(&look.revision));
        let missing = positions(&looks, is_missing);
        if missing.is_empty() {
            return looks;
        }
        let revisions = self.old.revisions(&pick(ids, &missing)).await;
        answered();
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

    /// A fence in the new store is of a move away from it, of the past: nothing of it counts any more.
    async fn without_fence(&self, id: &PartitionId, fence: Fence) -> Result<Revision, StoreError> {
        self.new.remove(id, fence.id()).await?;
        first(self.new.revisions(std::slice::from_ref(id)).await)
    }

    /// The number of the new store must not be one that the users of the old one do not have.
    async fn check_number(&self, id: &PartitionId, in_new: &Revision) -> Result<(), StoreError> {
        if is_absent(in_new) {
            return Ok(());
        }
        let in_old = first(self.old.revisions(std::slice::from_ref(id)).await)?;
        self.agreed.check(id, &in_old, in_new)
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
            let asked = self.clock.read();
            let found = self.old.export(id).await?;
            answered();
            let Some(found) = found else {
                let fence = Fence::of(id, &Portable::default());
                let nothing = Origin::new(id.clone(), 0, 0);
                if self.old.withdraw(&nothing, fence.id()).await? {
                    return Ok(false);
                }
                continue;
            };
            if let Some(fence) = Fence::read(id, found.recent.last().copied()) {
                self.finish(id, fence).await?;
                return Ok(false);
            }
            let fence = Fence::of(id, &found);
            let (aside, origin) = (fence.aside(id), found.origin(id.clone()));
            let last = found.recent.last().copied();
            if !self.copy(&aside, found, asked).await? {
                continue;
            }
            answered();
            let withdrawn = self.old.withdraw(&origin, fence.id()).await?;
            answered();
            if withdrawn {
                self.finish(id, fence).await?;
                return Ok(true);
            }
            self.discard(&aside, last).await;
        }
        Err(StoreError::new(StoreErrorKind::Timeout))
    }

    /// Puts a copy into the new store that was asked for at this time: it lives no longer than what was copied. `false`
    /// where it has ended since.
    async fn copy(&self, to: &PartitionId, copy: Portable, asked: Now) -> Result<bool, StoreError> {
        let had_ended = copy.has_ended();
        let copy = copy.later(self.clock.read().moment.since(asked.moment));
        if copy.has_ended() && !had_ended {
            return Ok(false);
        }
        self.new.adopt(to, &copy).await.map(|_| true)
    }

    /// Puts what was put aside in its place. All who find the fence may do it, and one of them does.
    async fn finish(&self, id: &PartitionId, fence: Fence) -> Result<(), StoreError> {
        let (aside, asked) = (fence.aside(id), self.clock.read());
        let copy = self.new.export(&aside).await?;
        answered();
        // Nothing is there where another has finished.
        if let Some(copy) = copy {
            let last = copy.recent.last().copied();
            self.copy(id, copy, asked).await?;
            answered();
            self.discard(&aside, last).await;
        }
        Ok(())
    }

    /// Removes a copy of which this is the last id. One that cannot be removed ends when its session would have ended.
    async fn discard(&self, aside: &PartitionId, last: Option<CommitId>) {
        if let Some(last) = last {
            let _ = self.new.remove(aside, last).await;
        }
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
