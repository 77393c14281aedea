//! `SqlStore`: what its clones share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::leases::{Acquire, Release, Waiting};
use crate::store::LeaseState;

/// How often an instance looks for something to free.
const EVERY: Duration = Duration::from_secs(60);

/// A store in a SQL database, of which `D` is the dialect. Clones share the connections.
pub struct SqlStore<D> {
    pub(super) dialect: Arc<D>,
    /// How long an answer may take, of the pool, the connecting, and a statement.
    pub(super) response_timeout: Duration,
    pub(super) acquired: Arc<Waiting<Acquire, LeaseState>>,
    pub(super) released: Arc<Waiting<Release, bool>>,
    pub(super) sweep: Arc<Due>,
    /// Whether what connections say is worth a line in the log.
    pub(super) fails: Arc<AtomicBool>,
}

impl<D> Clone for SqlStore<D> {
    fn clone(&self) -> Self {
        Self {
            dialect: self.dialect.clone(),
            response_timeout: self.response_timeout,
            acquired: self.acquired.clone(),
            released: self.released.clone(),
            sweep: self.sweep.clone(),
            fails: self.fails.clone(),
        }
    }
}

impl<D> fmt::Debug for SqlStore<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlStore").finish_non_exhaustive()
    }
}

/// When the next sweep is due.
#[derive(Default)]
pub(super) struct Due(Mutex<Option<Instant>>);

impl Due {
    /// Whether it is due now; the caller sweeps.
    pub(super) fn claim(&self) -> bool {
        let now = Instant::now();
        let mut due = self.0.lock();
        let is_due = due.is_none_or(|due| due <= now);
        if is_due {
            *due = Some(now + EVERY);
        }
        is_due
    }
}
