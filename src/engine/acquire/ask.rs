//! Asking the provider, and what follows from its answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use crate::acquire::{
    AcquireError, AcquireErrorKind, BoxError, FailureRecord, Meaning, Prior, RefreshReason,
    TokenSource, demand_in,
};
use crate::classify::classify;
use crate::engine::acquire::call::{Call, NoAnswer, Within};
use crate::engine::acquire::exclusion::Exclusion;
use crate::engine::acquire::flight::Flight;
use crate::engine::acquire::gate::Gate;
use crate::engine::acquire::lease::{About, Guarded, GuardedFuture, Panicked, finish};
use crate::engine::acquire::outcome::{AcquireFailure, AcquiredToken, FlightEnd, timed_out};
use crate::engine::budget::Permit;
use crate::engine::partition::refresh::RefreshState;
use crate::engine::partition::state::State;
use crate::error::Error;
use crate::lookup::CacheLevel;
use crate::policy::FailurePolicy;
use crate::token::TokenSet;
use crate::tokens::MAX_TOKEN_SET;

/// The outcome of a call that had to wait for a slot.
enum CallEnd {
    Panicked,
    /// No request waits for it any more.
    Abandoned,
    /// No slot was granted in time.
    NoSlot,
    /// There is no room for an answer, or no lease and a policy that demands one.
    Refused(Error),
    Answered(Result<TokenSet, BoxError>),
    TimedOut,
}

/// What a call leaves behind, however it ends.
#[derive(Default)]
struct CallStart {
    permit: Option<Permit>,
    at: Option<Instant>,
    within: Option<Arc<Within>>,
}

/// The room that is reserved for an answer of unknown size, in changes and bytes: an access, a refresh and an
/// id token.
const ROOM: (usize, usize) = (3, 8192);

impl Flight {
    fn reason(&self, seen: &RefreshState) -> RefreshReason {
        match (self.need.reason, &seen.token) {
            (Some(reason), _) => reason,
            (None, Some(_)) => RefreshReason::Expired,
            (None, None) => RefreshReason::NoCachedAccessToken,
        }
    }

    /// Asks the provider, and commits the answer or records the failure.
    pub(crate) async fn ask(
        &self,
        call: Call,
        seen: &RefreshState,
        guard: &mut Exclusion,
    ) -> FlightEnd {
        let engine = &self.engine;
        let reason = self.reason(seen);
        let prior = Prior {
            key: self.need.key.without_client(),
            client: self.need.key.client().map(Into::into),
            reason,
            token: seen.token.clone(),
            refresh_token: seen.refresh_token.clone(),
            id_token: seen.id_token.clone(),
            claims: self.need.claims.clone(),
        };
        let mut begun = CallStart::default();
        let about = About {
            partition: &self.id.partition,
            name: &self.need.key,
            seen,
            allowance: &self.allowance,
        };
        // The lease is renewed while the call waits for its slot.
        let gate = Arc::<Gate>::default();
        let work: GuardedFuture<'_, CallEnd> = Box::pin(self.call(call, prior, &mut begun, &gate));
        let limit = self.begin_by.max(Instant::now()) + engine.acquisitions.timeout;
        let answer = timeout_at(limit, async {
            match &mut guard.lease {
                Some(lease) => lease.guard(work, about, &gate).await,
                None => Guarded::Done(finish(work, &gate).await),
            }
        });
        let answer = match answer.await {
            Ok(Guarded::Overtaken) => return Err(AcquireFailure::Abandoned),
            Ok(Guarded::Done(answer)) => answer,
            Err(_) => Ok(CallEnd::TimedOut),
        };
        let CallStart { permit, at, within } = begun;
        let in_http = at.map_or(Duration::ZERO, |at| at.elapsed());
        let now = engine.clock.now();
        let (meaning, error) = match answer {
            Ok(CallEnd::Abandoned) => return Err(AcquireFailure::Abandoned),
            Ok(CallEnd::NoSlot) => return Err(timed_out().into()),
            Ok(CallEnd::Refused(error)) => return Err(error.into()),
            Ok(CallEnd::TimedOut) if at.is_none() => return Err(timed_out().into()),
            Ok(CallEnd::Answered(Ok(set))) if set.size() <= MAX_TOKEN_SET => {
                engine.counters.acquisitions.add(1);
                let acquired = AcquiredToken {
                    token: set.access().clone(),
                    source: TokenSource::IdentityProvider,
                    level: CacheLevel::None,
                    reason,
                    in_http,
                    durability: None,
                    exclusive: guard.lease.is_some() && gate.lost_lease().is_none(),
                };
                let committed = Box::pin(self.commit_answer(acquired, set, seen, permit));
                return match &mut guard.lease {
                    Some(lease) => lease.renew_while(committed).await,
                    None => committed.await,
                };
            }
            Ok(CallEnd::Answered(Ok(set))) => {
                let (size, limit) = (set.size(), MAX_TOKEN_SET);
                let error = Box::new(Error::TooLarge { size, limit });
                (Meaning::of(AcquireErrorKind::Failed), Some(error as _))
            }
            Ok(CallEnd::Answered(Err(error))) => (classify(&*error, now), Some(error)),
            Err(Panicked) | Ok(CallEnd::Panicked) => {
                (Meaning::of(AcquireErrorKind::Panicked), None)
            }
            Ok(CallEnd::TimedOut) => (Meaning::of(AcquireErrorKind::TimedOut), None),
        };
        let kind = meaning.kind;
        engine.counters.failed_acquisitions.add(1);
        // Of what the session may not have been given, a refusal concerns nothing else.
        let concerns_demand =
            self.need.demanded && meaning.is_refusal && kind != AcquireErrorKind::RetryLater;
        let claims = self.need.claims.as_deref().filter(|_| concerns_demand);
        let failure_record = FailureRecord::new(
            kind,
            meaning.retry_after,
            seen.failure_record.as_ref(),
            (&seen.refresh_token, claims),
            now,
        );
        let needs_user = kind == AcquireErrorKind::ReauthenticationRequired;
        let demand = error.as_deref().filter(|_| needs_user).map(|it| it as _);
        let failure_record = failure_record.demanding(demand.and_then(demand_in));
        let mut failure = failure_record
            .error(now)
            .unwrap_or_else(|| AcquireError::new(kind));
        let concerns_this =
            kind == AcquireErrorKind::Failed || meaning.asks_for_proof || concerns_demand;
        let concerns_all = !(meaning.is_refusal && concerns_this);
        let is_of_another = within.is_some_and(|within| within.passes_on(kind));
        if !(meaning.is_unasked || is_of_another) {
            Box::pin(self.record_failure(failure_record, seen, concerns_all, permit)).await;
        }
        let is_refused = needs_user && meaning.is_refusal;
        if is_refused && !concerns_demand && seen.refresh_token.is_hit() {
            Box::pin(self.refresh_token_refused(seen, meaning.asks_for_proof)).await;
        }
        if let Some(error) = error {
            failure = failure.with_source(error);
        }
        Err(failure.into())
    }

