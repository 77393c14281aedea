//! Refreshing ahead of time: when a token that will expire soon gets its successor, in the background.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use crate::acquire::RefreshReason;
use crate::engine::acquire::call::Call;
use crate::engine::acquire::outcome::Need;
use crate::engine::core::Engine;
use crate::key::{PartitionKey, TokenKey};
use crate::policy::FailurePolicy;
use crate::time::Timestamp;
use crate::token::Token;

/// The bytes at the end of a token that are hashed: tokens differ there, in the signature.
const DISTINCT: usize = 64;

impl Engine {
    /// Acquires a successor of a token that will expire soon, in the background.
    pub(crate) fn refresh_ahead(
        self: &Arc<Self>,
        partition: &PartitionKey,
        token: &Token,
        key: &TokenKey,
        policy: FailurePolicy,
        call: Call,
    ) {
        let now = self.now();
        let seen = self
            .partitions
            .with(partition, |_, state| state.refresh_state(key, None, now));
        if seen
            .failure_record
            .is_some_and(|failure_record| failure_record.error(now.wall).is_some())
        {
            return;
        }
        let need = Need {
            key: key.clone(),
            min_remaining: Duration::ZERO,
            force: false,
            replaces: Some(token.clone()),
            claims: None,
            demanded: false,
            reason: Some(RefreshReason::ProactivelyRefreshed),
            last_known: None,
        };
        let allowance = Arc::new(self.allowance());
        // If this is refused, by a shutdown or an overload, the token is still valid.
        let _ = self.join(
            partition,
            &need,
            policy,
            seen.observed,
            &allowance,
            &mut Some(call),
        );
    }

    /// When a successor of this token is acquired, ahead of its expiry: a little earlier or later on each
    /// instance, always the same for one token.
    pub(crate) fn refresh_at(&self, token: &Token) -> Option<Timestamp> {
        let (at, window) = self.refresh_window(token)?;
        // The jitter is ±10 %.
        let text = token.access_token().as_bytes();
        let end = &text[text.len().saturating_sub(DISTINCT)..];
        let mut hasher = DefaultHasher::new();
        (self.flights.jitter, end).hash(&mut hasher);
        let hash = hasher.finish() as u32;
        let shift = window.mul_f64(0.2 * f64::from(hash) / f64::from(u32::MAX));
        Some(at.saturating_sub(window / 10).saturating_add(shift))
    }

    /// Whether the time of `refresh_at` has come.
    pub(crate) fn is_refresh_due(&self, token: &Token, now: Timestamp) -> bool {
        let soon = self.acquisitions.refresh_before.saturating_mul(2);
        let has_long = |end: Timestamp| now.saturating_add(soon) < end;
        if token.refresh_at().is_none() && token.expires_at().is_some_and(has_long) {
            // This is so for most tokens, and saves the computation below.
            return false;
        }
        let near = |(at, window): (Timestamp, Duration)| now >= at.saturating_sub(window / 10);
        self.refresh_window(token).is_some_and(near)
            && self.refresh_at(token).is_some_and(|at| now >= at)
    }

    /// The refresh time without jitter, and the duration of which the jitter is a fraction.
    fn refresh_window(&self, token: &Token) -> Option<(Timestamp, Duration)> {
        let before = self.acquisitions.refresh_before;
        match (token.refresh_at(), token.expires_at()) {
            (Some(at), Some(end)) => Some((at, end.since(at).min(before))),
            (Some(at), None) => Some((at, before)),
            (None, Some(end)) => {
                // A fifth of a short life is enough; otherwise the token would be replaced all the time.
                let life = token.issued_at().map(|issued| end.since(issued));
                let window = life.map_or(before, |life| before.min(life / 5));
                Some((end.saturating_sub(window), window))
            }
            (None, None) => None,
        }
    }
}
