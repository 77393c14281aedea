//! One flight: takes the process-wide redemption lock, then the lease in L2, reads L2 again, asks the provider,
//! commits the answer, and publishes the outcome to all waiters.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::acquire::{AcquireError, AcquireErrorKind, ProviderError, RefreshReason, TokenSource};
use crate::engine::acquire::call::Call;
use crate::engine::acquire::exclusion::Exclusion;
use crate::engine::acquire::flights::{FlightEnds, FlightId};
use crate::engine::acquire::lease::{OwnLease, held_for, owner};
use crate::engine::acquire::lease_wait::LeaseWait;
use crate::engine::acquire::outcome::{AcquireFailure, AcquiredToken, FlightEnd, Need, timed_out};
use crate::engine::core::Engine;
use crate::engine::error::L2Error;
use crate::engine::load::fetch::Hold;
use crate::engine::partition::observed::Observed;
use crate::engine::partition::refresh::RefreshState;
use crate::engine::partition::state::State;
use crate::engine::sync::allowance::Allowance;
use crate::engine::sync::once;
use crate::error::{Error, StoreErrorKind};
use crate::key::PartitionKind;
use crate::lookup::{CacheLevel, Durability};
use crate::policy::FailurePolicy;
use crate::race::{Either, race};
use crate::store::LeaseState;

pub(crate) struct Flight {
    pub(crate) engine: Arc<Engine>,
    pub(crate) id: FlightId,
    pub(crate) number: u64,
    pub(crate) policy: FailurePolicy,
    pub(crate) need: Need,
    /// What the request that started it observed.
    observed: Observed,
    /// How long it may wait for L2.
    pub(crate) allowance: Arc<Allowance>,
    done: once::Sender<FlightEnd>,
    outcome: FlightEnd,
    is_published: bool,
    /// Notified when no request waits for this any more, and its call has not begun.
    abandoned: Arc<Notify>,
    /// Until then it may wait for the lock and for a call slot.
    pub(crate) begin_by: Instant,
    /// The owner of its leases.
    owner: [u8; 16],
}

impl Flight {
    pub(crate) fn new(
        engine: Arc<Engine>,
        id: FlightId,
        number: u64,
        policy: FailurePolicy,
        need: Need,
        observed: Observed,
        ends: FlightEnds,
    ) -> Self {
        Self {
            begin_by: Instant::now() + engine.acquisitions.timeout,
            engine,
            id,
            number,
            policy,
            need,
            observed,
            allowance: ends.allowance,
            done: ends.done,
            abandoned: ends.abandoned,
            // The outcome if it never runs, because the engine's runtime has ended.
            outcome: Err(Error::unavailable().into()),
            is_published: false,
            owner: owner(number),
        }
    }

    pub(crate) async fn run(mut self, call: Call) {
        self.outcome = Err(AcquireError::new(AcquireErrorKind::Panicked).into());
        let mut guard = Exclusion::default();
        let flight = Box::pin(self.acquire(call, &mut guard));
        self.outcome = match race(self.abandoned.notified(), flight).await {
            Either::First(()) => Err(AcquireFailure::Abandoned),
            Either::Second(outcome) => outcome,
        };
        if let Err(AcquireFailure::Failed(Error::Acquire(error))) = &self.outcome {
            // At debug level, because requests can cause any number of these: metrics and `Stats` count them.
            let code = error.downcast_ref().map(ProviderError::code);
            tracing::debug!(kind = ?error.kind(), code, reason = ?self.need.reason, "no token was acquired");
        }
        self.publish();
        let id = self.id.clone();
        drop(self);
        Box::pin(guard.end_when_written(id.partition, id.name)).await;
    }

