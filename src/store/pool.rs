//! The connections to one database.
#![cfg_attr(
    not(any(feature = "postgres", feature = "mysql")),
    allow(unreachable_pub)
)]

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

#[cfg(any(feature = "postgres", feature = "mysql"))]
use crate::patience::answered;
use crate::patience::{Answers, Following, follow};

/// A connection is replaced after so long, so that a new password, another address or another server is found.
const LIFETIME: Duration = Duration::from_secs(30 * 60);

/// A connection that is dropped before its answer is there is closed, and never used again: so a hung server holds
/// up those who have asked it, and nobody after them.
pub struct Pool<C> {
    idle: Arc<Idle<C>>,
    places: Arc<Semaphore>,
    answers: Arc<Answers>,
}

type Idle<C> = Mutex<Vec<(C, Instant)>>;

/// A place in the pool, with a connection if one was idle.
pub(super) struct Place<C> {
    idle: Arc<Idle<C>>,
    _permit: OwnedSemaphorePermit,
}

impl<C> Pool<C> {
    pub(super) fn new(size: usize) -> Self {
        Self {
            idle: Arc::default(),
            places: Arc::new(Semaphore::new(size)),
            answers: Arc::default(),
        }
    }

    /// Waits for a place. The pool is never closed. As long as the server answers others, it is not silent to who waits.
    pub(super) async fn place(&self) -> Option<Place<C>> {
        let _following = self.following();
        let permit = self.places.clone().acquire_owned().await.ok()?;
        Some(Place {
            idle: self.idle.clone(),
            _permit: permit,
        })
    }

    /// While it lasts, the server is not silent to this operation as long as it answers others.
    pub(super) fn following(&self) -> Following {
        follow(&self.answers)
    }

    /// The server has answered: its limit begins anew, for this operation and for those that wait for a place.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(super) fn answered(&self) {
        answered();
        self.answers.add();
    }

    /// Closes all that is idle: the server was started anew, or is another.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(super) fn clear(&self) {
        let idle = std::mem::take(&mut *self.idle.lock());
        drop(idle);
    }
}

impl<C> Place<C> {
    /// The connection that was used last, and since when there is one.
    pub(super) fn idle(&self) -> Option<(C, Instant)> {
        let now = Instant::now();
        let mut idle = self.idle.lock();
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
        self.idle.lock().push((connection, connected));
    }
}

impl<C> fmt::Debug for Pool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}
