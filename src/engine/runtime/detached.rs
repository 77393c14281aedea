//! Operations of several steps. They run on the engine's runtime to their end, even if the caller stops
//! waiting.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::engine::core::Engine;
use crate::engine::error::L2Error;
use crate::error::StoreErrorKind;

/// Counts one such operation until it is dropped.
struct UnderWay(Arc<Engine>);

impl UnderWay {
    fn begin(engine: &Arc<Engine>) -> Self {
        engine.operations.0.send_modify(|count| *count += 1);
        Self(engine.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.operations.0.send_modify(|count| *count -= 1);
    }
}

impl Engine {
    /// Runs `work` on the engine's runtime, and waits for it until `deadline`. After that it still runs to
    /// its end, and a shutdown waits for it.
    pub(crate) async fn detached<W, F>(
        self: &Arc<Self>,
        deadline: Instant,
        work: W,
    ) -> Result<F::Output, L2Error>
    where
        W: FnOnce(Arc<Self>) -> F,
        F: Future + Send + 'static,
        F::Output: Send,
    {
        let (done, ended) = oneshot::channel();
        let under_way = UnderWay::begin(self);
        let work = work(self.clone());
        self.runtime.spawn(async move {
            let _under_way = under_way;
            // The caller may have stopped waiting.
            let _ = done.send(work.await);
        });
        match self.awaited(deadline, ended).await {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(_)) => Err(L2Error::lost()),
            Err(_) => Err(L2Error::of(StoreErrorKind::Timeout)),
        }
    }

    /// The same where no caller waits; only a shutdown does.
    pub(crate) fn in_background<W, F>(self: &Arc<Self>, work: W)
    where
        W: FnOnce(Arc<Self>) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let under_way = UnderWay::begin(self);
        let work = work(self.clone());
        self.runtime.spawn(async move {
            let _under_way = under_way;
            work.await;
        });
    }
}
