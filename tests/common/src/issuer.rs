//! A provider in memory that rotates refresh tokens, and notices every reuse.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tower_token_cache::{Prior, ProviderError, Token, TokenSet};

/// Clones are the same provider. It has issued the refresh token `r0`.
#[derive(Clone)]
pub struct Issuer(Arc<State>);

struct State {
    current: AtomicU64,
    calls: AtomicU64,
    reuses: AtomicU64,
    /// Answers wait for a permit; open unless held.
    gate: Semaphore,
    /// A permit per call that has arrived.
    arrivals: Semaphore,
}

const OPEN: usize = 1 << 20;

impl Issuer {
    pub fn new() -> Self {
        Self(Arc::new(State {
            current: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            reuses: AtomicU64::new(0),
            gate: Semaphore::new(OPEN),
            arrivals: Semaphore::new(0),
        }))
    }

    /// Calls that come from now on wait.
    pub fn hold(&self) {
        let permits = self.0.gate.try_acquire_many(OPEN as u32);
        permits.expect("nobody is inside").forget();
    }

    /// Lets those that wait, and all later ones, go on.
    pub fn release(&self) {
        self.0.gate.add_permits(OPEN);
    }

    /// Waits for a call that has not been waited for.
    pub async fn arrival(&self) {
        self.0.arrivals.acquire().await.expect("open").forget();
    }

    pub fn calls(&self) -> u64 {
        self.0.calls.load(Ordering::SeqCst)
    }

    pub fn reuses(&self) -> u64 {
        self.0.reuses.load(Ordering::SeqCst)
    }

    /// Waits as long as calls are held.
    pub async fn arrived_without_token(&self) {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        self.0.arrivals.add_permits(1);
        let _open = self.0.gate.acquire().await.expect("open");
    }

    /// Redeems the refresh token: the `n`th answer is access token `a<n>` and refresh token `r<n>`.
    pub async fn refresh(self, prior: Prior) -> Result<TokenSet, ProviderError> {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        self.0.arrivals.add_permits(1);
        let _open = self.0.gate.acquire().await.expect("open");
        let refused = || ProviderError::refused("invalid_grant");
        let spent = prior.refresh_token().ok_or_else(refused)?.expose();
        let number: u64 = spent[1..].parse().expect("one of ours");
        let rotated =
            self.0
                .current
                .compare_exchange(number, number + 1, Ordering::SeqCst, Ordering::SeqCst);
        if rotated.is_err() {
            self.0.reuses.fetch_add(1, Ordering::SeqCst);
            return Err(refused());
        }
        Ok(set(number + 1))
    }
}

/// The answer of this number.
pub fn set(number: u64) -> TokenSet {
    let token = Token::new(format!("a{number}")).with_expires_in(Duration::from_secs(3600));
    TokenSet::from(token).with_refresh_token(format!("r{number}"))
}