    /// Makes one call, once a slot is granted.
    async fn call(
        &self,
        call: Call,
        prior: Prior,
        begun: &mut CallStart,
        gate: &Arc<Gate>,
    ) -> CallEnd {
        let engine = &self.engine;
        let Some(mut slot) = engine.flights.queue_up(&self.id, self.number) else {
            return CallEnd::Abandoned;
        };
        if timeout_at(self.begin_by, slot.granted()).await.is_err() {
            return CallEnd::NoSlot;
        }
        if let Some(failure) = gate.lost_lease()
            && let Err(error) = engine.degrade(self.policy, failure.clone())
        {
            return CallEnd::Refused(error);
        }
        if !engine.flights.begin(&self.id, self.number) {
            return CallEnd::Abandoned;
        }
        let (name, now) = (&self.need.key, engine.now());
        // The size of the answer is not known yet.
        let has_room = |state: &mut State| state.has_room_for([(name, 0)], now);
        let known = engine.partitions.with_known(&self.id.partition, has_room);
        if let Some(Err(error)) = known {
            return CallEnd::Refused(error);
        }
        if self.policy != FailurePolicy::Bypass {
            let room = engine.reserve(ROOM.0, ROOM.1, engine.deadline());
            let room = Box::pin(engine.wait_for_l2(&self.allowance, room)).await;
            match room.unwrap_or(Err(Error::Overloaded)) {
                Ok((permit, _)) => begun.permit = Some(permit),
                Err(error) => return CallEnd::Refused(error),
            }
        }
        begun.at = Some(Instant::now());
        let work = Box::pin(call.start(prior, engine, (&self.id, self.number), gate));
        begun.within = Some(work.within.clone());
        // A call that takes long gives its slot up, and goes on.
        match timeout(engine.acquisitions.timeout, slot.run(work)).await {
            Ok(Ok(answer)) => CallEnd::Answered(answer),
            Ok(Err(NoAnswer::Panicked)) => CallEnd::Panicked,
            // Only the runtime of that call has ended. The waiters that remain have calls of their own.
            Ok(Err(NoAnswer::Stopped)) => CallEnd::Abandoned,
            Err(_) => CallEnd::TimedOut,
        }
    }
}
