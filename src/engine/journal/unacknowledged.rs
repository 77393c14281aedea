//! Sign-outs that L2 has not heard of: how many there are, and who waits until there are none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use crate::engine::journal::journaled::Journaled;

/// The sign-outs of one engine. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct SignOuts(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: watch::Sender<u64>,
    /// Those of them that are in the journal.
    kept: AtomicU64,
    /// Those that wait no more.
    told: AtomicU64,
}

/// A sign-out that L2 has yet to be told of. It counts until this is dropped.
///
/// Whatever has to be told to L2 before a session is over holds one: a partition's sign-out while
/// it waits, and anything that ends several sessions at once.
#[must_use]
pub(crate) struct Unacknowledged {
    sign_outs: SignOuts,
    kept: Option<Journaled>,
}

impl SignOuts {
    /// One more, which L2 is to be told of.
    pub(crate) fn begin(&self) -> Unacknowledged {
        self.0.waiting.send_modify(|waiting| *waiting += 1);
        Unacknowledged {
            sign_outs: self.clone(),
            kept: None,
        }
    }

    /// How many L2 has not heard of.
    pub(crate) fn pending(&self) -> u64 {
        *self.0.waiting.borrow()
    }

    /// How many of them are in the journal: the next process tells L2.
    pub(crate) fn kept(&self) -> u64 {
        self.0.kept.load(Ordering::Relaxed)
    }

    /// How many L2 was told of, or need no telling any more, since the engine was built.
    pub(crate) fn told(&self) -> u64 {
        self.0.told.load(Ordering::Relaxed)
    }

    /// Waits until L2 has every one.
    pub(crate) async fn all_told(&self) {
        // The sender lives in this.
        let _ = self.0.waiting.subscribe().wait_for(|n| *n == 0).await;
    }
}

impl Unacknowledged {
    /// L2 has been told, or need not be any more.
    pub(crate) fn told(mut self) {
        self.forget();
    }

    /// It is in the journal.
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
        // The later one has it all.
        if let Some(replaced) = replaced {
            replaced.forget();
        }
    }

    /// Takes over what another one of the same partition has in the journal.
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
        // What is in the journal stays there: nobody has said that L2 was told.
        self.take_kept();
        let SignOuts(shared) = &self.sign_outs;
        shared.told.fetch_add(1, Ordering::Relaxed);
        shared.waiting.send_modify(|waiting| *waiting -= 1);
    }
}
