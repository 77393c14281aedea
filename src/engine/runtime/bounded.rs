//! The limit on how long a caller waits, whatever the engine does meanwhile.

use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep};

use crate::engine::core::Engine;
use crate::engine::error::L2Error;
use crate::engine::sync::allowance::Allowance;
use crate::error::StoreErrorKind;
use crate::key::PartitionKey;
use crate::race::race;

/// Callers wait this much longer than the engine takes at most: the engine's answer says more than a timeout.
const MARGIN: Duration = Duration::from_millis(50);

/// The time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Elapsed;

pin_project! {
    /// A future with a deadline.
    pub(crate) struct Bounded<F> {
        #[pin]
        future: F,
        #[pin]
        timer: Timer,
    }
}

pin_project! {
    /// A timer of the runtime that polls, so that it also fires when the engine's runtime is blocked. Outside
    /// of a runtime, a timer of the engine's; it also fires when that runtime has ended.
    #[project = TimerProjection]
    enum Timer {
        Caller {
            #[pin]
            sleep: Sleep,
        },
        Engine {
            #[pin]
            over: oneshot::Receiver<()>,
        },
    }
}

impl Engine {
    /// When a call that begins now times out.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.l2.timeouts.operation
    }

    /// Waits for `future`, work of the engine, until `deadline` and a little longer.
    pub(crate) fn awaited<F: Future>(&self, deadline: Instant, future: F) -> Bounded<F> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.bounded(left.saturating_add(MARGIN), future)
    }

    /// How long an acquisition that begins now waits for L2.
    pub(crate) fn allowance(&self) -> Allowance {
        Allowance::new(self.l2.timeouts.operation, self.acquisitions.lease_ttl)
    }

    /// Waits for `work` of L2 while the allowance lasts. What needs no waiting is done in any case.
    pub(crate) async fn wait_for_l2<F: Future>(
        &self,
        allowance: &Allowance,
        work: F,
    ) -> Result<F::Output, L2Error> {
        self.wait_in_steps(allowance, || false, pin!(work)).await
    }

    /// The same for what decides whether the provider may be asked. Where L2 answers others meanwhile, it is busy, and not
    /// away: no refresh token is redeemed without a lease because of that, and so this uses nothing of the allowance up
    /// unless L2 turns out to take no changes.
    pub(crate) async fn wait_for_busy_l2<F: Future>(
        &self,
        allowance: &Allowance,
        key: &PartitionKey,
        work: F,
    ) -> Result<F::Output, L2Error> {
        // The partition's name in L2 costs a hash.
        let shard = LazyLock::new(|| self.l2.shard_of(key));
        let (began, limit) = (Instant::now(), self.l2.timeouts.attempt_time());
        let is_busy = || {
            let lately = Instant::now().checked_sub(limit);
            let lately = lately.map_or(began, |it| it.max(began));
            shard.answers_since(lately) && allowance.is_patient()
        };
        self.wait_in_steps(allowance, is_busy, pin!(work)).await
    }

    async fn wait_in_steps<F: Future>(
        &self,
        allowance: &Allowance,
        is_busy: impl Fn() -> bool,
        mut work: Pin<&mut F>,
    ) -> Result<F::Output, L2Error> {
        if let Some(output) = at_once(work.as_mut()).await {
            return Ok(output);
        }
        loop {
            // Before the step ends, because an answer to this work is no answer to others.
            let was_busy = is_busy();
            let (began, step) = (Instant::now(), allowance.step(was_busy));
            let ended = self.bounded(step, work.as_mut()).await;
            let waited = began.elapsed().min(step);
            match was_busy || (ended.is_err() && is_busy()) {
                true => allowance.defer(waited),
                false => allowance.spend(waited),
            }
            match ended {
                Ok(output) => return Ok(output),
                Err(Elapsed) if allowance.lasts() => {}
                Err(Elapsed) => return Err(L2Error::of(StoreErrorKind::Timeout)),
            }
        }
    }

    /// Waits for `future` for at most `limit`.
    pub(crate) fn bounded<F: Future>(&self, limit: Duration, future: F) -> Bounded<F> {
        let timer = match Handle::try_current() {
            Ok(_) => Timer::Caller {
                sleep: sleep(limit),
            },
            Err(_) => {
                let (mut waiting, over) = oneshot::channel();
                self.runtime.spawn(async move {
                    // Ends when the waiting future is dropped. When this sender is dropped, the time is up.
                    race(waiting.closed(), sleep(limit)).await;
                });
                Timer::Engine { over }
            }
        };
        Bounded { future, timer }
    }
}

/// What needs no waiting: most of what is asked for is in memory, and costs no timer then.
async fn at_once<F: Future>(mut work: Pin<&mut F>) -> Option<F::Output> {
    let polled = poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await;
    match polled {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

impl<F: Future> Future for Bounded<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(context) {
            return Poll::Ready(Ok(output));
        }
        let over = match this.timer.project() {
            TimerProjection::Caller { sleep } => sleep.poll(context).is_ready(),
            TimerProjection::Engine { over } => over.poll(context).is_ready(),
        };
        match over {
            true => Poll::Ready(Err(Elapsed)),
            false => Poll::Pending,
        }
    }
}

impl<F> fmt::Debug for Bounded<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bounded").finish_non_exhaustive()
    }
}
