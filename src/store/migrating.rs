//! `MigratingStore`: a running site moves from one store to another.

mod feed;
mod fence;
mod mover;
mod number;
mod split;
mod stores;

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

pub use self::mover::{Mover, Progress};
use self::split::{Place, Split};
use self::stores::{Stores, is_absent};
use super::{
    Cleared, Commit, CommitId, Feed, Lease, LeaseState, Listed, Loaded, Movable, Origin, Outcome,
    PartitionId, Raise, Remaining, Revision, TokenStore,
};
use crate::error::{StoreError, StoreErrorKind};
use crate::patience::answered;
use crate::time::Clock;

/// Two stores of which each partition is in one: it begins in the old one and moves to the new one, without a sign-out.
///
/// ```
/// use tower_token_cache::store::MigratingStore;
/// use tower_token_cache::{MemoryStore, TokenCache};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (old, new) = (MemoryStore::new(), MemoryStore::new());
/// let store = MigratingStore::following(old, new);
/// let cache = TokenCache::builder(store).build()?;
/// # drop(cache);
/// # Ok(())
/// # }
/// ```
///
/// # Steps
///
/// Each step is an ordinary rolling deployment, and each can be taken back, until the next one has begun.
///
/// 1. All instances take [`following`](Self::following): they work on the old store, and follow each partition that
///    another instance has moved.
/// 2. All instances take [`moving`](Self::moving): a partition moves when it is next changed, and new ones begin in
///    the new store. A [`mover`](Self::mover) moves the rest.
/// 3. Once the mover says that it is [done](Progress::done), all instances take the new store alone.
///
/// A site can move back in the same way, or on to a third store, once all instances are at step 3: what a store has of an
/// earlier move away from it does not count. Not while instances of the move before still run.
///
/// The new store begins without records of the namespace. An instance that has run on it alone, be it for a moment and without
/// users, has left one: the number that signs out everybody. With it every session of the old store would be over. So
/// where both stores have a number, and not the same, all that needs it is [`Refused`](StoreErrorKind::Refused), with the
/// reason, until the new store is emptied of the namespace. Nobody is signed out meanwhile; the first instance of step 1 is not
/// [ready](crate::TokenCache::check). Try the new store under another namespace. An instance that has
/// seen the stores agree goes on with the number of the new one, and logs a `WARN`.
///
/// A site that can stop begins with step 2: stop all instances, and start them with `moving`.
///
/// Namespace and key ring stay as they are. A ring in the old store has to be copied before step 1: add
/// what `KeyRepository::list` of the old store returns to that of the new one, and open the ring there. The journal is
/// kept.
///
/// # What holds
///
/// At every time one of the two stores decides on a partition. The old one does so until it has a *fence*: the
/// tombstone of a sign-out with an id that says that the partition has moved. The fence is set by
/// compare-and-set, only if the partition is still as it was copied; the copy has been put aside in the new store
/// before. So
///
/// - two instances that move a partition at once move it once, and no change that either has acknowledged is lost;
/// - after a crash at any point, the old store still decides, or any instance finishes the move with what was put aside;
/// - sign-outs hold before, during and after the move: tombstones, generations, and the numbers that sign out users or
///   everybody move as partitions do, with the time that they are kept;
/// - lives, versions, ids of commits, ends and ages are the same after the move, so that a repeated commit is not applied
///   twice, and no session lives longer;
/// - what has ended in the new store does not come back from the old one;
/// - a move is no use of a session, and a use just while it is copied may not count;
/// - leases are taken in both stores, so that instances of any two steps that follow each other keep each other from
///   acquiring the same token.
///
/// All this holds between instances of steps that follow each other: of the old store alone and step 1, of steps 1
/// and 2, of step 2 and the new store alone. **Between the old store alone and step 2** (a deployment that leaves step 1
/// out, or an instance that was forgotten) less holds. To the instance on the old store alone, a partition that
/// has moved is signed out: its user has to sign in again there. It never uses a token that has been replaced, and
/// no change of its own to what has moved is acknowledged. But a sign-out there of what has moved does not reach the new
/// store, nor does a sign-out of a user or of everybody once that number has moved.
///
/// # What it costs
///
/// A read asks the new store, and then the old one for what the new one does not have. A change asks where the partition is,
/// one round-trip. A move takes six round-trips, once. What the new store has no room for stays in the old one: it can be read
/// and signed out there by instances of step 1, and its changes in step 2 are [`TooLarge`](StoreErrorKind::TooLarge). Each session that begins in step 2 leaves a tombstone of some 400 bytes
/// in the old store for a day. A copy that a crash leaves aside stays in the new store for as long as its session would have
/// lived, also past its sign-out: it is under no key that is read, and as sealed as all else. When either store is away, so is this one: step 1 shows how good the new one is, before anything
/// depends on what is in it. The [feed](TokenStore::feed) needs that of both.
pub struct MigratingStore<O, N> {
    stores: Arc<Stores<O, N>>,
    moves: bool,
}

