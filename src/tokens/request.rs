//! The end of the request that a handle was made for.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use futures_util::future::{JoinAll, join_all};

use super::{Session, Tokens};
use crate::engine::write::CommitWait;
use crate::policy::{FailurePolicy, WriteMode};

/// What a response head waits for.
pub(crate) type CommitsBeforeHead = JoinAll<CommitWait>;

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
        for session in self.handle.sessions.iter().filter(|it| it.is_changed()) {
            self.handle.engine.enqueue(&session.partition);
        }
    }

    /// The commits for which the response head has to wait, if any: of each session that was changed.
    #[inline]
    pub(crate) fn commits_before_head(&self) -> Option<CommitsBeforeHead> {
        let mut sessions = self.handle.sessions.iter();
        match sessions.any(Session::is_changed) {
            true => self.commits_that_are_due(),
            false => None,
        }
    }

    fn commits_that_are_due(&self) -> Option<CommitsBeforeHead> {
        let handle = &*self.handle;
        let all = handle.write_mode.load(Ordering::Relaxed) == WriteMode::BeforeResponse as u8
            || self.failure_policy() == FailurePolicy::Strict;
        let changed = handle.sessions.iter().filter(|it| it.is_changed());
        let due = changed.filter(|session| all || session.is_urgent());
        let commits = Vec::from_iter(due.map(|session| handle.engine.commit(&session.partition)));
        (!commits.is_empty()).then(|| join_all(commits))
    }

    /// The `Set-Cookie` line of the response head, where the layer issues session ids. A cookie is renewed only
    /// where this request has used the session, and it has not ended since, as far as this process knows: a
    /// late response must not put it in the place of the next one.
    pub(crate) fn session_cookie(&self) -> Option<String> {
        let handle = &*self.handle;
        let issue = handle.issue.as_ref()?;
        let session = issue.close(|| handle.sessions.latest());
        let goes_on = || {
            session.is_some_and(|session| {
                let observed = session.observe();
                let ended = observed
                    .is_some_and(|observed| handle.engine.has_ended(&session.partition, &observed));
                session.is_used() && !ended
            })
        };
        let partition = session.map(|session| &session.partition);
        issue.line(partition, handle.engine.clock.now(), goes_on)
    }

    /// Whether the response may go out after these ends of commits.
    pub(crate) fn may_respond(&self, ended: <CommitsBeforeHead as Future>::Output) -> bool {
        let (engine, policy) = (&self.handle.engine, self.failure_policy());
        let mut ended = ended.into_iter();
        ended.all(|ended| engine.finish(policy, ended).is_ok())
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
