//! `CookieStore`: the engine's view of sessions in cookies.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::chunks::Chunks;
use super::sealer::Sealer;
use crate::error::{StoreError, StoreErrorKind};
use crate::store::{
    Change, Cleared, Commit, CommitId, DynStore, EntryId, Lease, LeaseState, Loaded, Origin,
    Outcome, PartitionId, Put, Raise, Remaining, Slots, TokenStore,
};
use crate::time::{Clock, Timestamp};

/// Keeps sessions in the browser's cookies; see the [module](super). Cheap to clone; clones share
/// everything.
///
/// To the engine it is a [`TokenStore`] that has what the requests under way have brought, and a
/// limited memory of what they have left: it keeps the contract until it forgets.
#[derive(Clone)]
pub struct CookieStore(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) slots: Slots,
    pub(super) sealer: Arc<Sealer>,
    pub(super) chunks: Arc<Chunks>,
    pub(super) max_size: usize,
    pub(super) max_age: Duration,
    pub(super) clock: Clock,
    pub(super) sign_outs: Option<Arc<dyn DynStore>>,
}

impl CookieStore {
    /// How long a session lives since it began, however it is used, unless
    /// [`layer_with`](Self::layer_with) says otherwise: 30 days. Whoever has copied cookies can
    /// renew them as their owner does; without
    /// [`sign_outs_in`](crate::cookie::CookieStoreBuilder::sign_outs_in) this is all that ends them.
    pub const MAX_SESSION_AGE: Duration = Duration::from_secs(30 * 24 * 3600);

    /// What is here, and from the fleet what is not. Of what is here the fleet is asked once whether
    /// it knows of a later sign-out than the cookies.
    async fn load_from(
        &self,
        store: &dyn DynStore,
        group: &[PartitionId],
    ) -> Vec<Result<Loaded, StoreError>> {
        let slots = &self.0.slots;
        let asks = |id: &PartitionId| !slots.holds(id) || slots.unverified(id).is_some();
        let asked = group.iter().enumerate().filter(|(_, id)| asks(id));
        let (places, asked): (Vec<_>, Vec<_>) = asked.map(|(at, id)| (at, id.clone())).unzip();
        let mut fleet = vec![None; group.len()];
        if !asked.is_empty() {
            let answers = store.load(&asked).await;
            for (at, answer) in places.into_iter().zip(answers) {
                fleet[at] = Some(answer);
            }
        }
        let answer = |(id, fleet): (&PartitionId, Option<Result<Loaded, _>>)| match fleet {
            Some(answer) if slots.holds(id) => {
                self.verify(id, answer?.generation);
                Ok(self.load_verified(id))
            }
            Some(answer) => answer,
            None => Ok(self.load_verified(id)),
        };
        group.iter().zip(fleet).map(answer).collect()
    }

    /// What a sign-out has left of older cookies: refused where the fleet knows of it.
    fn verify(&self, id: &PartitionId, known: u64) {
        let slots = &self.0.slots;
        if slots
            .unverified(id)
            .is_some_and(|generation| known > generation)
        {
            slots.clear(id, Some(known - 1), CommitId::default());
        }
    }

    /// What is here, which nothing speaks against.
    fn load_verified(&self, id: &PartitionId) -> Loaded {
        self.0.slots.verify(id);
        self.0.slots.load(id)
    }

    /// Tells the fleet that a session was signed out to this generation, or signs it out there
    /// when it is not known here.
    async fn publish(
        &self,
        store: &dyn DynStore,
        partition: &PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> Result<Cleared, StoreError> {
        let cleared = store.clear(partition, expected, id).await?;
        // A tombstone does not live for as long as cookies do.
        let put = Put::new(&b"signed out"[..], None);
        let id = CommitId(getrandom::u64().unwrap_or_default().to_be_bytes());
        let mut mark = Commit::new(partition.clone(), id, cleared.generation);
        mark.changes = vec![Change::new(EntryId::from([0; 16]), Some(put))];
        // The clocks of who sets a cookie, of who reads it and of this store differ.
        mark.lifetime.since_write = Some(self.0.max_age.saturating_add(3 * SKEW));
        match store.commit(&[mark]).await.pop() {
            Some(Err(error)) => Err(error),
            _ => Ok(cleared),
        }
    }
}

/// By how much clocks of instances may differ.
pub(super) const SKEW: Duration = Duration::from_secs(300);

impl Inner {
    /// Whether cookies that were set then are good now.
    pub(super) fn is_recent(&self, issued_at: Timestamp, now: Timestamp) -> bool {
        issued_at <= now.saturating_add(SKEW) && now < issued_at.saturating_add(self.max_age)
    }
}

impl TokenStore for CookieStore {
    /// Cookies leave it sealed.
    fn is_persistent(&self) -> bool {
        false
    }

