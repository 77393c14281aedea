//! The end of the request that a handle was made for.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::Tokens;
use crate::engine::write::CommitWait;
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
        if self.handle.changed.load(Ordering::SeqCst)
            && let Some(partition) = &self.handle.partition
        {
            self.handle.engine.enqueue(partition);
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
        let partition = handle.partition.as_ref().filter(|_| due)?;
        Some(handle.engine.commit(partition))
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