impl<O: Movable, N: Movable> MigratingStore<O, N> {
    /// Works on the old store, and on the new one for what has moved. The first step.
    pub fn following(old: O, new: N) -> Self {
        let clock = Clock::system();
        let stores = Arc::new(Stores {
            old,
            new,
            clock,
            agreed: number::Agreed::default(),
        });
        let moves = false;
        Self { stores, moves }
    }

    /// Moves what is changed, and begins what is new in the new store. The second step.
    pub fn moving(old: O, new: N) -> Self {
        let moves = true;
        Self {
            moves,
            ..Self::following(old, new)
        }
    }

    /// Moves the partitions of this [namespace](crate::Builder::namespace) that no request comes for. All instances must
    /// be at step 1 by then, and all at step 2 before it can be done.
    pub fn mover(&self, namespace: impl Into<String>) -> Mover<O, N>
    where
        O: Listed,
    {
        Mover::new(self.stores.clone(), namespace.into())
    }

    fn old(&self) -> &O {
        &self.stores.old
    }

    fn new_store(&self) -> &N {
        &self.stores.new
    }

    /// Does one thing in the store that decides on a partition. The fence may come between the look and the act: then
    /// what was done in the old store does not count, and is done in the new one.
    async fn where_it_is<R: Send>(
        &self,
        id: &PartitionId,
        in_old: impl Future<Output = Result<R, StoreError>> + Send,
        in_new: impl Future<Output = Result<R, StoreError>> + Send,
    ) -> Result<R, StoreError> {
        if self.stores.home(id, self.moves).await? == Place::Old {
            let answer = in_old.await?;
            if !self.stores.has_moved(id).await? {
                return Ok(answer);
            }
        }
        in_new.await
    }
}

impl<O: Movable, N: Movable> TokenStore for MigratingStore<O, N> {
    fn is_persistent(&self) -> bool {
        self.old().is_persistent() || self.new_store().is_persistent()
    }

    async fn load(&self, group: &[PartitionId]) -> Vec<Result<Loaded, StoreError>> {
        let mut answers = self.new_store().load(group).await;
        answered();
        for (id, answer) in group.iter().zip(&mut answers) {
            // Of a move away from the new store, in the past.
            if matches!(answer, Ok(it) if fence::is_fence(id, it.commit)) {
                *answer = Ok(Loaded::default());
            }
        }
        let is_missing = |it: &Result<Loaded, _>| matches!(it, Ok(it) if is_absent(&it.revision()));
        let missing = split::positions(&answers, is_missing);
        let ids = split::pick(group, &missing);
        let loaded = match ids.is_empty() {
            true => Vec::new(),
            false => self.old().load(&ids).await,
        };
        for ((at, id), loaded) in missing.into_iter().zip(&ids).zip(loaded) {
            let answer = match loaded {
                Ok(loaded) if fence::is_fence(id, loaded.commit) => {
                    self.stores.load_moved(id).await
                }
                // What is damaged in the new store is said where the old one has nothing.
                Ok(loaded) if is_absent(&loaded.revision()) && loaded.damaged == 0 => {
                    continue;
                }
                other => other,
            };
            answers[at] = answer;
        }
        answers
    }

    /// Both servers of a partition can keep it waiting.
    fn server(&self, partition: &PartitionId) -> usize {
        let (old, new) = (
            self.old().server(partition),
            self.new_store().server(partition),
        );
        old.wrapping_mul(1 << 16).wrapping_add(new)
    }

    async fn revisions(&self, group: &[PartitionId]) -> Vec<Result<Revision, StoreError>> {
        let looked = self.stores.look(group).await;
        looked
            .into_iter()
            .map(|it| it.map(|it| it.revision))
            .collect()
    }

