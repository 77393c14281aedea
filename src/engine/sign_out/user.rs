//! Signing a user out everywhere, by one raise of the user's [epoch](crate::engine::partition::links).
//!
//! The sign-out is in force in this process at once, and pending until L2 has acknowledged it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::engine::core::Engine;
use crate::engine::error::L2Error;
use crate::engine::journal::record::Record;
use crate::engine::journal::writer::{Journal, Owed};
use crate::engine::namespace::Number;
use crate::engine::sign_out::owed::{AT_ONCE, PATIENCE, unkept};
use crate::engine::sign_out::owed_users::Waiting;
use crate::error::StoreErrorKind;
use crate::key::PartitionKey;
use crate::random::{SLIGHTLY, jittered};
use crate::store::{CommitId, PartitionId, Raise};

/// How long an epoch is kept after the last link: longer than browsers keep a cookie.
const LONGEST: Duration = Duration::from_secs(400 * 24 * 3600);
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1);

impl Engine {
    /// How long a user's epoch is kept from now on: longer than a session that is linked now can live.
    pub(crate) fn epoch_life(&self) -> Option<Duration> {
        let lifetime = self.rules.lifetimes.partition;
        let limits = [lifetime.since_write, lifetime.since_creation];
        let longest = limits.into_iter().flatten().max()?;
        let idle = lifetime.sliding.unwrap_or_default();
        Some(longest.max(idle).max(LONGEST))
    }

    /// Signs the user out in this process, and begins the sign-out in L2: of all sessions, or of those of numbers below
    /// `to`.
    pub(crate) fn begin_to_end(&self, user: &PartitionKey, to: Option<u64>) -> CommitId {
        let id = self.queue.next_id();
        let codec = &self.l2.codec;
        let names = codec.all_names().into_iter();
        let digests = names.map(|names| *names.partition(&codec.namespace, user).digest());
        let number = self.l2.number.known().map(Number::get);
        let since = self.clock.now();
        let record = |digest| Record {
            user: true,
            ..Record::new(digest, number, id, since)
        };
        let records = digests.map(record);
        let unacknowledged = self.sign_outs.begin();
        self.wait_to_end(Waiting::new(id, records.collect(), to, unacknowledged));
        id
    }

    fn wait_to_end(&self, new: Waiting) {
        self.user_sign_outs.add(new, |new| {
            if let Some(under) = self.l2.number.known() {
                new.hold(&self.l2.codec.namespace, under, &self.rules.users);
            }
        });
    }

    /// Runs `learn`, which takes over a number of the namespace. Users whose sign-out is pending are signed
    /// out under that number before anything is read under it.
    pub(crate) fn hold_signed_out<R>(&self, number: Number, learn: impl FnOnce() -> R) -> R {
        self.user_sign_outs.with_waiting(|waiting| {
            if self.l2.number.known() != Some(number) {
                for waiting in waiting {
                    waiting.hold(&self.l2.codec.namespace, number, &self.rules.users);
                }
            }
            learn()
        })
    }

    pub(crate) async fn end_user(self: &Arc<Self>, id: CommitId) -> Result<(), L2Error> {
        let (records, to) = self.user_sign_outs.find(id);
        let raised = timeout(self.l2.timeouts.operation, self.raise_user(&records, to)).await;
        match raised.unwrap_or_else(|_| Err(L2Error::of(StoreErrorKind::Timeout))) {
            Ok(()) => {
                self.user_sign_outs.acknowledged(id);
                Ok(())
            }
            Err(failure) => {
                self.user_sign_outs.leave(id);
                self.keep_raising();
                Err(self.journal_user(id, records, failure).await)
            }
        }
    }

    /// The error to return where L2 did not acknowledge the sign-out: the journal is to have it.
    async fn journal_user(
        self: &Arc<Self>,
        id: CommitId,
        records: Vec<Record>,
        failure: L2Error,
    ) -> L2Error {
        let Some(journal) = self.journal.clone() else {
            return failure;
        };
        let (sender, written) = oneshot::channel();
        let engine = self.clone();
        // In a task of its own: a late record is still added.
        self.runtime.spawn(async move {
            let added = journal.add(records).await;
            // The caller may have stopped waiting.
            let _ = sender.send(added.map(|kept| engine.user_sign_outs.attach(id, kept)));
        });
        match timeout(PATIENCE, written).await {
            Ok(Ok(Ok(()))) => failure,
            Ok(Ok(Err(error))) => unkept(error),
            Ok(Err(_)) => unkept(io::Error::other("the journal's writer has ended")),
            Err(_) => unkept(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Adds the unacknowledged sign-outs to the journal, at the end of a shutdown.
    pub(crate) async fn journal_users(&self, journal: &Journal) {
        for (id, records) in self.user_sign_outs.unjournaled() {
            // A failed one is reported as abandoned.
            if let Ok(kept) = journal.add(records).await {
                self.user_sign_outs.attach(id, kept);
            }
        }
    }

    /// Sign-outs of users of an earlier process go on as those of this one.
    pub(crate) fn resume_users(self: &Arc<Self>, owed: Vec<Owed>) {
        let resumes = !owed.is_empty();
        for owed in owed {
            self.wait_to_end(Waiting::resumed(self.queue.next_id(), owed));
        }
        if resumes {
            self.keep_raising();
        }
    }

    /// Raises the user's epoch in L2, so that every session linked so far is over.
    async fn raise_user(
        self: &Arc<Self>,
        records: &[Record],
        to: Option<u64>,
    ) -> Result<(), L2Error> {
        // Not the number that is known: sessions may have begun on other instances under a later one.
        let under = self.look_up_number().await?;
        for record in records {
            if self.is_moot(record) {
                continue;
            }
            let namespace = self.l2.codec.namespace.clone();
            let id = PartitionId::from_digest(namespace, record.digest).under(under.get());
            let epoch = self.rules.users.get(id.digest());
            let least = to.unwrap_or_else(|| epoch.next(self.clock.now()));
            // Also where L2 has no epoch: an instance with a session in memory would begin a lost one again.
            let raise = to.map_or(Raise::Beyond(least), Raise::To);
            let number = self.l2.raise(&id, raise, self.epoch_life()).await?;
            if number < least {
                return Err(L2Error::of(StoreErrorKind::Refused));
            }
            match to {
                // Another sign-out may be pending here.
                Some(_) => epoch.signed_out_to(number),
                None => epoch.signed_out(number),
            }
            match self.revocations.are_on() {
                false => self.unlist_all(id.digest()),
                true => {
                    let digest = *id.digest();
                    self.in_background(|engine| async move {
                        engine.end_listed(&PartitionKey::list_of(&digest)).await;
                        engine.unlist_all(&digest);
                    });
                }
            }
        }
        Ok(())
    }

    /// Sends pending sign-outs again until L2 has acknowledged all.
    fn keep_raising(self: &Arc<Self>) {
        if !self.user_sign_outs.needs_retry() {
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

    /// Sends them once more. Returns whether some are left.
    async fn raise_waiting(self: &Arc<Self>) -> bool {
        let tried = stream::iter(self.user_sign_outs.list());
        let tried = tried.for_each_concurrent(AT_ONCE, async |id| {
            let (records, to) = self.user_sign_outs.find(id);
            if self.raise_user(&records, to).await.is_ok() {
                self.user_sign_outs.acknowledged(id);
            }
        });
        tried.await;
        self.user_sign_outs.has_left()
    }
}
