//! The call of an acquire function: it runs on the runtime on which it was made, only while a lease is held,
//! and knows the acquisitions that it is nested in.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::acquire::{AcquireError, AcquireErrorKind, AcquireFuture, Prior};
use crate::engine::acquire::flights::{FlightId, Place};
use crate::engine::acquire::gate::{Gate, ProviderAnswer};
use crate::engine::core::Engine;
use crate::engine::sync::waits::Waiting;

type Function = Box<dyn FnOnce(Prior) -> AcquireFuture + Send>;

/// The acquire function of the request that starts a flight, and the runtime of that request.
pub(crate) struct Call {
    function: Function,
    runtime: Option<Handle>,
    /// The acquire function that it was made in, if any.
    within: Option<Arc<Within>>,
}

/// An acquire function that is running.
pub(crate) struct Within {
    engine: Weak<Engine>,
    flight: FlightId,
    number: u64,
    /// It redeems the refresh token: no other acquisition of the partition begins before its end.
    redeems: bool,
    /// The acquire function that it runs in, if any.
    within: Option<Arc<Self>>,
    /// How an acquisition that this function has made failed last.
    failed: Mutex<Option<AcquireErrorKind>>,
}

tokio::task_local! {
    static WITHIN: Arc<Within>;
}

/// The error if an acquire function asks for a token that depends on its own end.
fn waits_for_itself() -> AcquireError {
    let source = "an acquire function has asked for a token of its own partition, which waits for it to end: \
                  get that token before, or take what `Prior` has";
    AcquireError::new(AcquireErrorKind::Failed).with_source(source.into())
}

/// A call in progress; it is stopped on drop.
pub(crate) struct RunningCall {
    task: JoinHandle<ProviderAnswer>,
    pub(crate) within: Arc<Within>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    Panicked,
    /// The runtime that it ran on has ended.
    Stopped,
}

impl Call {
    pub(crate) fn new(function: impl FnOnce(Prior) -> AcquireFuture + Send + 'static) -> Self {
        Self {
            function: Box::new(function),
            runtime: Handle::try_current().ok(),
            within: WITHIN.try_with(Arc::clone).ok(),
        }
    }

    /// Notes that the acquire function that this acquisition was made in waits for it. An error if it would wait
    /// for that function's end, perhaps by way of others.
    pub(crate) fn wait_within<'a>(
        &self,
        engine: &'a Arc<Engine>,
        flight: impl FnOnce() -> FlightId,
    ) -> Result<Option<Waiting<'a, Place>>, AcquireError> {
        let outer = std::iter::successors(self.within.as_ref(), |it| it.within.as_ref());
        let mut outer = outer.filter(|it| std::ptr::eq(it.engine.as_ptr(), Arc::as_ptr(engine)));
        let Some(outer) = outer.next() else {
            return Ok(None);
        };
        engine.flights.leave_slot(&outer.flight, outer.number);
        let [is_awaited, redemption] = outer.flight.places();
        let from = match outer.redeems {
            true => vec![is_awaited, redemption],
            false => vec![is_awaited],
        };
        let waiting = engine.flights.waits.enter(from, flight().places().into());
        waiting.map(Some).ok_or_else(waits_for_itself)
    }

    /// The acquire function that this acquisition was made in, if any.
    pub(crate) fn within(&self) -> Option<Arc<Within>> {
        self.within.clone()
    }

    /// Starts the call, on the runtime of `engine` if it has none of its own. It is polled only while the
    /// gate is open.
    pub(crate) fn start(
        self,
        prior: Prior,
        engine: &Arc<Engine>,
        (flight, number): (&FlightId, u64),
        gate: &Arc<Gate>,
    ) -> RunningCall {
        let (function, gate) = (self.function, gate.clone());
        let within = Arc::new(Within {
            engine: Arc::downgrade(engine),
            flight: flight.clone(),
            number,
            redeems: prior.refresh_token.is_hit(),
            within: self.within,
            failed: Mutex::new(None),
        });
        // Inside the task, because the function may panic as well as its future.
        let mut work: AcquireFuture = Box::pin(async move { function(prior).await });
        let task = poll_fn(move |context| gate.poll(&mut work, context));
        let task = task.instrument(tracing::debug_span!("token_cache.provider").or_current());
        RunningCall {
            within: within.clone(),
            task: self
                .runtime
                .as_ref()
                .unwrap_or(&engine.runtime)
                .spawn(WITHIN.scope(within, task)),
        }
    }
}

impl Within {
    /// An acquisition that this function has made has failed.
    pub(crate) fn has_failed(&self, kind: AcquireErrorKind) {
        *self.failed.lock() = Some(kind);
    }

    /// Whether a failure of this kind is that of another acquisition, which was recorded there.
    pub(crate) fn passes_on(&self, kind: AcquireErrorKind) -> bool {
        *self.failed.lock() == Some(kind)
    }
}

impl Future for RunningCall {
    type Output = Result<ProviderAnswer, NoAnswer>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.task)
            .poll(context)
            .map_err(|error| match error.is_panic() {
                true => NoAnswer::Panicked,
                false => NoAnswer::Stopped,
            })
    }
}

impl Drop for RunningCall {
    fn drop(&mut self) {
        self.task.abort();
    }
}
