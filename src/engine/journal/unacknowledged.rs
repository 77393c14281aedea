//! Counts the sign-outs that L2 has not acknowledged, and lets a shutdown wait until there are none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use crate::engine::journal::journaled::Journaled;

/// The unacknowledged sign-outs of one engine. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct SignOuts(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: watch::Sender<u64>,
    /// How many of them are in the journal.
    kept: AtomicU64,
    /// How many have ended since the engine was built.
    ended: AtomicU64,
}

/// A sign-out that L2 has not acknowledged. It is counted until this is dropped.
///
/// Whatever L2 has to acknowledge before a session is over holds one: a partition's sign-out while it is
/// pending, and anything that ends several sessions at once.
#[must_use]
pub(crate) struct Unacknowledged {
    sign_outs: SignOuts,
    kept: Option<Journaled>,
}

impl SignOuts {
    /// Counts one more.
    pub(crate) fn begin(&self) -> Unacknowledged {
        self.0.waiting.send_modify(|waiting| *waiting += 1);
        Unacknowledged {
            sign_outs: self.clone(),
            kept: None,
        }
    }

    /// How many L2 has not acknowledged.
    pub(crate) fn pending(&self) -> u64 {
        *self.0.waiting.borrow()
    }

    /// How many of them are in the journal, so that the next process sends them to L2.
    pub(crate) fn kept(&self) -> u64 {
        self.0.kept.load(Ordering::Relaxed)
    }

    /// How many L2 has acknowledged, or are not needed any more, since the engine was built.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.0.ended.load(Ordering::Relaxed)
    }

    /// Waits until none is unacknowledged.
    pub(crate) async fn all_acknowledged(&self) {
        // Cannot fail: the sender is in `self`.
        let _ = self.0.waiting.subscribe().wait_for(|n| *n == 0).await;
    }
}

impl Unacknowledged {
    /// L2 has acknowledged it, or it is not needed any more.
    pub(crate) fn acknowledged(mut self) {
        self.forget();
    }

    /// It is in the journal now.
    pub(crate) fn keep(&mut self, kept: Journaled) {
        let replaced = match &self.kept {
            Some(known) if !kept.is_later_than(known) => Some(kept),
            Some(_) => self.kept.replace(kept),
            None => {
                self.sign_outs.0.kept.fetch_add(1, Ordering::Relaxed);
                self.kept = Some(kept);
                None
            }
        };
        // The later record covers the earlier one.
        if let Some(replaced) = replaced {
            replaced.forget();
        }
    }

    /// Takes over the journal's records of another sign-out of the same partition or user.
    pub(crate) fn absorb(&mut self, mut other: Self) {
        match (&mut self.kept, other.take_kept()) {
            (Some(kept), Some(more)) => kept.absorb(more),
            (None, Some(more)) => self.keep(more),
            (_, None) => {}
        }
    }

    pub(crate) fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    fn forget(&mut self) {
        if let Some(kept) = self.take_kept() {
            kept.forget();
        }
    }

    fn take_kept(&mut self) -> Option<Journaled> {
        let kept = self.kept.take();
        if kept.is_some() {
            self.sign_outs.0.kept.fetch_sub(1, Ordering::Relaxed);
        }
        kept
    }
}

impl Drop for Unacknowledged {
    fn drop(&mut self) {
        // The records stay in the journal: L2 has not acknowledged the sign-out.
        self.take_kept();
        let SignOuts(shared) = &self.sign_outs;
        shared.ended.fetch_add(1, Ordering::Relaxed);
        shared.waiting.send_modify(|waiting| *waiting -= 1);
    }
}
