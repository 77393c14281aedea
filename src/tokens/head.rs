//! Changes that the response head carries, where sessions live in cookies.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cookie::Pinned;
use crate::error::Error;

/// A handle's relation to the response head: none, unless its session lives in cookies.
#[derive(Default)]
pub(super) struct Head {
    pinned: Option<InCookies>,
    sent: AtomicBool,
}

struct InCookies {
    slot: Arc<Pinned>,
    limit: usize,
}

/// What has to be compared after a change.
#[must_use]
pub(crate) struct Before {
    refusals: u64,
}

impl Head {
    /// The session is in cookies of at most this size.
    pub(super) fn carry(&mut self, slot: Arc<Pinned>, limit: usize) {
        self.pinned = Some(InCookies { slot, limit });
    }

    /// Whether the response head carries what changes.
    #[inline]
    pub(super) fn carries(&self) -> bool {
        self.pinned.is_some()
    }

    /// The response head is on its way.
    #[inline]
    pub(super) fn close(&self) {
        if self.carries() {
            self.sent.store(true, Ordering::SeqCst);
        }
    }

    /// Whether it can carry changes no more.
    pub(super) fn is_closed(&self) -> bool {
        self.carries() && self.sent.load(Ordering::SeqCst)
    }

    /// Called before a change. `None` where no head carries it.
    pub(super) fn before_change(&self) -> Result<Option<Before>, Error> {
        if self.is_closed() {
            return Err(Error::ResponseSent);
        }
        if let Some(cookies) = &self.pinned {
            let (refusals, _) = cookies.slot.refusals();
            return Ok(Some(Before { refusals }));
        }
        Ok(None)
    }

    /// Called after a change that the store has been told of: whether the head will carry it.
    pub(super) fn after_change(&self, before: Option<Before>) -> Result<(), Error> {
        if let (Some(before), Some(cookies)) = (&before, &self.pinned) {
            let (refusals, size) = cookies.slot.refusals();
            let limit = cookies.limit;
            if refusals > before.refusals {
                return Err(Error::TooLarge { size, limit });
            }
        }
        match before.is_some() && self.is_closed() {
            true => Err(Error::ResponseSent),
            false => Ok(()),
        }
    }
}
