//! Users whose sign-out L2 has not acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::engine::journal::journaled::Journaled;
use crate::engine::journal::record::Record;
use crate::engine::journal::unacknowledged::Unacknowledged;
use crate::engine::journal::writer::Owed;
use crate::engine::namespace::Number;
use crate::engine::partition::links::{UserEpoch, Users};
use crate::store::{CommitId, PartitionId};

/// The users who were signed out in this process, and whose sign-out L2 has not acknowledged.
#[derive(Default)]
pub(crate) struct UserSignOuts {
    waiting: Mutex<Vec<Waiting>>,
    /// A task is sending them again.
    retrying: AtomicBool,
}

pub(crate) struct Waiting {
    id: CommitId,
    /// The journal's records of it, existing or to be added: one for each name that the epoch may have in L2,
    /// first the present one.
    records: Vec<Record>,
    /// The number that the epoch is raised to; `None` is beyond what L2 has.
    to: Option<u64>,
    unacknowledged: Unacknowledged,
    /// It was left to the task that sends again.
    again: bool,
    /// While these are held, the user's sessions are over in this process.
    epochs: Vec<Arc<UserEpoch>>,
}

impl Waiting {
    pub(crate) fn new(
        id: CommitId,
        records: Vec<Record>,
        to: Option<u64>,
        unacknowledged: Unacknowledged,
    ) -> Self {
        Self {
            id,
            records,
            to,
            unacknowledged,
            again: false,
            epochs: Vec::new(),
        }
    }

    /// A sign-out of an earlier process, left to the task that sends again.
    pub(crate) fn resumed(id: CommitId, owed: Owed) -> Self {
        Self {
            again: true,
            ..Self::new(id, vec![owed.record], None, owed.unacknowledged)
        }
    }

    fn ids(&self, namespace: &Arc<str>, under: Number) -> Vec<PartitionId> {
        let records = self.records.iter();
        let id = |record: &Record| PartitionId::from_digest(namespace.clone(), record.digest);
        records
            .map(|record| id(record).under(under.get()))
            .collect()
    }

    /// Signs the user out in this process, under this number too.
    pub(crate) fn hold(&mut self, namespace: &Arc<str>, under: Number, users: &Users) {
        let ids = self.ids(namespace, under).into_iter();
        let epochs = ids.map(|id| users.get(id.digest()));
        self.epochs.extend(epochs.inspect(|epoch| match self.to {
            Some(number) => epoch.signed_out_to(number),
            None => epoch.sign_out(),
        }));
    }

    fn is_of(&self, user: &[Record]) -> bool {
        let digests = |records: &[Record]| records.iter().map(|it| it.digest).collect::<Vec<_>>();
        digests(&self.records) == digests(user)
    }
}

impl UserSignOuts {
    /// Adds a sign-out, after `hold` has applied it under the number that is known. Both happen under the
    /// lock, so that a number that is learned later finds it.
    pub(crate) fn add(&self, mut new: Waiting, hold: impl FnOnce(&mut Waiting)) {
        let mut waiting = self.waiting.lock();
        hold(&mut new);
        waiting.push(new);
    }

    /// Runs `act` on those that wait, while none can be added.
    pub(crate) fn with_waiting<R>(&self, act: impl FnOnce(&mut [Waiting]) -> R) -> R {
        act(&mut self.waiting.lock())
    }

    /// Its records, and the number that the epoch is raised to.
    pub(crate) fn find(&self, id: CommitId) -> (Vec<Record>, Option<u64>) {
        let waiting = self.waiting.lock();
        let found = waiting.iter().find(|it| it.id == id);
        found
            .map(|it| (it.records.clone(), it.to))
            .unwrap_or_default()
    }

    /// Whether the caller has to start the task that sends again.
    pub(crate) fn needs_retry(&self) -> bool {
        !self.retrying.swap(true, Ordering::AcqRel)
    }

    /// Whether some are left, so that the task that sends again goes on.
    pub(crate) fn has_left(&self) -> bool {
        let waiting = self.waiting.lock();
        let left = waiting.iter().any(|it| it.again);
        // Under the lock: a sign-out that is added from now on starts another task.
        self.retrying.store(left, Ordering::Release);
        left
    }

    pub(crate) fn list(&self) -> Vec<CommitId> {
        let waiting = self.waiting.lock();
        let again = waiting.iter().filter(|it| it.again);
        again.map(|it| it.id).collect()
    }

    /// L2 has acknowledged it.
    pub(crate) fn acknowledged(&self, id: CommitId) {
        let mut waiting = self.waiting.lock();
        if let Some(at) = waiting.iter().position(|it| it.id == id) {
            waiting.swap_remove(at).unacknowledged.acknowledged();
        }
    }

    /// Leaves it to the task that sends again. One for each user is enough: it takes over the earlier ones.
    pub(crate) fn leave(&self, id: CommitId) {
        let mut waiting = self.waiting.lock();
        let Some(at) = waiting.iter().position(|it| it.id == id) else {
            return;
        };
        let mut later = waiting.swap_remove(at);
        let earlier = waiting.extract_if(.., |it| it.again && it.is_of(&later.records));
        for earlier in earlier {
            let both = later.to.zip(earlier.to);
            later.to = both.map(|(one, other)| one.max(other));
            later.unacknowledged.absorb(earlier.unacknowledged);
        }
        later.again = true;
        waiting.push(later);
    }

    /// Notes that the journal has the sign-out; if it is no longer pending, its records are removed.
    pub(crate) fn attach(&self, id: CommitId, kept: Journaled) {
        let mut waiting = self.waiting.lock();
        match waiting.iter_mut().find(|it| it.id == id) {
            Some(waiting) => waiting.unacknowledged.keep(kept),
            None => kept.forget(),
        }
    }

    pub(crate) fn unjournaled(&self) -> Vec<(CommitId, Vec<Record>)> {
        let waiting = self.waiting.lock();
        let lost = waiting.iter().filter(|it| !it.unacknowledged.is_kept());
        lost.map(|it| (it.id, it.records.clone())).collect()
    }
}
