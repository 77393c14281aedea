//! `Issue`: the session cookie of one response.

use parking_lot::{Mutex, MutexGuard};

use super::Cookie;
use super::cookie::{Found, new_session};
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
    /// The session that begins with the first change of an anonymous request.
    begun: Option<PartitionKey>,
    /// The session that the cookie names was signed out.
    has_left: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    AsItIs,
    Set,
    Remove,
}

/// The response head, which does not go out while this is held. Sessions of the handle come and go under it.
pub(crate) struct ResponseHead<'a> {
    state: MutexGuard<'a, LineState>,
    had: Option<&'a PartitionKey>,
}

impl ResponseHead<'_> {
    /// Whether it can carry a cookie.
    ///
    /// # Errors
    /// [`Error::ResponseSent`].
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        match self.state.is_closed {
            true => Err(Error::ResponseSent),
            false => Ok(()),
        }
    }

    /// The id of the session that begins with the first change of an anonymous request. Until the handle has it, all
    /// clones begin the same one.
    ///
    /// # Errors
    /// [`Error::Randomness`].
    pub(crate) fn begin(&mut self) -> Result<PartitionKey, Error> {
        if self.state.begun.is_none() {
            self.state.begun = new_session();
        }
        self.state.begun.clone().ok_or(Error::Randomness)
    }

    /// Whether this is the session that has begun, and it was not left since.
    pub(crate) fn has_begun(&self, session: &PartitionKey) -> bool {
        self.state.begun.as_ref() == Some(session)
    }

    /// The handle has a new session: the head, which is open, gives the browser its cookie.
    pub(crate) fn set(&mut self) {
        self.state.line = Line::Set;
    }

    /// The handle has none any more: the head takes the cookie away, if it is open.
    pub(crate) fn remove(&mut self) {
        if !self.state.is_closed {
            self.state.line = Line::Remove;
        }
    }

    /// The handle leaves its session. Returns the one that the cookie of the request names, at the first time.
    pub(crate) fn leave(&mut self) -> Option<PartitionKey> {
        self.state.begun = None;
        let had = self.had.filter(|_| !self.state.has_left);
        self.state.has_left = true;
        had.cloned()
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
                begun: None,
                has_left: false,
            }),
        }
    }

    /// The response head, whether it has gone out or not.
    pub(crate) fn head(&self) -> ResponseHead<'_> {
        ResponseHead {
            state: self.state.lock(),
            had: self.had.as_ref().map(|found| &found.session),
        }
    }

    /// From now on the head carries nothing more. `read` is called when no session of the handle can come before that,
    /// and hands on what it has read.
    pub(crate) fn close<T>(&self, read: impl FnOnce() -> T) -> T {
        let mut state = self.state.lock();
        state.is_closed = true;
        read()
    }

    /// The `Set-Cookie` line of the head, once it is [closed](Self::close); `session` is the handle's, and `goes_on`
    /// tells whether it was used and has not ended.
    pub(crate) fn line(
        &self,
        session: Option<&PartitionKey>,
        now: Timestamp,
        goes_on: impl FnOnce() -> bool,
    ) -> Option<String> {
        let line = self.state.lock().line;
        match line {
            // An id of the application's own may not fit.
            Line::Set => session
                .filter(|session| Cookie::fits(session))
                .map(|session| self.cookie.issue(session, now)),
            Line::Remove => Some(self.cookie.removal()),
            Line::AsItIs => {
                let had = self.had.as_ref()?;
                let session = session.filter(|session| **session == had.session)?;
                let renews = self.cookie.is_due(had.issued_at, now) && goes_on();
                renews.then(|| self.cookie.issue(session, now))
            }
        }
    }

    /// The `Set-Cookie` line of a response in place of the handler's: a broken cookie is removed.
    pub(crate) fn of_refusal(&self) -> Option<String> {
        let line = self.state.lock().line;
        (line == Line::Remove).then(|| self.cookie.removal())
    }

    /// Whether it issues ids in this cookie.
    pub(crate) fn is_of(&self, cookie: &Cookie) -> bool {
        self.cookie.has_name_of(cookie)
    }

    /// There will be no head. Returns whether a new session was begun, whose id no browser gets to know.
    pub(crate) fn abandon(&self) -> bool {
        let mut state = self.state.lock();
        let was_closed = std::mem::replace(&mut state.is_closed, true);
        !was_closed && state.line == Line::Set
    }
}
