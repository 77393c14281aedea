//! Changes that the response head carries, where sessions live in cookies.

#[cfg(feature = "cookie")]
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Tokens;
use crate::error::Error;
#[cfg(feature = "cookie")]
use crate::store::Pinned;

/// A handle's relation to the response head: none, unless its session lives in cookies.
#[derive(Default)]
pub(super) struct Head {
    #[cfg(feature = "cookie")]
    pinned: Option<InCookies>,
    sent: AtomicBool,
}

#[cfg(feature = "cookie")]
struct InCookies {
    slot: Arc<Pinned>,
    limit: usize,
}

/// What has to be compared after a change.
#[must_use]
pub(crate) struct Before {
    #[cfg_attr(not(feature = "cookie"), expect(dead_code))]
    refusals: u64,
}

impl Tokens {
    /// The same handle, of a session in cookies of at most this size. It has no clones yet.
    #[cfg(feature = "cookie")]
    pub(crate) fn in_cookies(mut self, slot: &Arc<Pinned>, limit: usize) -> Self {
        if let Some(handle) = Arc::get_mut(&mut self.0) {
            let slot = slot.clone();
            handle.head.pinned = Some(InCookies { slot, limit });
        }
        self
    }

    /// Whether the response head carries what changes.
    #[inline]
    pub(crate) fn is_in_cookies(&self) -> bool {
        #[cfg(feature = "cookie")]
        return self.0.head.pinned.is_some();
        #[cfg(not(feature = "cookie"))]
        false
    }

    /// The response head is on its way.
    #[inline]
    pub(crate) fn close(&self) {
        if self.is_in_cookies() {
            self.0.head.sent.store(true, Ordering::SeqCst);
        }
    }

    /// Whether it can carry changes no more.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_in_cookies() && self.0.head.sent.load(Ordering::SeqCst)
    }

    /// Called before a change. `None` where no head carries it.
    pub(crate) fn before_change(&self) -> Result<Option<Before>, Error> {
        if self.is_closed() {
            return Err(Error::ResponseSent);
        }
        #[cfg(feature = "cookie")]
        if let Some(cookies) = &self.0.head.pinned {
            let (refusals, _) = cookies.slot.refusals();
            return Ok(Some(Before { refusals }));
        }
        Ok(None)
    }

    /// Called after a change that the store has been told of: whether the head will carry it.
    pub(crate) fn after_change(&self, before: Option<Before>) -> Result<(), Error> {
        #[cfg(feature = "cookie")]
        if let (Some(before), Some(cookies)) = (&before, &self.0.head.pinned) {
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