    async fn acquire(&self, call: Call, guard: &mut Exclusion) -> FlightEnd {
        let engine = self.engine.clone();
        let _held = Hold::new(&engine, &self.id.partition);
        let mut seen = self.remembered();
        if self.policy == FailurePolicy::Bypass {
            return Box::pin(self.ask(call, &seen, guard)).await;
        }
        // The version that a forced refresh has to surpass.
        let mut newer_than = None;
        if self.need.force || self.need.replaces.is_some() {
            seen = Box::pin(self.look_or_remember()).await?;
            self.check_signed_out()?;
            if let Some(outcome) = self.answered_by(&seen, None) {
                return outcome;
            }
            newer_than = seen.version(engine.l2.entry_id(self.need.key.as_ref()));
        }
        let mut lease_wait = LeaseWait::new(&engine);
        let changes = engine.coherence.changes(&self.id.partition);
        let mut call = Some(call);
        loop {
            let refreshes = seen.refresh_token.is_hit();
            let alone = self.needs_no_lease(&seen);
            let generation = seen.observed.generation();
            let asked = Instant::now();
            if refreshes && guard.lock.is_none() {
                let refresh_token = self.need.key.refresh_token();
                let lock =
                    engine.lock_redemption(&self.id.partition, &refresh_token, seen.observed);
                let lock = timeout_at(self.begin_by, lock).await;
                guard.lock = Some(lock.map_err(|_| timed_out())?);
            }
            // Any announcement of the feed about this partition. Enabled before L2 is read, so that none is missed in between.
            let mut changed = pin!(changes.value().notified());
            changed.as_mut().enable();
            let state = match alone {
                true => Ok(LeaseState::Granted),
                false => Box::pin(self.request_lease(guard, refreshes, generation)).await,
            };
            let looked = match state {
                Ok(LeaseState::Granted) => Box::pin(self.look()).await.map(|seen| (seen, true)),
                Ok(LeaseState::Held { remaining }) => {
                    lease_wait
                        .pause_while_held(remaining, changed.as_mut())
                        .await;
                    Box::pin(self.look()).await.map(|seen| (seen, false))
                }
                Err(failure) => Err(failure),
            };
            let ours;
            (seen, ours) = match looked {
                Ok(looked) => looked,
                Err(failure) => {
                    // An error under `Strict`, or if the hook says so.
                    engine.degrade(self.policy, failure.clone())?;
                    if lease_wait.is_over() {
                        return Err(timed_out().into());
                    }
                    // There was no answer, and others had one.
                    if failure.error.may_be_applied() && self.takes_changes_since(asked) {
                        // L2 is busy. Another instance may reach it, and have the lease.
                        if !self.allowance.is_patient() {
                            return Err(timed_out().into());
                        }
                        lease_wait.pause(changed.as_mut()).await;
                        continue;
                    }
                    self.allowance.spend_deferred();
                    if self.waits_for_l2(&failure) {
                        let pause = lease_wait.pause(changed.as_mut());
                        // Where the time is up, the next question is the last one.
                        let _ = engine.wait_for_l2(&self.allowance, pause).await;
                        continue;
                    }
                    guard.lease = None;
                    (self.remembered(), true)
                }
            };
            self.check_signed_out()?;
            if let Some(outcome) = self.answered_by(&seen, newer_than) {
                return outcome;
            }
            let is_known_now = alone && !self.needs_no_lease(&seen);
            let is_another = seen.observed.generation() != generation;
            if ours && (seen.refresh_token.is_hit() != refreshes || is_known_now || is_another) {
                // Another lease is needed.
                let _ = Box::pin(engine.wait_for_l2(&self.allowance, guard.end())).await;
                guard.lock = None;
            } else if ours {
                seen.token = seen.token.or_else(|| self.need.last_known.clone());
                let Some(call) = call.take() else {
                    return Err(AcquireFailure::Abandoned);
                };
                match Box::pin(self.ask(call, &seen, guard)).await {
                    // The instance that has taken over may obtain the token.
                    Err(AcquireFailure::Abandoned) => guard.lease = None,
                    outcome => return outcome,
                }
            } else if lease_wait.is_over() {
                return Err(timed_out().into());
            }
        }
    }

    /// Whether other instances need not be excluded: as far as is known there is no such session or user, and
    /// so nothing that could be redeemed twice. Invented ids leave no lease.
    fn needs_no_lease(&self, seen: &RefreshState) -> bool {
        let kind = self.id.partition.kind();
        let invented = matches!(kind, PartitionKind::Session | PartitionKind::User);
        invented && !seen.exists && !seen.refresh_token.is_hit()
    }

