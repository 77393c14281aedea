//! Signing a user out everywhere: one raise of the user's [epoch](super::users).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::l2::L2Error;
use super::sign_outs::Untold;
use super::users::UserEpoch;
use super::{Engine, TokenCache};
use crate::error::{Error, StoreErrorKind};
use crate::key::PartitionKey;
use crate::lookup::Durability;
use crate::random::{SLIGHTLY, jittered};
use crate::store::{CommitId, PartitionId, Raise, Revision};

/// How long an epoch is kept after the last link: longer than browsers keep a cookie.
const LONGEST: Duration = Duration::from_secs(400 * 24 * 3600);
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// Users who were signed out here, and of whom L2 has yet to hear.
#[derive(Default)]
pub(super) struct UserSignOuts {
    waiting: Mutex<Vec<Waiting>>,
    /// A task tries them again.
    retrying: AtomicBool,
}

struct Waiting {
    id: CommitId,
    user: PartitionKey,
    _untold: Untold,
    /// Their sessions in memory are over as long as this is held.
    _epochs: Vec<Arc<UserEpoch>>,
}

impl UserSignOuts {
    fn list(&self) -> Vec<(CommitId, PartitionKey)> {
        let waiting = self.waiting.lock();
        waiting.iter().map(|it| (it.id, it.user.clone())).collect()
    }

    fn remove(&self, id: CommitId) {
        self.waiting.lock().retain(|other| other.id != id);
    }
}

impl TokenCache {
    /// Signs out every session that was ever [linked](crate::Tokens::belongs_to) to this user:
    /// "sign out everywhere". On return L2 has confirmed it, unless the answer is
    /// [`Durability::Pending`]: then it holds in this process, and L2 is told as soon as it is back.
    ///
    /// It does not look for the sessions, and costs the same however many there are: each of them
    /// is compared with the user's epoch in L2 whenever it is read or compared with L2. So
    /// [`Durability::Stored`] holds for all that were linked before, also where none is known or
    /// listed. It says nothing of sessions that were never linked.
    ///
    /// It goes on if the caller does not wait for it. One whose answer was lost is repeated, and
    /// may then end a session that was linked in between.
    ///
    /// # Errors
    /// [`Error::InvalidKey`], [`Error::ShutDown`], and [`Error::Unavailable`] when the policy is
    /// [`Strict`](crate::FailurePolicy::Strict) and L2 cannot be told; it holds in this process, and
    /// L2 will be told.
    pub async fn sign_out_user(&self, user: &str) -> Result<Durability, Error> {
        let user = PartitionKey::epoch_of(user)?;
        if self.0.queue.is_closed() {
            return Err(Error::ShutDown);
        }
        let ends = |engine: Arc<Engine>| async move {
            let raised = engine.raise_user(&user).await;
            if raised.is_err() {
                engine.keep_raising(user);
            }
            raised
        };
        let ended = self.0.detached(self.0.deadline(), ends).await;
        match ended.and_then(|raised| raised) {
            Ok(()) => Ok(Durability::Stored),
            Err(failure) => {
                let policy = self.0.failure_policy;
                self.0
                    .degrade(policy, failure)
                    .map(|()| Durability::Pending)
            }
        }
    }
}

impl Engine {
    /// How long a user's epoch is kept from now on: longer than a session that is linked now can
    /// live.
    pub(super) fn epoch_life(&self) -> Option<Duration> {
        let limits = [self.lifetime.absolute, self.lifetime.max_age];
        let longest = limits.into_iter().flatten().max()?;
        let idle = self.lifetime.sliding.unwrap_or_default();
        Some(longest.max(idle).max(LONGEST))
    }

    /// Raises the user's epoch in L2, so that every session linked so far is over.
    async fn raise_user(self: &Arc<Self>, user: &PartitionKey) -> Result<(), L2Error> {
        self.number().await?;
        for id in self.epochs_of(user) {
            let epoch = self.rules.users.get(id.digest());
            let least = epoch.next(self.clock.now());
            let raise = Raise::Beyond(least);
            let number = self.l2.raise(&id, raise, self.epoch_life()).await?;
            if number < least {
                return Err(L2Error::of(StoreErrorKind::Refused));
            }
            epoch.signed_out(number);
            let revision = Revision {
                generation: number,
                ..Revision::default()
            };
            let digest = *id.digest();
            self.coherence.announce([(id, revision)]);
            self.unlist_all(&digest);
        }
        Ok(())
    }

    /// What L2 knows the user's epoch by: also from before encryption, where sessions that were
    /// linked then may be alive. None while the namespace's number is not known.
    fn epochs_of(&self, user: &PartitionKey) -> Vec<PartitionId> {
        let Some(under) = self.l2.prefix.known() else {
            return Vec::new();
        };
        let mut ids = vec![self.l2.id(user, under)];
        #[cfg(feature = "seal")]
        ids.extend(self.plain_id(user, under));
        ids.dedup();
        ids
    }

    /// Signs the user out in this process, and tries to tell L2 until it is told.
    fn keep_raising(self: &Arc<Self>, user: PartitionKey) {
        let epochs = self.epochs_of(&user).into_iter();
        let epochs = epochs.map(|id| self.rules.users.get(id.digest()));
        let epochs = epochs.inspect(|epoch| epoch.sign_out()).collect();
        {
            let mut waiting = self.user_sign_outs.waiting.lock();
            waiting.retain(|other| other.user != user);
            waiting.push(Waiting {
                id: self.queue.next_id(),
                user,
                _untold: self.sign_outs.begin(),
                _epochs: epochs,
            });
        }
        if self.user_sign_outs.retrying.swap(true, Ordering::AcqRel) {
            return;
        }
        let engine = Arc::downgrade(self);
        self.runtime.spawn(async move {
            let mut pause = FIRST_RETRY;
            loop {
                tokio::time::sleep(jittered(pause, SLIGHTLY)).await;
                pause = LAST_RETRY.min(pause * 2);
                let Some(engine) = engine.upgrade() else {
                    return;
                };
                if !engine.raise_waiting().await {
                    return;
                }
            }
        });
    }

    /// Tries once more; whether some are left.
    async fn raise_waiting(self: &Arc<Self>) -> bool {
        for (id, user) in self.user_sign_outs.list() {
            if self.raise_user(&user).await.is_err() {
                return true;
            }
            self.user_sign_outs.remove(id);
        }
        let waiting = self.user_sign_outs.waiting.lock();
        let left = !waiting.is_empty();
        // Under the lock: who comes now starts another task.
        self.user_sign_outs.retrying.store(left, Ordering::Release);
        left
    }
}
