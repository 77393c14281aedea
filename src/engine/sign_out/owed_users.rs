//! Users whose sign-out L2 has yet to hear of.

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

/// Users who were signed out here, and of whom L2 has yet to hear.
#[derive(Default)]
pub(crate) struct UserSignOuts {
    waiting: Mutex<Vec<Waiting>>,
    /// A task tries them again.
    retrying: AtomicBool,
}

pub(crate) struct Waiting {
    id: CommitId,
    /// What the journal has of it, or is to have: by each name that L2 may know the epoch by, the
    /// first being that of now.
    records: Vec<Record>,
    unacknowledged: Unacknowledged,
    /// It was left to the task that tries again.
    again: bool,
    /// The user's sessions are over in this process as long as this is held.
    epochs: Vec<Arc<UserEpoch>>,
}

impl Waiting {
    pub(crate) fn new(id: CommitId, records: Vec<Record>, unacknowledged: Unacknowledged) -> Self {
        Self {
            id,
            records,
            unacknowledged,
            again: false,
            epochs: Vec::new(),
        }
    }

    /// One of an earlier process: it is left to the task that tries again.
    pub(crate) fn resumed(id: CommitId, owed: Owed) -> Self {
        Self {
            again: true,
            ..Self::new(id, vec![owed.record], owed.unacknowledged)
        }
    }

    fn ids(&self, namespace: &Arc<str>, under: Number) -> Vec<PartitionId> {
        let records = self.records.iter();
        let id = |record: &Record| PartitionId::from_digest(namespace.clone(), record.digest);
        records
            .map(|record| id(record).under(under.get()))
            .collect()
    }

    /// The user is signed out in this process, under this number too.
    pub(crate) fn hold(&mut self, namespace: &Arc<str>, under: Number, users: &Users) {
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
    /// Adds one, after `hold` has had it hold under the number that is known. Both under the lock, so that
    /// a number that is not known yet finds it.
    pub(crate) fn add(&self, mut new: Waiting, hold: impl FnOnce(&mut Waiting)) {
        let mut waiting = self.waiting.lock();
        hold(&mut new);
        waiting.push(new);
    }

    /// Runs `learn` while none can be added, after `hold` for each that waits.
    pub(crate) fn hold_each<R>(
        &self,
        hold: impl FnOnce(&mut dyn Iterator<Item = &mut Waiting>),
        learn: impl FnOnce() -> R,
    ) -> R {
        let mut waiting = self.waiting.lock();
        hold(&mut waiting.iter_mut());
        learn()
    }

    pub(crate) fn records(&self, id: CommitId) -> Vec<Record> {
        let waiting = self.waiting.lock();
        let found = waiting.iter().find(|it| it.id == id);
        found.map(|it| it.records.clone()).unwrap_or_default()
    }

    /// Whether the caller has to start the task that tries again.
    pub(crate) fn needs_retry(&self) -> bool {
        !self.retrying.swap(true, Ordering::AcqRel)
    }

    /// Whether the task that tries again has some left, and goes on.
    pub(crate) fn has_left(&self) -> bool {
        let waiting = self.waiting.lock();
        let left = waiting.iter().any(|it| it.again);
        // Under the lock: what is added from now on starts another task.
        self.retrying.store(left, Ordering::Release);
        left
    }

    pub(crate) fn list(&self) -> Vec<(CommitId, Vec<Record>)> {
        let waiting = self.waiting.lock();
        let again = waiting.iter().filter(|it| it.again);
        again.map(|it| (it.id, it.records.clone())).collect()
    }

    /// L2 was told.
    pub(crate) fn told(&self, id: CommitId) {
        let mut waiting = self.waiting.lock();
        if let Some(at) = waiting.iter().position(|it| it.id == id) {
            waiting.swap_remove(at).unacknowledged.told();
        }
    }

    /// The task that tries again has it from now on; one for each user is enough.
    pub(crate) fn leave(&self, id: CommitId) {
        let mut waiting = self.waiting.lock();
        let Some(at) = waiting.iter().position(|it| it.id == id) else {
            return;
        };
        let mut later = waiting.swap_remove(at);
        let earlier = waiting.extract_if(.., |it| it.again && it.is_of(&later.records));
        for earlier in earlier {
            later.unacknowledged.absorb(earlier.unacknowledged);
        }
        later.again = true;
        waiting.push(later);
    }

    /// It is in the journal for as long as it waits.
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
