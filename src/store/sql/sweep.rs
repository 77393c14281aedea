//! The sweep: what is over is freed, in the background, and by one instance at a time.

use super::dialect::Dialect;
use super::handle::SqlStore;
use super::operations::Attempts;
use crate::error::StoreError;

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