    async fn commit(&self, group: &[Commit]) -> Vec<Result<Outcome, StoreError>> {
        let ids: Vec<_> = group
            .iter()
            .map(|commit| commit.partition.clone())
            .collect();
        let mut split = Split::new(self.stores.homes(&ids, self.moves).await);
        let [in_old, in_new] = split.of(group);
        split.answers(Place::New, self.new_store().commit(&in_new).await);
        split.answers(Place::Old, self.old().commit(&in_old).await);
        let is_stale = |outcome: &Outcome| matches!(outcome, Outcome::Stale { .. });
        for at in split.answered_by_old(is_stale) {
            let again = match self.stores.has_moved(&ids[at]).await {
                Ok(false) => continue,
                Ok(true) => split::first(self.new_store().commit(&group[at..=at]).await),
                Err(error) => Err(error),
            };
            split.answer(at, again);
        }
        split.finish()
    }

    async fn touch(&self, group: &[PartitionId]) -> Vec<Result<Remaining, StoreError>> {
        let moves = false;
        let mut split = Split::new(self.stores.homes(group, moves).await);
        let [in_old, in_new] = split.of(group);
        split.answers(Place::New, self.new_store().touch(&in_new).await);
        split.answers(Place::Old, self.old().touch(&in_old).await);
        for at in split.answered_by_old(|remaining| *remaining == Remaining::default()) {
            let again = match self.stores.has_moved(&group[at]).await {
                Ok(false) => continue,
                Ok(true) => split::first(self.new_store().touch(&group[at..=at]).await),
                Err(error) => Err(error),
            };
            split.answer(at, again);
        }
        split.finish()
    }

    async fn clear(
        &self,
        partition: &PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> Result<Cleared, StoreError> {
        let in_old = self.stores.clear_in_old(partition, expected, id);
        let in_new = self.new_store().clear(partition, expected, id);
        self.where_it_is(partition, in_old, in_new).await
    }

    async fn raise(
        &self,
        partition: &PartitionId,
        raise: Raise,
        keep: Option<Duration>,
    ) -> Result<u64, StoreError> {
        let in_old = self.old().raise(partition, raise, keep);
        let in_new = self.new_store().raise(partition, raise, keep);
        self.where_it_is(partition, in_old, in_new).await
    }

    fn feed(&self, namespace: &str) -> Option<Feed> {
        let (old, new) = (
            self.old().feed(namespace)?,
            self.new_store().feed(namespace)?,
        );
        Some(feed::merge(old, new))
    }

    async fn relocate(&self, from: &Origin, commit: &Commit) -> Result<Outcome, StoreError> {
        if from.partition == commit.partition {
            return Err(StoreError::new(StoreErrorKind::Refused));
        }
        let both = [from.partition.clone(), commit.partition.clone()];
        let mut homes = self.stores.homes(&both, self.moves).await.into_iter();
        let homes = [split::next(&mut homes)?, split::next(&mut homes)?];
        if homes == [Place::Old, Place::Old] {
            let outcome = self.old().relocate(from, commit).await?;
            let has_moved = match outcome {
                Outcome::Committed { .. } => false,
                _ => {
                    self.stores.has_moved(&both[0]).await?
                        || self.stores.has_moved(&both[1]).await?
                }
            };
            if !has_moved {
                return Ok(outcome);
            }
        }
        let moves = true;
        for home in self.stores.homes(&both, moves).await {
            home?;
        }
        self.new_store().relocate(from, commit).await
    }

    fn identity(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (
            self.old().identity(),
            self.new_store().identity(),
            self.moves,
        )
            .hash(&mut hasher);
        hasher.finish()
    }

    /// In the old store first, where instances of the first step look, too.
    async fn acquire_lease(&self, lease: &Lease, ttl: Duration) -> Result<LeaseState, StoreError> {
        let first = self.old().acquire_lease(lease, ttl).await?;
        if first != LeaseState::Granted {
            return Ok(first);
        }
        let second = self.new_store().acquire_lease(lease, ttl).await;
        if !matches!(second, Ok(LeaseState::Granted)) {
            // One that cannot be released runs out.
            let _ = self.old().release_lease(lease).await;
        }
        second
    }

    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        Ok(self.old().renew_lease(lease, ttl).await?
            && self.new_store().renew_lease(lease, ttl).await?)
    }

    async fn release_lease(&self, lease: &Lease) -> Result<bool, StoreError> {
        let second = self.new_store().release_lease(lease).await;
        Ok(self.old().release_lease(lease).await? & second?)
    }
}

/// Clones share the stores.
impl<O, N> Clone for MigratingStore<O, N> {
    fn clone(&self) -> Self {
        let (stores, moves) = (self.stores.clone(), self.moves);
        Self { stores, moves }
    }
}

impl<O, N> fmt::Debug for MigratingStore<O, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MigratingStore")
            .field("moves", &self.moves)
            .finish_non_exhaustive()
    }
}
