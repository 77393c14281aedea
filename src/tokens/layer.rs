//! What the layer gives a request's handle, and asks of it.

use std::sync::Arc;

use super::Tokens;
use super::head::Before;
use crate::challenge::{BEARER, INVALID_TOKEN};
use crate::cookie::Pinned;
use crate::error::Error;
use crate::key::{PartitionKey, PartitionKind};
use crate::session::{Cookie, Issue};

impl Tokens {
    /// The same handle, of a session in cookies of at most this size. It has no clones yet.
    pub(crate) fn in_cookies(mut self, slot: &Arc<Pinned>, limit: usize) -> Self {
        if let Some(handle) = Arc::get_mut(&mut self.handle) {
            handle.head.carry(slot.clone(), limit);
        }
        self
    }

    /// The same handle, of a layer that issues session ids. It has no clones yet.
    pub(crate) fn issuing(mut self, issue: Issue) -> Self {
        if let Some(handle) = Arc::get_mut(&mut self.handle) {
            handle.issue = Some(Box::new(issue));
        }
        self
    }

    /// The same handle, of a layer whose requests bring a bearer token. It has no clones yet.
    pub(crate) fn by_bearer(mut self) -> Self {
        if let Some(handle) = Arc::get_mut(&mut self.handle) {
            handle.by_bearer = true;
        }
        self
    }

    /// What a 401 asks for where requests bring a bearer token: whether this one has brought any (RFC 6750 §3.1).
    pub(crate) fn bearer_challenge(&self) -> Option<&'static str> {
        let key = self.handle.sessions.first().map(|it| &it.partition);
        let has_one = key.is_some_and(|key| key.kind() == PartitionKind::Assertion);
        self.handle.by_bearer.then_some(match has_one {
            true => INVALID_TOKEN,
            false => BEARER,
        })
    }

    /// Whether it is a handle of a request, whose response head carries session ids in this cookie.
    pub(crate) fn is_issued(&self, cookie: &Cookie) -> bool {
        let issue = self.handle.issue.as_ref();
        issue.is_some_and(|issue| issue.is_of(cookie))
    }

    /// Whether its request had this key.
    pub(crate) fn came_with(&self, key: Option<&PartitionKey>) -> bool {
        let first = self.handle.sessions.first();
        first.map(|session| &session.partition) == key
    }

    /// Whether the response head carries what changes.
    #[inline]
    pub(crate) fn is_in_cookies(&self) -> bool {
        self.handle.head.carries()
    }

    /// The response head is on its way.
    #[inline]
    pub(crate) fn close(&self) {
        self.handle.head.close();
    }

    /// Called before a change, and then [`after_change`](Self::after_change).
    pub(crate) fn before_change(&self) -> Result<Option<Before>, Error> {
        self.handle.head.before_change()
    }

    /// Fails where a response head should have carried the change that was made, and can no longer do so.
    pub(crate) fn after_change(&self, before: Option<Before>) -> Result<(), Error> {
        self.handle.head.after_change(before)
    }
}
