//! `Issue`: the session cookie of one response.

use parking_lot::{Mutex, MutexGuard};

use super::Cookie;
use super::cookie::Found;
use crate::error::Error;
use crate::key::{KeyError, PartitionKey};
use crate::time::Timestamp;

/// What becomes of the session cookie in the response to one request.
pub(crate) struct Issue {
    cookie: Cookie,
    /// The session that the cookie of the request names, and when that was issued.
    had: Option<Found>,
    state: Mutex<LineState>,
}

struct LineState {
    line: Line,
    /// The head is on its way, or there will be none.
    is_closed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    AsItIs,
    Set,
    Remove,
}

/// A response head that has not gone out.
pub(crate) struct Open<'a>(MutexGuard<'a, LineState>);

impl Open<'_> {
    /// The handle has a new session: the head gives the browser its cookie.
    pub(crate) fn set(mut self) {
        self.0.line = Line::Set;
    }

    /// The handle has none any more: the head takes the cookie away.
    pub(crate) fn remove(mut self) {
        self.0.line = Line::Remove;
    }
}

impl Issue {
    /// `found` is what the cookie of the request names. A broken cookie is removed: it would be sent for ever.
    pub(crate) fn new(cookie: Cookie, found: Result<Option<Found>, KeyError>) -> Self {
        let line = match found {
            Ok(_) => Line::AsItIs,
            Err(_) => Line::Remove,
        };
        Self {
            cookie,
            had: found.ok().flatten(),
            state: Mutex::new(LineState {
                line,
                is_closed: false,
            }),
        }
    }

    /// The response head as long as it can carry a cookie. It does not go out while this is held.
    ///
    /// # Errors
    /// [`Error::ResponseSent`].
    pub(crate) fn open(&self) -> Result<Open<'_>, Error> {
        let state = self.state.lock();
        match state.is_closed {
            true => Err(Error::ResponseSent),
            false => Ok(Open(state)),
        }
    }

    /// The `Set-Cookie` line of the head; `session` is the handle's, and `goes_on` tells whether it was used and
    /// has not ended. Later changes are too late.
    pub(crate) fn finish(
        &self,
        session: Option<&PartitionKey>,
        now: Timestamp,
        goes_on: impl FnOnce() -> bool,
    ) -> Option<String> {
        let line = {
            let mut state = self.state.lock();
            state.is_closed = true;
            state.line
        };
        match line {
            Line::Set => session.map(|session| self.cookie.issue(session, now)),
            Line::Remove => Some(self.cookie.removal()),
            Line::AsItIs => {
                let had = self.had.as_ref()?;
                let session = session.filter(|session| **session == had.session)?;
                let renews = self.cookie.is_due(had.issued_at, now) && goes_on();
                renews.then(|| self.cookie.issue(session, now))
            }
        }
    }

    /// There will be no head. Returns whether a new session was begun, whose id no browser gets to know.
    pub(crate) fn abandon(&self) -> bool {
        let mut state = self.state.lock();
        let was_closed = std::mem::replace(&mut state.is_closed, true);
        !was_closed && state.line == Line::Set
    }
}
