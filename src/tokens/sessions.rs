//! The session of a handle, and those that take its place.

use std::sync::OnceLock;

use parking_lot::{Mutex, MutexGuard};

use crate::engine::partition::observed::Observed;
use crate::key::PartitionKey;

/// A handle's partition, and what the handle has seen of it.
pub(crate) struct Session {
    pub(crate) partition: PartitionKey,
    /// What was seen at first use.
    observed: Mutex<Option<Observed>>,
}

/// The session of a handle, and after it those that took its place, in order. None is removed while the handle
/// lives, so that who works on one can borrow it; to find the latest takes no lock.
pub(super) struct Sessions {
    session: Option<Session>,
    next: OnceLock<Box<Self>>,
}

impl Session {
    fn new(partition: PartitionKey) -> Self {
        Self {
            partition,
            observed: Mutex::new(None),
        }
    }

    pub(crate) fn observe(&self) -> Option<Observed> {
        *self.lock_observed()
    }

    /// Keeps what was seen first, and how L2 fared last.
    pub(crate) fn keep(&self, observed: Option<Observed>) {
        match (&mut *self.lock_observed(), observed) {
            (Some(kept), Some(observed)) => kept.follow(&observed),
            (kept, observed) => *kept = kept.or(observed),
        }
    }

    pub(super) fn keep_new(&self, observed: Option<Observed>) {
        *self.lock_observed() = observed;
    }

    pub(super) fn lock_observed(&self) -> MutexGuard<'_, Option<Observed>> {
        self.observed.lock()
    }
}

impl Sessions {
    pub(super) fn new(partition: Option<PartitionKey>) -> Self {
        Self {
            session: partition.map(Session::new),
            next: OnceLock::new(),
        }
    }

    /// The session now; `None` for an anonymous request.
    #[inline]
    pub(super) fn latest(&self) -> Option<&Session> {
        let mut last = self;
        while let Some(next) = last.next.get() {
            last = next;
        }
        last.session.as_ref()
    }

    pub(super) fn is_latest(&self, session: &Session) -> bool {
        self.latest()
            .is_some_and(|latest| std::ptr::eq(latest, session))
    }

    /// From now on the handle has this session, or none. The caller adds one at a time.
    pub(super) fn replace(&self, partition: Option<PartitionKey>) {
        let mut new = Box::new(Self::new(partition));
        let mut last = self;
        while let Err(refused) = last.next.set(new) {
            new = refused;
            match last.next.get() {
                Some(next) => last = next,
                None => return,
            }
        }
    }
}
