//! Signing a user out everywhere: one raise of the user's [epoch](super::users).
//!
//! It waits from the moment when it is asked for until L2 is told, and holds in this process as long.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::journal::{Journal, Kept, Owed, Record};
use super::l2::L2Error;
use super::owed::{AT_ONCE, PATIENCE, unkept};
use super::revocation::Number;
use super::sign_outs::Untold;
use super::users::{UserEpoch, Users};
use super::{Engine, TokenCache};
use crate::error::{Error, StoreErrorKind};
use crate::key::PartitionKey;
use crate::lookup::Durability;
use crate::random::{SLIGHTLY, jittered};
use crate::store::{CommitId, PartitionId, Raise};

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
    /// What the journal has of it, or is to have: by each name that L2 may know the epoch by, the
    /// first being that of now.
    records: Vec<Record>,
    untold: Untold,
    /// It was left to the task that tries again.
    again: bool,
    /// The user's sessions are over in this process as long as this is held.
    epochs: Vec<Arc<UserEpoch>>,
}

impl Waiting {
    fn ids(&self, namespace: &Arc<str>, under: Number) -> Vec<PartitionId> {
        let records = self.records.iter();
        let id = |record: &Record| PartitionId::from_digest(namespace.clone(), record.digest);
        records
            .map(|record| id(record).under(under.get()))
            .collect()
    }

    /// The user is signed out in this process, under this number too.
    fn hold(&mut self, namespace: &Arc<str>, under: Number, users: &Users) {
        let ids = self.ids(namespace, under).into_iter();
        let epochs = ids.map(|id| users.get(id.digest()));
        self.epochs.extend(epochs.inspect(|epoch| epoch.sign_out()));
    }

    fn is_of(&self, user: &[Record]) -> bool {
        let digests = |records: &[Record]| records.iter().map(|it| it.digest).collect::<Vec<_>>();
        digests(&self.records) == digests(user)
    }
}

impl UserSignOuts {
    fn list(&self) -> Vec<(CommitId, Vec<Record>)> {
        let waiting = self.waiting.lock();
        let again = waiting.iter().filter(|it| it.again);
        again.map(|it| (it.id, it.records.clone())).collect()
    }

    /// L2 was told.
    fn told(&self, id: CommitId) {
        let mut waiting = self.waiting.lock();
        if let Some(at) = waiting.iter().position(|it| it.id == id) {
            waiting.swap_remove(at).untold.told();
        }
    }

    /// The task that tries again has it from now on; one for each user is enough.
    fn leave(&self, id: CommitId) {
        let mut waiting = self.waiting.lock();
        let Some(at) = waiting.iter().position(|it| it.id == id) else {
            return;
        };
        let mut later = waiting.swap_remove(at);
        let earlier = waiting.extract_if(.., |it| it.again && it.is_of(&later.records));
        for earlier in earlier {
            later.untold.absorb(earlier.untold);
        }
        later.again = true;
        waiting.push(later);
    }

    /// It is in the journal for as long as it waits.
    fn attach(&self, id: CommitId, kept: Kept) {
        let mut waiting = self.waiting.lock();
        match waiting.iter_mut().find(|it| it.id == id) {
            Some(waiting) => waiting.untold.keep(kept),
            None => kept.forget(),
        }
    }

    fn unjournaled(&self) -> Vec<(CommitId, Vec<Record>)> {
        let waiting = self.waiting.lock();
        let lost = waiting.iter().filter(|it| !it.untold.is_kept());
        lost.map(|it| (it.id, it.records.clone())).collect()
    }
}

