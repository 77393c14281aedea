//! The sweep: what is over is freed, in the background, and by one instance at a time.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::SqlStore;
use super::dialect::Dialect;
use super::operations::Attempts;
use crate::error::StoreError;

/// How often an instance looks for something to free.
const EVERY: Duration = Duration::from_secs(60);

/// When the next sweep is due.
#[derive(Default)]
pub(super) struct Due(Mutex<Option<Instant>>);

impl Due {
    /// Whether it is due now; the caller sweeps.
    fn claim(&self) -> bool {
        let now = Instant::now();
        let mut due = self.0.lock();
        let is_due = due.is_none_or(|due| due <= now);
        if is_due {
            *due = Some(now + EVERY);
        }
        is_due
    }
}

impl<D: Dialect> SqlStore<D> {
    /// Begins to sweep on the runtime of the caller, if it is time to. What fails is left to a later sweep.
    pub(super) fn sweep_when_due(&self) {
        if !self.sweep.claim() {
            return;
        }
        let store = self.clone();
        tokio::spawn(async move { while let Ok(true) = store.sweep_once().await {} });
    }

    /// Frees a batch; whether there may be more. Commits do not wait for it: it locks what is over.
    async fn sweep_once(&self) -> Result<bool, StoreError> {
        let mut taken = self.take().await?;
        let purged = self.dialect.purge(&mut taken.connection);
        let purged = self.in_time(purged).await?;
        let purged = self.settle(&mut Attempts::new(), taken, purged).await?;
        Ok(purged.unwrap_or(false))
    }
}
