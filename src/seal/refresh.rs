//! Keeping a ring up to date, and learning a key that is not known.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::error::{KeyRingError, KeyRingErrorKind};
use super::key::KeyId;
use super::ring::{KeyRing, Ring};
use super::source::Source;

/// How often a value with an unknown key makes an instance ask the repository, at most: whoever can
/// write to L2 can invent key ids.
const LEARN_EVERY: Duration = Duration::from_secs(5);

/// The same after a repository that failed: the next answer may name the key.
const RETRY_EVERY: Duration = Duration::from_millis(500);

/// How long a request waits for that: rather a second than that its user signs in again.
const LEARN_TIMEOUT: Duration = Duration::from_secs(1);

/// After which a repository is given up that does not answer.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(30);

impl KeyRing {
    /// Asks the repository for a key that is not known, unless that was done a moment ago.
    pub(crate) async fn learn(&self, id: KeyId) {
        let Some(source) = &self.0.source else {
            return;
        };
        let learned = async {
            // Whoever comes while it is asked waits for the same answer.
            let turn = source.turn.clone().lock_owned().await;
            if let Some(asking) = self.0.ask(turn, id) {
                // It ends by itself, and says what went wrong.
                let _ = asking.await;
            }
        };
        let _ = timeout(LEARN_TIMEOUT, learned).await;
    }

    /// The same for whoever cannot wait: the next one is to know the key.
    #[cfg(feature = "cookie")]
    pub(crate) fn learn_soon(&self, id: KeyId) {
        if let Some(source) = &self.0.source
            && Handle::try_current().is_ok()
            && let Ok(turn) = source.turn.clone().try_lock_owned()
        {
            drop(self.0.ask(turn, id));
        }
    }

    /// Keeps the ring up to date for as long as it and the runtime live. Of several runtimes, one at
    /// a time asks the repository.
    pub(crate) fn start(&self, runtime: &Handle) {
        let Some(source) = &self.0.source else {
            return;
        };
        let every = source.vault.schedule.refresh_every;
        runtime.spawn(keep_fresh(Arc::downgrade(&self.0), every));
    }
}

impl Ring {
    pub(super) async fn refresh(&self) -> Result<(), KeyRingError> {
        let Some(source) = &self.source else {
            return Ok(());
        };
        let _turn = source.turn.lock().await;
        self.refresh_in_turn(source).await
    }

    async fn refresh_in_turn(&self, source: &Source) -> Result<(), KeyRingError> {
        let known = self.keys();
        let keys = source.vault.synchronise(Some(&known), self.now()).await?;
        self.replace(keys);
        Ok(())
    }

    /// Asks the repository in a task of its own: its answer is of use after the request that wanted
    /// it has given up. `None` when the key is known by now, or was asked for a moment ago.
    fn ask(self: &Arc<Self>, turn: OwnedMutexGuard<()>, id: KeyId) -> Option<JoinHandle<()>> {
        let source = self.source.as_ref()?;
        if self.keys().knows(id) || source.is_quiet() {
            return None;
        }
        let ring = self.clone();
        Some(tokio::spawn(async move {
            let _turn = turn;
            let Some(source) = &ring.source else { return };
            let pause = match in_time(ring.refresh_in_turn(source)).await {
                Ok(()) => LEARN_EVERY,
                Err(error) => {
                    log(&error);
                    RETRY_EVERY
                }
            };
            source.keep_quiet(pause);
        }))
    }
}

/// Refreshes at moments of its own, so that a fleet that was started at once does not ask at once.
async fn keep_fresh(ring: Weak<Ring>, every: Duration) {
    loop {
        let random = getrandom::u32().unwrap_or(u32::MAX / 2);
        let share = 0.8 + 0.2 * f64::from(random) / f64::from(u32::MAX);
        let pause = every.mul_f64(share);
        tokio::time::sleep(pause).await;
        let Some(ring) = ring.upgrade() else {
            return;
        };
        if ring
            .source
            .as_ref()
            .is_some_and(|source| !source.is_due(pause))
        {
            continue;
        }
        if let Err(error) = in_time(ring.refresh()).await {
            log(&error);
        }
    }
}

async fn in_time(
    refresh: impl Future<Output = Result<(), KeyRingError>>,
) -> Result<(), KeyRingError> {
    match timeout(REFRESH_TIMEOUT, refresh).await {
        Ok(outcome) => outcome,
        Err(late) => Err(KeyRingErrorKind::Unreachable.because(late)),
    }
}

fn log(error: &KeyRingError) {
    tracing::warn!(
        error = error as &dyn std::error::Error,
        "the key ring could not be refreshed"
    );
}