impl TokenCache {
    /// Signs out every session that was ever [linked](crate::Tokens::belongs_to) to this user:
    /// "sign out everywhere". It holds in this process at once. On return L2 has confirmed it, unless
    /// the answer is [`Durability::Pending`]: then L2 is told as soon as it is back, by the next process
    /// if this one ends and there is a [journal](crate::Builder::journal).
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
    /// [`Strict`](crate::FailurePolicy::Strict) and L2 cannot be told, or where the
    /// [journal](crate::Builder::journal) could not take what L2 has not heard of; it holds in this
    /// process, and L2 will be told as long as it lives.
    pub async fn sign_out_user(&self, user: &str) -> Result<Durability, Error> {
        let user = PartitionKey::epoch_of(user)?;
        let engine = &self.0;
        if engine.queue.is_closed() {
            return Err(Error::ShutDown);
        }
        let id = engine.begin_to_end(&user);
        let journals = engine
            .journal
            .as_ref()
            .map_or(Duration::ZERO, |_| 2 * PATIENCE);
        let ends = |engine: Arc<Engine>| async move { engine.end_user(id).await };
        let ended = engine.detached(engine.deadline() + journals, ends).await;
        match ended.and_then(|ended| ended) {
            Ok(()) => Ok(Durability::Stored),
            Err(failure) => engine
                .degrade(engine.failure_policy, failure)
                .map(|()| Durability::Pending),
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

    /// Signs the user out in this process.
    fn begin_to_end(&self, user: &PartitionKey) -> CommitId {
        let id = self.queue.next_id();
        let protection = &self.l2.protection;
        let names = protection.all_names().into_iter();
        let digests = names.map(|names| *names.partition(&protection.namespace, user).digest());
        let prefix = self.l2.prefix.known().map(Number::get);
        let since = self.clock.now();
        let record = |digest| Record {
            user: true,
            ..Record::new(digest, prefix, id, since)
        };
        let records = digests.map(record);
        self.wait_to_end(Waiting {
            id,
            records: records.collect(),
            untold: self.sign_outs.begin(),
            again: false,
            epochs: Vec::new(),
        });
        id
    }

    fn wait_to_end(&self, mut new: Waiting) {
        let mut waiting = self.user_sign_outs.waiting.lock();
        // Under the lock: a number that is not known yet finds it.
        if let Some(under) = self.l2.prefix.known() {
            new.hold(&self.l2.protection.namespace, under, &self.rules.users);
        }
        waiting.push(new);
    }

    /// Has `learn` take a number of the namespace to be the one known. Who waits to be signed out in L2
    /// is signed out under that number before anything is read under it.
    pub(super) fn hold_signed_out<R>(&self, number: Number, learn: impl FnOnce() -> R) -> R {
        let mut waiting = self.user_sign_outs.waiting.lock();
        if self.l2.prefix.known() != Some(number) {
            for waiting in waiting.iter_mut() {
                waiting.hold(&self.l2.protection.namespace, number, &self.rules.users);
            }
        }
        learn()
    }

    async fn end_user(self: &Arc<Self>, id: CommitId) -> Result<(), L2Error> {
        let waits = |it: &&Waiting| it.id == id;
        let records = {
            let waiting = self.user_sign_outs.waiting.lock();
            waiting.iter().find(waits).map(|it| it.records.clone())
        };
        let records = records.unwrap_or_default();
        let raised = timeout(self.l2.hard_timeout, self.raise_user(&records)).await;
        match raised.unwrap_or_else(|_| Err(L2Error::of(StoreErrorKind::Timeout))) {
            Ok(()) => {
                self.user_sign_outs.told(id);
                Ok(())
            }
            Err(failure) => {
                self.user_sign_outs.leave(id);
                self.keep_raising();
                Err(self.journal_user(id, records, failure).await)
            }
        }
    }

    /// What to answer where L2 cannot be told.
    async fn journal_user(
        self: &Arc<Self>,
        id: CommitId,
        records: Vec<Record>,
        failure: L2Error,
    ) -> L2Error {
        let Some(journal) = self.journal.clone() else {
            return failure;
        };
        let (told, written) = oneshot::channel();
        let engine = self.clone();
        // On its own: what is late is in the journal all the same.
        self.runtime.spawn(async move {
            let added = journal.add(records).await;
            // Who has gone needs no answer.
            let _ = told.send(added.map(|kept| engine.user_sign_outs.attach(id, kept)));
        });
        match timeout(PATIENCE, written).await {
            Ok(Ok(Ok(()))) => failure,
            Ok(Ok(Err(error))) => unkept(error),
            Ok(Err(_)) => unkept(io::Error::other("the journal's writer has ended")),
            Err(_) => unkept(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Writes down what L2 was not told of, at the end of a shutdown.
    pub(super) async fn journal_users(&self, journal: &Journal) {
        for (id, records) in self.user_sign_outs.unjournaled() {
            // What fails is reported as abandoned.
            if let Ok(kept) = journal.add(records).await {
                self.user_sign_outs.attach(id, kept);
            }
        }
    }

    /// Users' sign-outs of an earlier process go on as those of this one.
    pub(super) fn resume_users(self: &Arc<Self>, owed: Vec<Owed>) {
        let resumes = !owed.is_empty();
        for Owed { record, untold } in owed {
            self.wait_to_end(Waiting {
                id: self.queue.next_id(),
                records: vec![record],
                untold,
                again: true,
                epochs: Vec::new(),
            });
        }
        if resumes {
            self.keep_raising();
        }
    }

    /// Raises the user's epoch in L2, so that every session linked so far is over.
    async fn raise_user(self: &Arc<Self>, records: &[Record]) -> Result<(), L2Error> {
        // Not the number that is known: others may have begun sessions under a later one.
        let under = self.look_up_prefix().await?;
        for record in records {
            if self.is_moot(record) {
                continue;
            }
            let namespace = self.l2.protection.namespace.clone();
            let id = PartitionId::from_digest(namespace, record.digest).under(under.get());
            let epoch = self.rules.users.get(id.digest());
            let least = epoch.next(self.clock.now());
            // Also where L2 has none: who has a session in memory begins a lost one again.
            let raise = Raise::Beyond(least);
            let number = self.l2.raise(&id, raise, self.epoch_life()).await?;
            if number < least {
                return Err(L2Error::of(StoreErrorKind::Refused));
            }
            epoch.signed_out(number);
            self.unlist_all(id.digest());
        }
        Ok(())
    }

    /// Tries to tell L2 of those who wait until it is told.
    fn keep_raising(self: &Arc<Self>) {
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
        let tried = stream::iter(self.user_sign_outs.list());
        let tried = tried.for_each_concurrent(AT_ONCE, async |(id, records)| {
            if self.raise_user(&records).await.is_ok() {
                self.user_sign_outs.told(id);
            }
        });
        tried.await;
        let waiting = self.user_sign_outs.waiting.lock();
        let left = waiting.iter().any(|it| it.again);
        // Under the lock: who comes now starts another task.
        self.user_sign_outs.retrying.store(left, Ordering::Release);
        left
    }
}