    /// Asks for the lease.
    async fn request_lease(
        &self,
        guard: &mut Exclusion,
        refreshes: bool,
        generation: u64,
    ) -> Result<LeaseState, L2Error> {
        let name = match refreshes {
            true => self.need.key.refresh_token(),
            false => self.need.key.clone(),
        };
        let mut own = match guard.lease.take() {
            Some(own) => own,
            None => {
                let id = self.engine.id(&self.id.partition);
                let partition = self.within_allowance(id).await?;
                OwnLease::new(&self.engine, partition, &name, generation, self.owner)
            }
        };
        let answer = self.within_allowance(own.request()).await;
        if let Ok(state) = &answer {
            self.allowance.pause(held_for(*state));
        }
        // A lease that may have been granted is asked for again, by the same owner.
        if !matches!(answer, Ok(LeaseState::Held { .. })) {
            guard.lease = Some(own);
        }
        answer
    }

    pub(crate) async fn look(&self) -> Result<RefreshState, L2Error> {
        let (key, claims) = (&self.need.key, self.need.claims.as_deref());
        let look = self.engine.look(&self.id.partition, key, claims);
        self.within_allowance(look).await
    }

    /// Whether this part of L2 has taken a change or given a lease since then, whoever asked.
    fn takes_changes_since(&self, moment: Instant) -> bool {
        let shard = self.engine.l2.shard_of(&self.id.partition);
        shard.takes_changes_since(moment)
    }

    async fn within_allowance<T>(
        &self,
        work: impl Future<Output = Result<T, L2Error>>,
    ) -> Result<T, L2Error> {
        let (engine, key) = (&self.engine, &self.id.partition);
        engine.wait_for_busy_l2(&self.allowance, key, work).await?
    }

    /// Whether to wait for a failing L2, which may only be restarting, rather than to continue without it: while another
    /// instance is known to hold the lease, and while the allowance lasts.
    fn waits_for_l2(&self, failure: &L2Error) -> bool {
        let known_down = failure.error.kind() == StoreErrorKind::CircuitOpen;
        self.allowance.is_paused() || (self.allowance.lasts() && !known_down)
    }

    /// The state in L2, or in memory if L2 cannot be asked and the policy is to continue without it.
    async fn look_or_remember(&self) -> Result<RefreshState, Error> {
        match self.look().await {
            Ok(seen) => Ok(seen),
            Err(failure) => {
                self.engine.degrade(self.policy, failure)?;
                Ok(self.remembered())
            }
        }
    }

    /// Fails if the session was signed out since the request that started this flight: what exists now, or
    /// begins now, belongs to another session.
    fn check_signed_out(&self) -> Result<(), Error> {
        let partition = self.engine.find(&self.id.partition);
        match self.is_over(&partition.lock()) {
            true => Err(Error::SignedOut),
            false => Ok(()),
        }
    }

    pub(crate) fn is_over(&self, state: &State) -> bool {
        state.signed_out_since(&self.observed)
    }

    fn remembered(&self) -> RefreshState {
        let engine = &self.engine;
        let now = engine.now();
        engine.partitions.with(&self.id.partition, |_, state| {
            state.refresh_state(&self.need.key, self.need.claims.as_deref(), now)
        })
    }

    /// The outcome of the flight if the provider need not be asked, or must not be.
    pub(crate) fn answered_by(
        &self,
        seen: &RefreshState,
        newer_than: Option<u64>,
    ) -> Option<FlightEnd> {
        let now = self.engine.clock.now();
        if let Some(token) = seen.token.as_ref().filter(|t| self.need.is_met_by(t, now)) {
            // A forced refresh accepts a token that was acquired while it waited.
            let version = seen.version(self.engine.l2.entry_id(self.need.key.as_ref()));
            let newer = newer_than.is_some_and(|old| version.is_some_and(|version| version > old));
            if !self.need.force || newer {
                return Some(Ok(AcquiredToken {
                    token: token.clone(),
                    source: TokenSource::Cache,
                    level: match version {
                        Some(_) => CacheLevel::L2,
                        None => CacheLevel::L1,
                    },
                    reason: RefreshReason::NotApplicable,
                    in_http: Duration::ZERO,
                    durability: version.map(|_| Durability::Stored),
                    exclusive: true,
                }));
            }
        }
        let error = seen.failure_record.as_ref()?.error(now)?;
        Some(Err(error.into()))
    }

    fn publish(&mut self) {
        if !std::mem::replace(&mut self.is_published, true) {
            self.engine.flights.remove(&self.id, self.number);
            self.done.send(self.outcome.clone());
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.publish();
    }
}
