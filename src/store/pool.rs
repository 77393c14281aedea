//! The connections to one database.
#![cfg_attr(
    not(any(feature = "postgres", feature = "mysql")),
    allow(unreachable_pub)
)]

use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// A connection is replaced after so long, so that a new password, another address or another server is found.
const LIFETIME: Duration = Duration::from_secs(30 * 60);

/// A connection that is dropped before its answer is there is closed, and never used again: so a hung server holds
/// up those who have asked it, and nobody after them.
pub struct Pool<C> {
    idle: Mutex<Vec<(C, Instant)>>,
    places: Semaphore,
}

/// A place in the pool, with a connection if one was idle.
pub(super) struct Place<'a, C> {
    pool: &'a Pool<C>,
    _permit: SemaphorePermit<'a>,
}

impl<C> Pool<C> {
    pub(super) fn new(size: usize) -> Self {
        Self {
            idle: Mutex::default(),
            places: Semaphore::new(size),
        }
    }

    /// Waits for a place. The pool is never closed.
    pub(super) async fn place(&self) -> Option<Place<'_, C>> {
        let permit = self.places.acquire().await.ok()?;
        Some(Place {
            pool: self,
            _permit: permit,
        })
    }

    /// Closes all that is idle: the server was started anew, or is another.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(super) fn clear(&self) {
        let idle = std::mem::take(&mut *self.idle.lock());
        drop(idle);
    }
}

impl<C> Place<'_, C> {
    /// The connection that was used last, and since when there is one.
    pub(super) fn idle(&self) -> Option<(C, Instant)> {
        let now = Instant::now();
        let mut idle = self.pool.idle.lock();
        let young = |connected: Instant| now.duration_since(connected) < LIFETIME;
        while let Some((connection, connected)) = idle.pop() {
            if young(connected) {
                return Some((connection, connected));
            }
        }
        None
    }

    /// Gives a connection back that waits for no answer.
    pub(super) fn keep(self, connection: C, connected: Instant) {
        self.pool.idle.lock().push((connection, connected));
    }
}

impl<C> fmt::Debug for Pool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}
