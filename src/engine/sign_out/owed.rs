//! Sign-outs that outlive a process: written to the journal while L2 cannot acknowledge them, and sent after
//! the next start.

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

/// The limit on a write to the journal.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// Overdue sign-outs that are sent to L2 at a time.
pub(crate) const AT_ONCE: usize = 16;
/// Sign-outs in one round of sending.
const ROUND: usize = 1024;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(1);

impl Engine {
    /// Waits for L2 to acknowledge a sign-out, or else for the journal to have it.
    pub(crate) fn or_journal(
        self: &Arc<Self>,
        journal: &Journal,
        key: &PartitionKey,
        sign_out: CommitId,
        since: Timestamp,
        wait: CommitWait,
    ) -> CommitWait {
        let (sender, ended) = oneshot::channel();
        let (engine, journal, key) = (self.clone(), journal.clone(), key.clone());
        // In a task of its own: it goes on if the client disconnects.
        self.runtime.spawn(async move {
            let failure = match wait.await {
                Ok(Ok(Ok(written))) => {
                    // The caller may have stopped waiting.
                    let _ = sender.send(Ok(written));
                    return;
                }
                Ok(Ok(Err(failure))) => failure,
                Ok(Err(_)) => L2Error::lost(),
                Err(_) => L2Error::of(StoreErrorKind::Timeout),
            };
            engine
                .journal_sign_out(&journal, &key, sign_out, since, sender, failure)
                .await;
        });
        self.bounded(self.l2.timeouts.operation + 2 * PATIENCE, ended)
    }

    async fn journal_sign_out(
        &self,
        journal: &Journal,
        key: &PartitionKey,
        sign_out: CommitId,
        since: Timestamp,
        sender: oneshot::Sender<Result<Written, L2Error>>,
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
        let _ = sender.send(Err(failure));
        if late && let Ok(kept) = adding.await {
            self.attach(key, kept);
        }
    }

    /// Notes that the journal has the sign-out; if it is no longer pending, its records are removed.
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
        let number = self.l2.number.known().map(Number::get);
        let digests = self.digests(key).into_iter();
        digests
            .map(|digest| Record::new(digest, number, sign_out, since))
            .collect()
    }

    fn digests(&self, key: &PartitionKey) -> Vec<[u8; 32]> {
        let codec = &self.l2.codec;
        let names = codec.possible_names().into_iter();
        names
            .map(|names| *names.partition(&codec.namespace, key).digest())
            .collect()
    }

    /// Adds the unacknowledged sign-outs to the journal, at the end of a shutdown.
    pub(crate) async fn journal_what_waits(&self) {
        let Some(journal) = &self.journal else { return };
        let mut waiting = Vec::new();
        for key in self.partitions.active() {
            let left = self.partitions.with_known(&key, |state| {
                let pending = state.pending.as_ref()?;
                let sign_out = pending.sign_out?;
                let lost = pending
                    .unacknowledged
                    .as_ref()
                    .is_some_and(|it| !it.is_kept());
                lost.then(|| (sign_out.id, self.now().wall_at(sign_out.since)))
            });
            if let Some((sign_out, since)) = left.flatten() {
                waiting.push((key, sign_out, since));
            }
        }
        let write = stream::iter(waiting).for_each_concurrent(None, async |(key, id, since)| {
            // A failed one is reported as abandoned.
            if let Ok(kept) = journal.add(self.records(&key, id, since)).await {
                self.attach(&key, kept);
            }
        });
        let _ = timeout(PATIENCE, write).await;
        let _ = timeout(PATIENCE, self.journal_users(journal)).await;
    }

    /// A sign-out of an earlier process goes on as one of this process. Until L2 has acknowledged it, nothing
    /// that L2 has of the partition counts.
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
                // Under the lock: once the record is taken, the partition is seen as signed out.
                let Some(owed) = journal.take_owed(&digest) else {
                    return false;
                };
                if self.is_moot(&owed.record) {
                    owed.unacknowledged.acknowledged();
                    return false;
                }
                let pending = state.pending();
                match &mut pending.unacknowledged {
                    Some(unacknowledged) => unacknowledged.absorb(owed.unacknowledged),
                    None => {
                        pending.unacknowledged = Some(owed.unacknowledged);
                        let since = self.now().moment_at(owed.record.since);
                        state.sign_out(owed.record.sign_out, since);
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

    /// Whether all users were signed out since the record was made. A later number of the namespace alone
    /// does not say so: a process that had not learned of the number may have made the record.
    pub(crate) fn is_moot(&self, record: &Record) -> bool {
        let known = self.l2.number.known();
        let since = record.since.saturating_add(CLOCK_SKEW);
        let is_later = known.is_some_and(|number| Some(number.get()) > record.under);
        let raised_at = self.now().wall_at(self.l2.number.raised_at());
        record.under.is_some() && is_later && raised_at >= since
    }

    /// Sends the sign-outs of an earlier process to L2, also those of sessions that make no request.
    pub(crate) fn send_owed_sign_outs(self: &Arc<Self>) {
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
                let sent = owed
                    .map(async |record| engine.send_owed(&journal, record).await.is_ok())
                    .buffer_unordered(AT_ONCE);
                let failed = sent.any(async |sent| !sent).await;
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

    async fn send_owed(self: &Arc<Self>, journal: &Journal, record: Record) -> Result<(), L2Error> {
        let number = self.number().await?;
        if !self.is_moot(&record) {
            self.sign_out_in_l2(&record, number).await?;
        }
        // A request may have taken it; then it sends the sign-out as well.
        if let Some(owed) = journal.take_owed(&record.digest) {
            owed.unacknowledged.acknowledged();
        }
        Ok(())
    }

    async fn sign_out_in_l2(&self, record: &Record, under: Number) -> Result<(), L2Error> {
        let namespace = self.l2.codec.namespace.clone();
        let id = PartitionId::from_digest(namespace, record.digest);
        let id = id.under(under.get());
        let loaded = self.l2.load_one(&id).await?;
        let now = self.now();
        let since = now.moment_at(record.since).saturating_add(CLOCK_SKEW);
        let is_later = |time| now.ago(time) >= since;
        if loaded.cleared_for.is_some_and(is_later) {
            // L2's present entries are of a session that began after a later sign-out.
            return Ok(());
        }
        let ends = Some(loaded.generation);
        self.l2.clear(&id, ends, record.sign_out).await?;
        Ok(())
    }
}

/// The error where neither L2 nor the journal has the sign-out.
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
