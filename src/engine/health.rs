//! Whether the cache can do its work now: for the probes of an orchestrator.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::engine::core::Engine;
use crate::engine::error::L2Error;
use crate::error::{StoreError, StoreErrorKind};
use crate::race::{Either, race};
#[cfg(feature = "seal")]
use crate::seal::{KeyRingError, KeyRingErrorKind};

/// The result of [`TokenCache::check`](crate::TokenCache::check). It holds nothing of a user.
///
/// With feature `serde` it is `Serialize`, without the sources of errors:
///
/// ```json
/// {
///   "is_ready": true, "is_shut_down": false, "store": "ok", "store_seconds": 0.0004, "feed_alive": true,
///   "key_ring": "ok", "pending_changes": 0, "pending_sign_outs": 0
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Health {
    /// How long the store took to answer, or why it did not.
    pub store: Result<Duration, StoreError>,
    /// Whether the store's feed is provably alive; see [`Stats::feed_alive`](crate::Stats::feed_alive).
    pub feed_alive: Option<bool>,
    /// Whether the keys of the [`key_ring`](crate::Builder::key_ring) can be read where they are kept; `None`
    /// without a ring.
    #[cfg(feature = "seal")]
    pub key_ring: Option<Result<(), KeyRingError>>,
    /// Changes that wait to be committed.
    pub pending_changes: u64,
    /// Sign-outs that L2 has not heard of.
    pub pending_sign_outs: u64,
    /// Whether [`shutdown`](crate::TokenCache::shutdown) has begun.
    pub is_shut_down: bool,
}

impl Health {
    /// Whether the store answers, and the cache is not shut down.
    ///
    /// A feed that is lost only makes reads slower, and a key repository that is away leaves the keys that are
    /// known: both count as ready. So do changes that wait.
    pub fn is_ready(&self) -> bool {
        self.store.is_ok() && !self.is_shut_down
    }
}

impl Engine {
    pub(crate) async fn check(self: &Arc<Self>, timeout: Duration) -> Health {
        let engine = self.clone();
        let store = self.asked(timeout, async move { engine.ask_store().await });
        #[cfg(feature = "seal")]
        let key_ring = self.check_ring(timeout);
        #[cfg(not(feature = "seal"))]
        let key_ring = std::future::ready(());
        let (store, key_ring) = join(store, key_ring).await;
        #[cfg(not(feature = "seal"))]
        let () = key_ring;
        Health {
            store: store.unwrap_or_else(|no_answer| Err(no_answer.error)),
            feed_alive: self.is_feed_alive(),
            #[cfg(feature = "seal")]
            key_ring,
            pending_changes: self.budget.pending(),
            pending_sign_outs: self.sign_outs.pending(),
            is_shut_down: self.queue.is_closed(),
        }
    }

    /// Reads the namespace's number, and says how long that took. It is asked past the circuit breakers, and
    /// counts for none.
    async fn ask_store(&self) -> Result<Duration, StoreError> {
        let asked = Instant::now();
        let answers = self.l2.store.revisions(&[self.namespace_epoch()]).await;
        let first = answers.into_iter().next();
        first.unwrap_or_else(|| Err(L2Error::lost().error))?;
        Ok(asked.elapsed())
    }

    #[cfg(feature = "seal")]
    async fn check_ring(&self, timeout: Duration) -> Option<Result<(), KeyRingError>> {
        let ring = self.l2.codec.encryption.as_ref()?.ring.clone();
        let read = self.asked(timeout, async move { ring.refresh().await });
        let unreachable =
            |no_answer: L2Error| KeyRingErrorKind::Unreachable.because(no_answer.error);
        Some(read.await.map_err(unreachable).and_then(|read| read))
    }

    /// Asks on the engine's runtime, where connections are, and waits for at most `timeout`. What is still
    /// asked then is given up.
    async fn asked<F>(&self, timeout: Duration, question: F) -> Result<F::Output, L2Error>
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        let (mut waiting, answer) = oneshot::channel();
        self.runtime.spawn(async move {
            if let Either::Second(answer) = race(waiting.closed(), question).await {
                // Fails if the caller has stopped waiting.
                let _ = waiting.send(answer);
            }
        });
        match self.bounded(timeout, answer).await {
            Ok(answer) => answer.map_err(|_| L2Error::lost()),
            Err(_) => Err(L2Error::of(StoreErrorKind::Timeout)),
        }
    }
}

#[cfg(feature = "serde")]
mod json {
    use serde::ser::{Serialize, SerializeStruct, Serializer};

    use super::Health;

    impl Serialize for Health {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            let (store, took) = match &self.store {
                Ok(took) => ("ok", Some(took.as_secs_f64())),
                Err(error) => (error.kind().as_str(), None),
            };
            #[cfg(feature = "seal")]
            let key_ring = self.key_ring.as_ref().map(|ring| match ring {
                Ok(()) => "ok",
                Err(error) => error.kind().as_str(),
            });
            #[cfg(not(feature = "seal"))]
            let key_ring = None::<&str>;
            let mut json = to.serialize_struct("Health", 8)?;
            json.serialize_field("is_ready", &self.is_ready())?;
            json.serialize_field("is_shut_down", &self.is_shut_down)?;
            json.serialize_field("store", store)?;
            json.serialize_field("store_seconds", &took)?;
            json.serialize_field("feed_alive", &self.feed_alive)?;
            json.serialize_field("key_ring", &key_ring)?;
            json.serialize_field("pending_changes", &self.pending_changes)?;
            json.serialize_field("pending_sign_outs", &self.pending_sign_outs)?;
            json.end()
        }
    }
}