    async fn load(&self, group: &[PartitionId]) -> Vec<Result<Loaded, StoreError>> {
        match &self.0.sign_outs {
            None => group.iter().map(|id| Ok(self.load_verified(id))).collect(),
            Some(store) => self.load_from(&**store, group).await,
        }
    }

    fn server(&self, partition: &PartitionId) -> usize {
        let store = self.0.sign_outs.as_ref();
        store.map_or(0, |store| store.server(partition))
    }

    async fn commit(&self, group: &[Commit]) -> Vec<Result<Outcome, StoreError>> {
        let mut answers = Vec::with_capacity(group.len());
        for commit in group {
            answers.push(match &self.0.sign_outs {
                // No session: what links users to theirs.
                Some(store) if !self.0.slots.holds(&commit.partition) => {
                    let mut answer = store.commit(std::slice::from_ref(commit)).await;
                    answer.pop().unwrap_or_else(|| Err(refused()))
                }
                _ => Ok(self.0.slots.commit(commit)),
            });
        }
        answers
    }

    async fn touch(&self, group: &[PartitionId]) -> Vec<Result<Remaining, StoreError>> {
        let touched = group.iter().map(|id| Ok(self.0.slots.touch(id)));
        touched.collect()
    }

    async fn clear(
        &self,
        partition: &PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> Result<Cleared, StoreError> {
        let clear = |expected| self.0.slots.clear(partition, expected, id);
        let here = self.0.slots.holds(partition).then(|| clear(expected));
        let Some(store) = &self.0.sign_outs else {
            return Ok(here.unwrap_or_else(|| clear(expected)));
        };
        let before = match here {
            Some(here) => here.generation.checked_sub(1),
            None => expected,
        };
        let known = self.publish(&**store, partition, before, id).await?;
        let latest = clear(known.generation.checked_sub(1));
        Ok(Cleared {
            generation: latest.generation,
            ended: known.ended || here.is_some_and(|here| here.ended),
        })
    }

    async fn raise(
        &self,
        partition: &PartitionId,
        raise: Raise,
        keep: Option<Duration>,
    ) -> Result<u64, StoreError> {
        match &self.0.sign_outs {
            Some(store) => store.raise(partition, raise, keep).await,
            // Of this process alone, as its sign-outs.
            None => Ok(self.0.slots.raise(partition, raise, keep)),
        }
    }

    async fn relocate(&self, from: &Origin, commit: &Commit) -> Result<Outcome, StoreError> {
        let outcome = self.0.slots.relocate(from, commit);
        outcome.ok_or_else(refused)
    }

    async fn acquire_lease(&self, lease: &Lease, ttl: Duration) -> Result<LeaseState, StoreError> {
        Ok(self.0.slots.acquire_lease(lease, ttl))
    }

    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        Ok(self.0.slots.renew_lease(lease, ttl))
    }

    async fn release_lease(&self, lease: &Lease) -> Result<bool, StoreError> {
        Ok(self.0.slots.release_lease(lease))
    }
}

fn refused() -> StoreError {
    StoreError::new(StoreErrorKind::Refused)
}

impl fmt::Debug for CookieStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CookieStore")
            .field("cookies", &self.0.chunks)
            .field("max_size", &self.0.max_size)
            .field("max_age", &self.0.max_age)
            .finish_non_exhaustive()
    }
}
