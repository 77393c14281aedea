//! The session of a handle, and those that take its place.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::engine::partition::observed::Observed;
use crate::key::PartitionKey;

/// A handle's partition, and what the handle has seen of it.
pub(crate) struct Session {
    pub(crate) partition: PartitionKey,
    /// What was seen at first use.
    observed: Mutex<Option<Observed>>,
    /// It has shown that it exists: something was found in it, or kept.
    used: AtomicBool,
    /// Something was changed.
    changed: AtomicBool,
    /// Something was changed that must reach L2 before the response head.
    urgent: AtomicBool,
    /// It was signed out, and the handle has left it: its id is not used again.
    left: AtomicBool,
}

/// The session of a handle, and after it those that took its place, in order. None is removed while the handle
/// lives, so that who works on one can borrow it; to find the latest takes no lock.
pub(super) struct Sessions {
    session: Option<Session>,
    next: OnceLock<Box<Self>>,
}

impl Session {
    #[inline]
    pub(super) fn new(partition: PartitionKey) -> Self {
        Self {
            partition,
            observed: Mutex::new(None),
            used: AtomicBool::new(false),
            changed: AtomicBool::new(false),
            urgent: AtomicBool::new(false),
            left: AtomicBool::new(false),
        }
    }

    /// The partition that all of this session was moved to.
    pub(super) fn moved(&self, partition: PartitionKey) -> Self {
        let moved = Self::new(partition);
        moved.follow(self);
        moved
    }

    /// What was done in `other` counts as done in this one.
    pub(super) fn follow(&self, other: &Self) {
        if other.is_used() {
            self.note_use();
        }
        if other.is_changed() {
            self.note_change(other.is_urgent());
        }
    }

    #[inline]
    pub(crate) fn note_use(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn note_change(&self, urgent: bool) {
        self.urgent.fetch_or(urgent, Ordering::Release);
        self.changed.store(true, Ordering::SeqCst);
    }

    #[inline]
    pub(super) fn is_changed(&self) -> bool {
        self.changed.load(Ordering::SeqCst)
    }

    pub(super) fn is_urgent(&self) -> bool {
        self.urgent.load(Ordering::Acquire)
    }

    /// What was changed is no longer there, or is elsewhere: nothing has to be written.
    pub(super) fn forget_changes(&self) {
        self.changed.store(false, Ordering::SeqCst);
    }

    pub(super) fn set_left(&self, left: bool) {
        self.left.store(left, Ordering::SeqCst);
    }

    pub(super) fn is_left(&self) -> bool {
        self.left.load(Ordering::SeqCst)
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
    #[inline]
    pub(super) fn new(session: Option<Session>) -> Self {
        Self {
            session,
            next: OnceLock::new(),
        }
    }

    /// All of them, in order.
    #[inline]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Session> {
        let all = std::iter::successors(Some(self), |it| it.next.get().map(|next| &**next));
        all.filter_map(|it| it.session.as_ref())
    }

    /// The one that the request came with.
    pub(super) fn first(&self) -> Option<&Session> {
        self.session.as_ref()
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

    /// From now on the handle has this session, or none. Where the layer issues ids, the caller holds the response
    /// head.
    pub(super) fn replace(&self, session: Option<Session>) {
        let mut new = Box::new(Self::new(session));
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
