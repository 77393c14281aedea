//! Sign-outs that outlive a process: into the journal while L2 cannot be told, and out of it at the
//! next start.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::engine::core::Engine;
use crate::engine::error::L2Error;
use crate::engine::journal::journaled::Journaled;
use crate::engine::journal::record::Record;
use crate::engine::journal::writer::Journal;
use crate::engine::limits::CLOCK_SKEW;
use crate::engine::namespace::Number;
use crate::engine::partition::change::Written;
use crate::engine::write::CommitWait;
use crate::error::{StoreError, StoreErrorKind};
use crate::key::PartitionKey;
use crate::policy::OnFailure;
use crate::random::{SLIGHTLY, jittered};
use crate::store::{CommitId, PartitionId};
use crate::time::Timestamp;

/// How long the disk may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// Sign-outs that L2 is told of late, at a time.
pub(crate) const AT_ONCE: usize = 16;
/// How many are looked at before the next pause.
const ROUND: usize = 1024;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(1);

impl Engine {
    /// Waits for L2 to be told of a sign-out, or else for the journal to have it.
    pub(crate) fn or_journal(
        self: &Arc<Self>,
        journal: &Journal,
        key: &PartitionKey,
        sign_out: CommitId,
        since: Timestamp,
        wait: CommitWait,
    ) -> CommitWait {
        let (told, ended) = oneshot::channel();
        let (engine, journal, key) = (self.clone(), journal.clone(), key.clone());
        // On its own: a client that goes away takes no sign-out along.
        self.runtime.spawn(async move {
            let failure = match wait.await {
                Ok(Ok(Ok(written))) => {
                    // Who has gone needs no answer.
                    let _ = told.send(Ok(written));
                    return;
                }
                Ok(Ok(Err(failure))) => failure,
                Ok(Err(_)) => L2Error::lost(),
                Err(_) => L2Error::of(StoreErrorKind::Timeout),
            };
            engine
                .journal_sign_out(&journal, &key, sign_out, since, told, failure)
                .await;
        });
        self.bounded(self.l2.hard_timeout + 2 * PATIENCE, ended)
    }

    async fn journal_sign_out(
        &self,
        journal: &Journal,
        key: &PartitionKey,
        sign_out: CommitId,
        since: Timestamp,
        told: oneshot::Sender<Result<Written, L2Error>>,
        failure: L2Error,
    ) {
        let mut adding = pin!(journal.add(self.records(key, sign_out, since)));
        let (answer, kept) = match timeout(PATIENCE, &mut adding).await {
            Ok(Ok(kept)) => (Ok(()), Some(kept)),
            Ok(Err(error)) => (Err(error), None),
            Err(_) => (Err(io::ErrorKind::TimedOut.into()), None),
        };
        let late = answer
            .as_ref()
            .is_err_and(|e| e.kind() == io::ErrorKind::TimedOut);
        if let Some(kept) = kept {
            self.attach(key, kept);
        }
        let failure = match answer {
            Ok(()) => failure,
            Err(error) => unkept(error),
        };
        let _ = told.send(Err(failure));
        if late && let Ok(kept) = adding.await {
            self.attach(key, kept);
        }
    }

    /// A sign-out is in the journal for as long as it waits.
    fn attach(&self, key: &PartitionKey, kept: Journaled) {
        let needless = self.partitions.with(key, |_, state| {
            let unacknowledged = state
                .pending
                .as_mut()
                .and_then(|it| it.unacknowledged.as_mut());
            match unacknowledged {
                Some(unacknowledged) => {
                    unacknowledged.keep(kept);
                    None
                }
                None => Some(kept),
            }
        });
        if let Some(kept) = needless {
            kept.forget();
        }
    }

    fn records(&self, key: &PartitionKey, sign_out: CommitId, since: Timestamp) -> Vec<Record> {
        let prefix = self.l2.prefix.known().map(Number::get);
        let digests = self.digests(key).into_iter();
        digests
            .map(|digest| Record::new(digest, prefix, sign_out, since))
            .collect()
    }

    fn digests(&self, key: &PartitionKey) -> Vec<[u8; 32]> {
        let protection = &self.l2.protection;
        let names = protection.possible_names().into_iter();
        names
            .map(|names| *names.partition(&protection.namespace, key).digest())
            .collect()
    }

    /// Writes down what L2 was not told of, at the end of a shutdown.
    pub(crate) async fn journal_what_waits(&self) {
        let Some(journal) = &self.journal else { return };
        let mut waiting = Vec::new();
        for key in self.partitions.active() {
            let left = self.partitions.with_known(&key, |state| {
                let pending = state.pending.as_ref()?;
                let lost = pending
                    .unacknowledged
                    .as_ref()
                    .is_some_and(|it| !it.is_kept());
                lost.then_some((pending.clear_id, pending.clear_since))
            });
            if let Some((sign_out, since)) = left.flatten() {
                waiting.push((key, sign_out, since));
            }
        }
        let write = stream::iter(waiting).for_each_concurrent(None, async |(key, id, since)| {
            // What fails is reported as abandoned.
            if let Ok(kept) = journal.add(self.records(&key, id, since)).await {
                self.attach(&key, kept);
            }
        });
        let _ = timeout(PATIENCE, write).await;
        let _ = timeout(PATIENCE, self.journal_users(journal)).await;
    }

