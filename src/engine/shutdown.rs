//! Shutdown: writes what is pending, and reports what could not be written.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::engine::core::Engine;
use crate::mutation::{self, Mutation};
use crate::race::{Either, race};

/// The result of [`TokenCache::shutdown`](crate::TokenCache::shutdown).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Changes that reached L2 during the shutdown.
    pub flushed: u64,
    /// Changes that did not reach L2 by the deadline.
    pub abandoned: u64,
    /// Sign-outs that L2 acknowledged during the shutdown.
    pub sign_outs_flushed: u64,
    /// Sign-outs that L2 did not acknowledge, and that are in no [journal](crate::Builder::journal): these
    /// sessions go on.
    pub sign_outs_abandoned: u64,
    /// Sign-outs that L2 did not acknowledge, and that the next process with this journal will send to it.
    pub sign_outs_journaled: u64,
}

impl Engine {
    /// Refuses further changes, and writes the pending ones until the deadline.
    pub(crate) async fn shut_down(self: &Arc<Self>, deadline: Duration) -> ShutdownReport {
        let before = self.counters.flushed_changes.get();
        let acknowledged_before = self.sign_outs.acknowledged();
        self.close();
        let (mut waiting, drained) = oneshot::channel();
        let drains = self.clone();
        self.runtime.spawn(async move {
            // `self` must not be kept for ever by an L2 that stays away.
            if let Either::Second(()) = race(waiting.closed(), drains.drain()).await {
                // Fails if the caller has stopped waiting.
                let _ = waiting.send(());
            }
        });
        let in_time = matches!(self.bounded(deadline, drained).await, Ok(Ok(())));
        let abandoned = match mutation::is(Mutation::ShutdownWithoutDrain) {
            true => 0,
            false => self.budget.pending(),
        };
        self.journal_what_waits().await;
        let sign_outs_journaled = self.sign_outs.kept();
        let sign_outs_abandoned = self.sign_outs.pending().saturating_sub(sign_outs_journaled);
        self.counters.abandoned_changes.add(abandoned);
        self.counters.abandoned_sign_outs.add(sign_outs_abandoned);
        if !in_time {
            tracing::error!(
                abandoned,
                sign_outs_abandoned,
                sign_outs_journaled,
                "shut down before the drain ended"
            );
        }
        ShutdownReport {
            flushed: self.counters.flushed_changes.get() - before,
            abandoned,
            sign_outs_flushed: self.sign_outs.acknowledged() - acknowledged_before,
            sign_outs_abandoned,
            sign_outs_journaled,
        }
    }

    /// Waits until L2 has every change and every sign-out.
    async fn drain(&self) {
        self.operations.ended().await;
        // A flight that has spent a refresh token has its successor to write.
        self.flights.all_ended().await;
        if !mutation::is(Mutation::ShutdownWithoutDrain) {
            self.budget.drained().await;
        }
        self.sign_outs.all_acknowledged().await;
        self.coherence.close();
    }
}
