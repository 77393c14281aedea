//! Counts the operations of several steps that are running; see `detached`.

use tokio::sync::watch;

/// The number of running operations.
pub(crate) struct Operations(pub(crate) watch::Sender<usize>);

impl Operations {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// Waits until there is none.
    pub(crate) async fn ended(&self) {
        // The sender lives in this.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}