    /// A sign-out of an earlier process goes on as one of this process: until L2 has been told,
    /// nothing that it holds of this partition counts.
    #[inline]
    pub(crate) fn resume_sign_out(self: &Arc<Self>, key: &PartitionKey) {
        if let Some(journal) = self.journal.as_ref().filter(|journal| journal.owes()) {
            self.resume(journal, key);
        }
    }

    #[cold]
    fn resume(self: &Arc<Self>, journal: &Journal, key: &PartitionKey) {
        for digest in self.digests(key) {
            let resumed = self.partitions.with(key, |partition, state| {
                // Under the lock: whoever finds it taken finds the partition signed out.
                let Some(owed) = journal.take_owed(&digest) else {
                    return false;
                };
                if self.is_moot(&owed.record) {
                    owed.unacknowledged.told();
                    return false;
                }
                let pending = state.pending();
                match &mut pending.unacknowledged {
                    Some(unacknowledged) => unacknowledged.absorb(owed.unacknowledged),
                    None => {
                        pending.unacknowledged = Some(owed.unacknowledged);
                        state.sign_out(owed.record.sign_out, owed.record.since);
                    }
                }
                self.push(partition, state);
                true
            });
            if resumed {
                self.wake();
            }
        }
    }

    /// Whether everybody was signed out since. A later number alone does not say so: who signed out
    /// may not have heard of it.
    pub(crate) fn is_moot(&self, record: &Record) -> bool {
        let known = self.l2.prefix.known();
        let since = record.since.saturating_add(CLOCK_SKEW);
        let is_later = known.is_some_and(|number| Some(number.get()) > record.prefix);
        record.prefix.is_some() && is_later && self.l2.prefix.raised_at() >= since
    }

    /// Tells L2 what an earlier process has left, also of those who do not come back.
    pub(crate) fn tell_what_is_owed(self: &Arc<Self>) {
        let Some(journal) = self.journal.clone().filter(Journal::owes) else {
            return;
        };
        self.resume_users(journal.take_owed_users());
        let weak = Arc::downgrade(self);
        self.runtime.spawn(async move {
            let mut pause = FIRST_PAUSE;
            while journal.owes() {
                let Some(engine) = weak.upgrade() else { return };
                let owed = stream::iter(journal.some_owed(ROUND));
                let told = owed
                    .map(async |record| engine.tell(&journal, record).await.is_ok())
                    .buffer_unordered(AT_ONCE);
                let failed = told.any(async |told| !told).await;
                drop(engine);
                pause = match failed {
                    true => (pause * 2).min(LAST_PAUSE),
                    false => FIRST_PAUSE,
                };
                if failed {
                    tokio::time::sleep(jittered(pause, SLIGHTLY)).await;
                }
            }
        });
    }

    async fn tell(&self, journal: &Journal, record: Record) -> Result<(), L2Error> {
        let number = self.number().await?;
        if !self.is_moot(&record) {
            self.sign_out_in_l2(&record, number).await?;
        }
        // Unless somebody has come, and tells L2 as well.
        if let Some(owed) = journal.take_owed(&record.digest) {
            owed.unacknowledged.told();
        }
        Ok(())
    }

    async fn sign_out_in_l2(&self, record: &Record, under: Number) -> Result<(), L2Error> {
        let namespace = self.l2.protection.namespace.clone();
        let id = PartitionId::from_digest(namespace, record.digest);
        let id = id.under(under.get());
        let loaded = self.l2.load_one(&id).await?;
        let cleared_at = loaded
            .cleared_for
            .map(|time| self.clock.now().saturating_sub(time));
        let cleared_later = |at: Timestamp| at >= record.since.saturating_add(CLOCK_SKEW);
        if cleared_at.is_some_and(cleared_later) {
            // What L2 has now has begun after another sign-out, and after this one.
            return Ok(());
        }
        let ends = Some(loaded.generation);
        self.l2.clear(&id, ends, record.sign_out).await?;
        Ok(())
    }
}

/// A sign-out is neither in L2 nor in the journal.
pub(crate) fn unkept(error: io::Error) -> L2Error {
    tracing::error!(
        error = &error as &dyn std::error::Error,
        "a sign-out is neither in L2 nor in the journal"
    );
    L2Error {
        error: StoreError::with_source(StoreErrorKind::Unreachable, error),
        decision: OnFailure::Fail,
    }
}
