//! Sign-outs that L2 has not heard of: how many there are, and who waits until there are none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use super::pending::Pending;

/// The sign-outs of one engine. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct SignOuts(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: watch::Sender<u64>,
    /// Those that wait no more.
    told: AtomicU64,
}

/// A sign-out that L2 has yet to be told of. It counts until this is dropped.
///
/// Whatever has to be told to L2 before a session is over holds one: a partition's sign-out while
/// it waits, and anything that ends several sessions at once.
pub(super) struct Untold(SignOuts);

impl SignOuts {
    /// One more, which L2 is to be told of.
    pub(super) fn begin(&self) -> Untold {
        self.0.waiting.send_modify(|waiting| *waiting += 1);
        Untold(self.clone())
    }

    /// How many L2 has not heard of.
    pub(super) fn pending(&self) -> u64 {
        *self.0.waiting.borrow()
    }

    /// How many L2 was told of, or need no telling any more, since the engine was built.
    pub(super) fn told(&self) -> u64 {
        self.0.told.load(Ordering::Relaxed)
    }

    /// Waits until L2 has every one.
    pub(super) async fn all_told(&self) {
        // The sender lives in this.
        let _ = self.0.waiting.subscribe().wait_for(|n| *n == 0).await;
    }
}

impl Drop for Untold {
    fn drop(&mut self) {
        let Self(SignOuts(shared)) = self;
        shared.told.fetch_add(1, Ordering::Relaxed);
        shared.waiting.send_modify(|waiting| *waiting -= 1);
    }
}

impl Pending {
    /// Counts the sign-out of this partition for as long as it waits. Called after every change.
    #[inline]
    pub(super) fn count_sign_out(&mut self, sign_outs: &SignOuts) {
        match (self.clear.is_some(), self.untold.is_some()) {
            (true, false) => self.untold = Some(sign_outs.begin()),
            (false, true) => self.untold = None,
            _ => {}
        }
    }
}
