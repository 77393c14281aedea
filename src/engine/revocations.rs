//! Refresh tokens of sessions that were signed out, on their way to the provider that revokes them.
//!
//! A token is gathered where a session ends: from memory, and from what L2 has when the sign-out is sent. It goes to
//! the provider once L2 has the sign-out, which never waits for it.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::acquire::{AcquireErrorKind, BoxError};
use crate::classify::classify;
use crate::codec::Value;
use crate::key::{ClientName, TokenKey, refresh_token_of};
use crate::random::{SLIGHTLY, jittered};
use crate::revoke::{DynRevoke, Revoker};
use crate::secret::Secret;
use crate::telemetry::Counters;
use crate::time::Timestamp;

/// Calls to providers at a time.
pub(crate) const AT_ONCE: usize = 16;
/// Tokens that may wait. Beyond that they are not revoked, which is counted.
const MAX_WAITING: usize = 10_000;
/// Attempts at one token. With the pauses between them they take some 15 seconds, or as long as the provider asks for.
const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(60);
/// The limit on one attempt.
const PATIENCE: Duration = Duration::from_secs(10);

/// A refresh token that is to be revoked.
#[derive(Clone)]
pub(crate) struct Revocable {
    client: Option<ClientName>,
    provider: Arc<dyn DynRevoke>,
    token: Secret,
}

/// What is to be revoked, counted until it is dropped.
pub(crate) struct Begun {
    tokens: Vec<Revocable>,
    counted: Counted,
}

struct Counted(Arc<watch::Sender<usize>>, usize);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= self.1);
    }
}

pub(crate) struct Revocations {
    /// With the entry of the refresh token of each one's client.
    revokers: Box<[(TokenKey, Revoker)]>,
    calls: Arc<Semaphore>,
    /// How many tokens wait or are being revoked.
    under_way: Arc<watch::Sender<usize>>,
    counters: Arc<Counters>,
}

impl Revocations {
    pub(crate) fn new(revokers: impl Iterator<Item = Revoker>, counters: Arc<Counters>) -> Self {
        let of_client = |revoker: Revoker| {
            let client = revoker.client.as_ref();
            (refresh_token_of(client), revoker)
        };
        Self {
            revokers: revokers.map(of_client).collect(),
            calls: Arc::new(Semaphore::new(AT_ONCE)),
            under_way: Arc::new(watch::Sender::new(0)),
            counters,
        }
    }

    /// Whether any client's tokens are revoked.
    pub(crate) fn are_on(&self) -> bool {
        !self.revokers.is_empty()
    }

    /// The refresh tokens among these entries that a provider is to be told of.
    pub(crate) fn among<'a>(
        &self,
        entries: impl Iterator<Item = (&'a TokenKey, &'a Value)>,
    ) -> Vec<Revocable> {
        if !self.are_on() {
            return Vec::new();
        }
        let revocable = |(name, value): (&TokenKey, &Value)| {
            let mut revokers = self.revokers.iter();
            let (_, revoker) = revokers.find(|(entry, _)| entry == name)?;
            Some(Revocable {
                client: revoker.client.clone(),
                provider: revoker.provider.clone(),
                token: value.as_secret()?.clone(),
            })
        };
        entries.filter_map(revocable).collect()
    }

    /// From now on a shutdown waits for these. Doublets are left out.
    pub(crate) fn begin(&self, mut tokens: Vec<Revocable>) -> Begun {
        let mut seen: Vec<Revocable> = Vec::with_capacity(tokens.len());
        tokens.retain(|it| {
            let is_new = !seen.iter().any(|other| {
                other.client == it.client && other.token.expose() == it.token.expose()
            });
            if is_new {
                seen.push(it.clone());
            }
            is_new
        });
        let room = MAX_WAITING.saturating_sub(self.pending());
        let left_out = tokens.len().saturating_sub(room);
        if left_out > 0 {
            tokens.truncate(room);
            self.counters.failed_revocations.add(left_out as u64);
            tracing::warn!(left_out, "too many refresh tokens wait to be revoked");
        }
        let count = tokens.len();
        self.under_way.send_modify(|pending| *pending += count);
        Begun {
            tokens,
            counted: Counted(self.under_way.clone(), count),
        }
    }

    /// Tells the providers, in the background.
    pub(crate) fn start(&self, begun: Begun, runtime: &Handle) {
        let Begun {
            tokens,
            mut counted,
        } = begun;
        for revocable in tokens {
            counted.1 -= 1;
            let one = Counted(self.under_way.clone(), 1);
            let (calls, counters) = (self.calls.clone(), self.counters.clone());
            runtime.spawn(async move {
                let _one = one;
                match revocable.revoke(&calls).await {
                    Ok(()) => counters.revocations.add(1),
                    Err(error) => {
                        counters.failed_revocations.add(1);
                        tracing::warn!(
                            client = revocable.client.as_ref().map(ClientName::as_str),
                            error = &*error as &dyn std::error::Error,
                            "a refresh token could not be revoked"
                        );
                    }
                }
            });
        }
    }

    pub(crate) fn pending(&self) -> usize {
        *self.under_way.borrow()
    }

    pub(crate) async fn all_ended(&self) {
        // The sender lives in this.
        let _ = self
            .under_way
            .subscribe()
            .wait_for(|count| *count == 0)
            .await;
    }
}

impl Revocable {
    async fn revoke(&self, calls: &Semaphore) -> Result<(), BoxError> {
        let mut pause = FIRST_PAUSE;
        let mut attempt = 1;
        loop {
            let error = match self.attempt(calls).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let meaning = classify(&*error, Timestamp::now());
            let is_final = meaning.is_refusal && meaning.kind != AcquireErrorKind::RetryLater;
            if is_final || attempt == ATTEMPTS {
                return Err(error);
            }
            let asked = meaning.retry_after.unwrap_or_default().min(LAST_PAUSE);
            tokio::time::sleep(jittered(pause, SLIGHTLY).max(asked)).await;
            pause *= 2;
            attempt += 1;
        }
    }

    async fn attempt(&self, calls: &Semaphore) -> Result<(), BoxError> {
        // It is never closed.
        let _turn = calls.acquire().await;
        let revokes = AssertUnwindSafe(self.provider.revoke_boxed(&self.token)).catch_unwind();
        match timeout(PATIENCE, revokes).await {
            Ok(Ok(revoked)) => revoked,
            Ok(Err(_)) => Err(NotRevoked::Panicked.into()),
            Err(_) => Err(NotRevoked::TimedOut.into()),
        }
    }
}

#[derive(Debug)]
enum NotRevoked {
    Panicked,
    TimedOut,
}

impl fmt::Display for NotRevoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Panicked => "the call to the provider panicked",
            Self::TimedOut => "the provider did not answer within ten seconds",
        })
    }
}

impl std::error::Error for NotRevoked {}
