//! The gate of a call: open while the lease is held, so that a process which has lost it polls the call no further. A request that is
//! on its way to the provider it cannot stop.

use std::sync::OnceLock;
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use crate::acquire::AcquireFuture;
use crate::engine::error::L2Error;
use crate::engine::sync::until::Until;

/// The output of an acquire function.
pub(crate) type ProviderAnswer = <AcquireFuture as Future>::Output;

/// Decides whether the work may be polled. Initially shut.
#[derive(Default)]
pub(crate) struct Gate {
    opening: Mutex<Opening>,
    /// Why the work goes on without the lease that it had.
    lost_lease: OnceLock<L2Error>,
    worker: AtomicWaker,
}

#[derive(Default)]
enum Opening {
    #[default]
    Shut,
    Until(Until),
    ForGood,
}

impl Gate {
    /// Stops the work until it is allowed again.
    pub(crate) fn shut(&self) {
        *self.opening.lock() = Opening::Shut;
    }

    /// Lets the work run until then; `None` means without limit.
    pub(crate) fn allow_until(&self, until: Option<Until>) {
        *self.opening.lock() = until.map_or(Opening::ForGood, Opening::Until);
        self.worker.wake();
    }

    /// Lets the work run without the lease that it had, because of this failure of L2.
    pub(crate) fn allow_without_lease(&self, failure: L2Error) {
        let _ = self.lost_lease.set(failure);
        self.allow_until(None);
    }

    /// Why there is no lease any more.
    pub(crate) fn lost_lease(&self) -> Option<&L2Error> {
        self.lost_lease.get()
    }

    pub(super) fn poll(
        &self,
        work: &mut AcquireFuture,
        context: &mut Context<'_>,
    ) -> Poll<ProviderAnswer> {
        // Registered before the gate is checked, so that no opening is missed in between.
        self.worker.register(context.waker());
        let is_open = match &*self.opening.lock() {
            Opening::Shut => false,
            Opening::Until(until) => !until.is_over(),
            Opening::ForGood => true,
        };
        match is_open {
            true => work.as_mut().poll(context),
            false => Poll::Pending,
        }
    }
}
