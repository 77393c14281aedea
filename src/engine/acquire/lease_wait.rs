//! The lease wait: the pauses after which a flight reads L2 again while another instance has the lease. They grow, and end when the
//! feed announces a change.

use std::pin::Pin;
use std::time::Duration;

use tokio::sync::futures::Notified;
use tokio::time::{Instant, timeout};

use crate::engine::acquire::lease::LAST_POLL;
use crate::engine::core::Engine;
use crate::random::{SLIGHTLY, jittered};

/// The first pause between two reads of L2 while another instance holds the lease; it grows.
const FIRST_POLL: Duration = Duration::from_millis(20);

/// How long a flight waits for the lease.
pub(crate) struct LeaseWait {
    pause: Duration,
    over: Instant,
}

impl LeaseWait {
    pub(crate) fn new(engine: &Engine) -> Self {
        let now = Instant::now();
        Self {
            pause: FIRST_POLL,
            over: now + engine.acquisitions.timeout + engine.acquisitions.lease_ttl,
        }
    }

    /// Pauses for the poll interval, or until the feed announces a change.
    pub(crate) async fn pause(&mut self, changed: Pin<&mut Notified<'_>>) {
        let _ = timeout(jittered(self.pause, SLIGHTLY), changed).await;
        self.pause = (self.pause * 3 / 2).min(LAST_POLL);
    }

    /// Pauses because another owner has the lease for `remaining`.
    pub(crate) async fn pause_while_held(
        &mut self,
        remaining: Duration,
        changed: Pin<&mut Notified<'_>>,
    ) {
        self.pause = self.pause.min(remaining.max(FIRST_POLL));
        self.pause(changed).await;
    }

    pub(crate) fn is_over(&self) -> bool {
        Instant::now() > self.over
    }
}
