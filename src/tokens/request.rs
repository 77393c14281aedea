//! The end of the request that a handle was made for.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::Tokens;
use crate::engine::write::CommitWait;
use crate::lookup::CacheLevel;
use crate::policy::{FailurePolicy, WriteMode};

impl Tokens {
    /// Whether no clone is left. What they did is then seen.
    #[inline]
    fn is_alone(&self) -> bool {
        let alone = Arc::strong_count(&self.handle) == 1;
        if alone {
            // Pairs with the release of their references.
            fence(Ordering::Acquire);
        }
        alone
    }

    /// The request is over, as far as this concerns: what it has changed goes to L2, and what is
    /// changed from now on goes as it is made.
    pub(crate) fn end(&self) {
        if !self.is_alone() {
            self.handle.ended.store(true, Ordering::SeqCst);
        }
        if let Some(issue) = &self.handle.issue
            && issue.abandon()
            && let Some(session) = self.handle.sessions.latest()
        {
            self.handle.engine.forget_session(&session.partition);
        }
        if self.handle.changed.load(Ordering::SeqCst)
            && let Some(session) = self.handle.sessions.latest()
        {
            self.handle.engine.enqueue(&session.partition);
        }
    }

    /// The commit for which the response head has to wait, if any.
    #[inline]
    pub(crate) fn commit_before_head(&self) -> Option<CommitWait> {
        match self.handle.changed.load(Ordering::Acquire) {
            true => self.commit_if_due(),
            false => None,
        }
    }

    fn commit_if_due(&self) -> Option<CommitWait> {
        let handle = &*self.handle;
        let due = handle.urgent.load(Ordering::Acquire)
            || handle.write_mode.load(Ordering::Relaxed) == WriteMode::BeforeResponse as u8
            || self.failure_policy() == FailurePolicy::Strict;
        let session = handle.sessions.latest().filter(|_| due)?;
        Some(handle.engine.commit(&session.partition))
    }

    /// The `Set-Cookie` line of the response head, where the layer issues session ids. A cookie is renewed only
    /// where this request has found a token, and the session has not ended since, as far as this process knows: a
    /// late response must not put it in the place of the next one.
    pub(crate) fn session_cookie(&self) -> Option<String> {
        let handle = &*self.handle;
        let issue = handle.issue.as_ref()?;
        let session = handle.sessions.latest();
        let goes_on = || {
            let found = matches!(self.last_read(), CacheLevel::L1 | CacheLevel::L2);
            let ended = session.is_some_and(|session| {
                let observed = session.observe();
                observed
                    .is_some_and(|observed| handle.engine.has_ended(&session.partition, &observed))
            });
            found && !ended
        };
        let partition = session.map(|session| &session.partition);
        issue.finish(partition, handle.engine.clock.now(), goes_on)
    }

    /// Whether the response may go out after this end of a commit.
    pub(crate) fn may_respond(&self, ended: <CommitWait as Future>::Output) -> bool {
        self.handle
            .engine
            .finish(self.failure_policy(), ended)
            .is_ok()
    }
}

/// Ends its request on drop, whatever dropped it: the head of the response, a disconnect, a panic.
/// The body may go on for hours, and nothing waits for it.
#[derive(Debug)]
pub(crate) struct RequestGuard(pub(crate) Tokens);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.end();
    }
}
