//! Acquisitions: one call to the provider, shared by all requests that need the token.
//!
//! A request that finds no usable token joins the *flight* that acquires one, or starts it. `flight` has what
//! a flight does; this file decides which flight a request joins.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::Instrument;

use crate::acquire::{AcquireError, AcquireErrorKind, TokenSource};
use crate::cache::acquisitions::Acquisitions;
use crate::engine::acquire::call::Call;
use crate::engine::acquire::flight::Flight;
use crate::engine::acquire::flights::{FlightId, Waiter};
use crate::engine::acquire::outcome::{AcquireFailure, AcquiredToken, Need, abandoned};
use crate::engine::core::Engine;
use crate::engine::partition::observed::Observed;
use crate::engine::partition::state::State;
use crate::engine::sync::allowance::Allowance;
use crate::error::Error;
use crate::key::{PartitionKey, TokenKey};
use crate::policy::FailurePolicy;

impl FlightId {
    fn of(partition: &PartitionKey, need: &Need) -> Self {
        Self {
            partition: partition.clone(),
            name: need.key.clone(),
            claims: need.claims.clone(),
        }
    }
}

impl Engine {
    /// A token from the provider, or from another request or instance that acquires it meanwhile.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        partition: &PartitionKey,
        need: &Need,
        policy: FailurePolicy,
        observed: &mut Option<Observed>,
        allowance: &Arc<Allowance>,
        call: Call,
    ) -> Result<AcquiredToken, Error> {
        let within = call.within();
        let _waiting = call.wait_within(self, || FlightId::of(partition, need))?;
        let acquired = self
            .acquire_by(partition, need, policy, observed, allowance, call)
            .await;
        if let (Some(within), Err(Error::Acquire(error))) = (within, &acquired) {
            within.has_failed(error.kind());
        }
        acquired
    }

    async fn acquire_by(
        self: &Arc<Self>,
        partition: &PartitionKey,
        need: &Need,
        policy: FailurePolicy,
        observed: &mut Option<Observed>,
        allowance: &Arc<Allowance>,
        call: Call,
    ) -> Result<AcquiredToken, Error> {
        let mut call = Some(call);
        if observed.is_none() && policy != FailurePolicy::Bypass {
            // A request that insists on a new token has not read anything yet.
            let known = self.know_generation(partition, policy, observed);
            let known = self.wait_for_busy_l2(allowance, partition, known);
            known
                .await
                .unwrap_or_else(|failure| self.degrade(policy, failure))?;
        }
        loop {
            let now = self.now();
            let (failure_record, seen) = self.partitions.with(partition, |_, state| {
                let seen = *observed.get_or_insert_with(|| state.observe(now));
                let known = state.refresh_state(&need.key, need.claims.as_deref(), now);
                (known.failure_record, seen)
            });
            if let Some(error) =
                failure_record.and_then(|failure_record| failure_record.error(now.wall))
            {
                return Err(error.into());
            }
            // A call that has begun continues if this caller stops waiting.
            let flight = self.join(partition, need, policy, seen, allowance, &mut call)?;
            let outcome = self.awaited(self.latest_end(), flight.outcome()).await;
            let is_of_another = flight.is_after(&seen);
            allowance.limit(flight.left());
            drop(flight);
            let Ok(outcome) = outcome else {
                return Err(AcquireError::new(AcquireErrorKind::TimedOut).into());
            };
            let signed_out = self.find(partition).lock().signed_out_since(&seen) || is_of_another;
            let started = call.is_none();
            match outcome {
                _ if signed_out => return Err(Error::SignedOut),
                Some(Ok(acquired)) => {
                    let asked = acquired.source == TokenSource::IdentityProvider;
                    let now = self.now();
                    let token = &acquired.token;
                    let is_new = asked && !need.rejects(token);
                    if started || is_new || (!need.force && need.is_met_by(token, now.wall)) {
                        return Ok(acquired);
                    }
                }
                Some(Err(AcquireFailure::Failed(error))) => return Err(error),
                // No call has ended: this request starts a flight with its own.
                Some(Err(AcquireFailure::Abandoned)) if !started => {}
                // That call was its own; `None` if the flight was dropped without an outcome.
                Some(Err(AcquireFailure::Abandoned)) | None => {
                    return Err(abandoned());
                }
            }
        }
    }

    /// When a flight that starts now has ended at the latest: after the lease wait, the wait for a call slot,
    /// the call, and the reads and writes around it.
    fn latest_end(&self) -> Instant {
        let Acquisitions {
            timeout, lease_ttl, ..
        } = self.acquisitions;
        Instant::now() + timeout * 2 + lease_ttl + self.l2.timeouts.operation * 2
    }

    /// Whether the refresh token of this token's client, if it is known, is in L2 or is to be.
    fn shares_refresh_token(&self, partition: &PartitionKey, key: &TokenKey) -> bool {
        let is_shared = |state: &mut State| {
            let found = state.entries.get(key.refresh_token().as_ref());
            found.is_some_and(|entry| !entry.local)
        };
        let known = self.partitions.with_known(partition, is_shared);
        known.unwrap_or(false)
    }

    /// Joins the flight for this need, or starts it with `call` if there is none.
    pub(super) fn join(
        self: &Arc<Self>,
        partition: &PartitionKey,
        need: &Need,
        policy: FailurePolicy,
        observed: Observed,
        allowance: &Arc<Allowance>,
        call: &mut Option<Call>,
    ) -> Result<Waiter<'_>, Error> {
        let id = FlightId::of(partition, need);
        let is_ahead = need.is_ahead();
        let mut flights = self.flights.lock();
        let over = |observed: &Observed| self.find(partition).lock().signed_out_since(observed);
        if let Some(flight) = flights.join(&id, is_ahead, allowance.left(), over) {
            return Ok(flight);
        }
        if self.queue.is_closed() {
            return Err(Error::ShutDown);
        }
        if call.is_none() {
            return Err(abandoned());
        }
        let number = u64::from_be_bytes(self.queue.next_id().0);
        let (joined, flight) =
            flights.start(id.clone(), number, is_ahead, observed, allowance.clone())?;
        drop(flights);
        if let Some(call) = call.take() {
            let policy = match policy {
                // If the successor of the refresh token stayed in this process, other instances would redeem
                // the old one again.
                FailurePolicy::Bypass if self.shares_refresh_token(partition, &need.key) => {
                    FailurePolicy::Degrade
                }
                policy => policy,
            };
            let (engine, need) = (self.clone(), need.clone());
            let flight = Flight::new(engine, id, number, policy, need, observed, joined);
            // The flight is counted by now: either a shutdown sees it, or this sees the shutdown.
            if self.queue.is_closed() {
                return Err(Error::ShutDown);
            }
            // What it does belongs to the trace of the request that starts it.
            self.runtime.spawn(flight.run(call).in_current_span());
        }
        Ok(flight)
    }
}
