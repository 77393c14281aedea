//! `Scrubber`: what was deleted leaves the files.
//!
//! With `secure_delete` SQLite overwrites what is deleted, but in the write-ahead log the older
//! state of a page stays until a checkpoint has emptied it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;

use super::connections::Connections;

/// How long a checkpoint waits for those who still read an older state. They are a matter of
/// milliseconds; of another process it is not known, and a sign-out does not wait for it.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

pub(super) struct Scrubber {
    /// One connection of its own: commits that wait for the writer do not wait for this.
    connections: Connections,
    /// How often something was deleted.
    deletions: AtomicU64,
    /// How many of these are in no file any more.
    scrubbed: Mutex<u64>,
}

impl Scrubber {
    pub(super) fn new(connections: Connections) -> Self {
        Self {
            connections,
            deletions: AtomicU64::new(0),
            scrubbed: Mutex::new(0),
        }
    }

    /// Empties the log after a deletion that is committed. Deletions that come while this works
    /// share the next turn. The deletion has happened: what fails here is left to the next one, or
    /// to a sweep.
    pub(super) async fn scrub(&self) {
        let deletion = self.deletions.fetch_add(1, Ordering::SeqCst) + 1;
        let mut scrubbed = self.scrubbed.lock().await;
        if *scrubbed >= deletion {
            return;
        }
        let before = self.deletions.load(Ordering::SeqCst);
        if self.empty_log().await.unwrap_or(false) {
            *scrubbed = before;
        }
    }

    /// Whether nothing is left in it.
    async fn empty_log(&self) -> sqlx::Result<bool> {
        let mut taken = self.connections.take().await?;
        let checkpoint = sqlx::query_as("PRAGMA wal_checkpoint(TRUNCATE)");
        let (busy, _, _): (i64, i64, i64) = checkpoint.fetch_one(&mut taken.connection).await?;
        taken.keep();
        Ok(busy == 0)
    }
}
