//! One flight: keeps others from doing the same, looks once more, asks the provider, makes the
//! answer durable, and tells everybody who waits.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

use crate::acquire::{
    AcquireError, AcquireErrorKind, BoxError, Prior, ProviderError, RefreshReason, TokenSource,
    classify,
};
use crate::engine::acquire::call::{Call, Gate, NoAnswer};
use crate::engine::acquire::flights::{Boarding, FlightId};
use crate::engine::acquire::lease::{About, Guarded, HeldLease, Panicked, Work, finish, owner};
use crate::engine::acquire::outcome::{Grounded, Landed, Need, Outcome};
use crate::engine::acquire::turn::{Exclusion, Turn};
use crate::engine::budget::Permit;
use crate::engine::core::Engine;
use crate::engine::error::L2Error;
use crate::engine::load::Reading;
use crate::engine::partition::failure_record::Setback;
use crate::engine::partition::observed::Pin;
use crate::engine::partition::refresh::Seen;
use crate::engine::partition::state::State;
use crate::engine::sync::once;
use crate::error::Error;
use crate::key::{PartitionKind, REFRESH_TOKEN};
use crate::lookup::{CacheLevel, Durability};
use crate::policy::FailurePolicy;
use crate::race::{Either, race};
use crate::token::TokenSet;
use crate::tokens::MAX_TOKEN_SET;

/// Room for an answer that is not there yet, in changes and bytes: an access, a refresh and an id
/// token.
const ROOM: (usize, usize) = (3, 8192);

pub(crate) struct Flight {
    pub(crate) engine: Arc<Engine>,
    pub(crate) id: FlightId,
    number: u64,
    pub(crate) policy: FailurePolicy,
    pub(crate) need: Need,
    /// What the request that started it has seen.
    pin: Pin,
    done: once::Sender<Outcome>,
    outcome: Outcome,
    told: bool,
    /// Told when nobody waits for this any more, and it has not begun to ask.
    abandoned: Arc<Notify>,
    /// Until then it may wait for its turn.
    begin_by: Instant,
    /// Whose the leases are.
    owner: [u8; 16],
}

/// What became of a call that had to wait for its place.
enum Asked {
    Panicked,
    /// Nobody waits for it any more.
    Abandoned,
    /// There was none in time.
    NoPlace,
    NoRoom(Error),
    Answered(Result<TokenSet, BoxError>),
    TimedOut,
}

/// What a call leaves behind, however it ends.
#[derive(Default)]
struct Begun {
    permit: Option<Permit>,
    at: Option<Instant>,
}

impl From<Error> for Grounded {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<AcquireError> for Grounded {
    fn from(error: AcquireError) -> Self {
        Self::Failed(error.into())
    }
}

/// A flight has waited for too long.
fn timed_out() -> AcquireError {
    AcquireError::new(AcquireErrorKind::TimedOut)
}

/// Another instance has taken over, and has not brought a token.
pub(crate) fn overtaken() -> Error {
    AcquireError::new(AcquireErrorKind::Failed).into()
}

impl Flight {
    pub(crate) fn new(
        engine: Arc<Engine>,
        id: FlightId,
        number: u64,
        policy: FailurePolicy,
        need: Need,
        pin: Pin,
        boarding: Boarding,
    ) -> Self {
        Self {
            begin_by: Instant::now() + engine.terms.timeout,
            engine,
            id,
            number,
            policy,
            need,
            pin,
            done: boarding.done,
            abandoned: boarding.abandoned,
            // Where the engine's runtime has ended it never runs.
            outcome: Err(Error::unavailable().into()),
            told: false,
            owner: owner(number),
        }
    }

    pub(crate) async fn run(mut self, call: Call) {
        self.outcome = Err(AcquireError::new(AcquireErrorKind::Panicked).into());
        let mut exclusion = Exclusion::default();
        let flight = Box::pin(self.fly(call, &mut exclusion));
        self.outcome = match race(self.abandoned.notified(), flight).await {
            Either::First(()) => Err(Grounded::Overtaken),
            Either::Second(outcome) => outcome,
        };
        if let Err(Grounded::Failed(Error::Acquire(error))) = &self.outcome {
            // As many as requests ask for: metrics and `Stats` count them.
            tracing::debug!(kind = ?error.kind(), reason = ?self.need.reason, "no token was acquired");
        }
        self.tell();
        let id = self.id.clone();
        drop(self);
        Box::pin(exclusion.end_when_written(id.partition, id.name)).await;
    }

    async fn fly(&self, call: Call, exclusion: &mut Exclusion) -> Outcome {
        let engine = self.engine.clone();
        let _held = Reading::hold(&engine, &self.id.partition);
        let mut seen = self.remembered();
        if self.policy == FailurePolicy::Bypass {
            return Box::pin(self.ask(call, &seen, exclusion)).await;
        }
        let mut floor = None;
        if self.need.force || self.need.replaces.is_some() {
            seen = Box::pin(self.look_or_remember()).await?;
            self.goes_on()?;
            if let Some(outcome) = self.answered_by(&seen, None) {
                return outcome;
            }
            floor = seen.version(engine.l2.entry_id(self.need.key.as_ref()));
        }
        let mut turn = Turn::new(&engine);
        let changes = engine.coherence.changes(&self.id.partition);
        let mut call = Some(call);
        loop {
            let refreshes = seen.refresh_token.is_hit();
            let alone = self.needs_no_lease(&seen);
            let life = seen.pin.generation();
            if refreshes && exclusion.lock.is_none() {
                let lock = engine.lock_partition(&self.id.partition, seen.pin);
                let lock = timeout_at(self.begin_by, lock).await;
                exclusion.lock = Some(lock.map_err(|_| timed_out())?);
            }
            // From before the look, so that no announcement falls in between.
            let mut changed = pin!(changes.value().notified());
            changed.as_mut().enable();
            let taken = match alone {
                true => Ok(None),
                false => Box::pin(self.take_lease(exclusion, refreshes, life)).await,
            };
            let looked = match taken {
                Ok(None) => Box::pin(self.look()).await.map(|seen| (seen, true)),
                Ok(Some(remaining)) => {
                    turn.is_held(remaining, changed.as_mut()).await;
                    Box::pin(self.look()).await.map(|seen| (seen, false))
                }
                Err(failure) => Err(failure),
            };
            let ours;
            (seen, ours) = match looked {
                Ok(looked) => looked,
                Err(failure) => {
                    engine.degrade(self.policy, failure.clone())?;
                    if turn.may_come(&failure) {
                        turn.pause(changed.as_mut()).await;
                        continue;
                    }
                    exclusion.lease = None;
                    (self.remembered(), true)
                }
            };
            self.goes_on()?;
            if let Some(outcome) = self.answered_by(&seen, floor) {
                return outcome;
            }
            let is_known_now = alone && !self.needs_no_lease(&seen);
            let is_another = seen.pin.generation() != life;
            if ours && (seen.refresh_token.is_hit() != refreshes || is_known_now || is_another) {
                // It is another lease that is needed.
                Box::pin(exclusion.end()).await;
            } else if ours {
                seen.token = seen.token.or_else(|| self.need.stale.clone());
                let Some(call) = call.take() else {
                    return Err(Grounded::Overtaken);
                };
                match Box::pin(self.ask(call, &seen, exclusion)).await {
                    // Who has taken over may bring the token.
                    Err(Grounded::Overtaken) => exclusion.lease = None,
                    outcome => return outcome,
                }
            } else if turn.is_over() {
                return Err(timed_out().into());
            }
        }
    }

    /// Whether other instances need not be kept from doing the same: there is no such session or user
    /// as far as is known, and so nothing that could be redeemed twice. Invented ids leave no lease.
    fn needs_no_lease(&self, seen: &Seen) -> bool {
        let kind = self.id.partition.kind();
        let invented = matches!(kind, PartitionKind::Session | PartitionKind::User);
        invented && !seen.exists && !seen.refresh_token.is_hit()
    }

    /// Asks for the lease; how long it is another's if it is.
    async fn take_lease(
        &self,
        exclusion: &mut Exclusion,
        refreshes: bool,
        generation: u64,
    ) -> Result<Option<Duration>, L2Error> {
        let name = match refreshes {
            true => REFRESH_TOKEN,
            false => self.need.key.as_ref(),
        };
        let mut held = match exclusion.lease.take() {
            Some(held) => held,
            None => {
                let partition = self.engine.id(&self.id.partition).await?;
                HeldLease::new(&self.engine, partition, name, generation, self.owner)
            }
        };
        let answer = held.take().await;
        // One that may have been granted is asked for again, by the same owner.
        if !matches!(answer, Ok(Some(_))) {
            exclusion.lease = Some(held);
        }
        answer
    }

    async fn look(&self) -> Result<Seen, L2Error> {
        self.engine.look(&self.id.partition, &self.need.key).await
    }

    /// What is in L2, or in memory when L2 cannot be asked and the policy is to go on.
    pub(crate) async fn look_or_remember(&self) -> Result<Seen, Error> {
        match self.look().await {
            Ok(seen) => Ok(seen),
            Err(failure) => {
                self.engine.degrade(self.policy, failure)?;
                Ok(self.remembered())
            }
        }
    }

    /// An error where the session was signed out since the request that started this: what there is
    /// now, or begins now, is of another.
    fn goes_on(&self) -> Result<(), Error> {
        let partition = self.engine.find(&self.id.partition);
        match self.is_over(&partition.lock()) {
            true => Err(Error::SignedOut),
            false => Ok(()),
        }
    }

    pub(crate) fn is_over(&self, state: &State) -> bool {
        state.signed_out_since(&self.pin)
    }

    fn remembered(&self) -> Seen {
        let engine = &self.engine;
        let now = engine.now();
        engine.partitions.with(&self.id.partition, |_, state| {
            state.seen(self.need.key.as_ref(), now)
        })
    }

    /// The end of the flight if the provider need not, or must not, be asked.
    pub(crate) fn answered_by(&self, seen: &Seen, floor: Option<u64>) -> Option<Outcome> {
        let now = self.engine.clock.now();
        if let Some(token) = seen.token.as_ref().filter(|t| self.need.is_met_by(t, now)) {
            // A forced refresh is content with one that was made while it waited.
            let version = seen.version(self.engine.l2.entry_id(self.need.key.as_ref()));
            let newer = floor.is_some_and(|floor| version.is_some_and(|version| version > floor));
            if !self.need.force || newer {
                return Some(Ok(Landed {
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
        let error = seen.setback.as_ref()?.error(now)?;
        Some(Err(error.into()))
    }

    fn reason(&self, seen: &Seen) -> RefreshReason {
        match (self.need.reason, &seen.token) {
            (Some(reason), _) => reason,
            (None, Some(_)) => RefreshReason::Expired,
            (None, None) => RefreshReason::NoCachedAccessToken,
        }
    }

    /// Asks the provider.
    async fn ask(&self, call: Call, seen: &Seen, exclusion: &mut Exclusion) -> Outcome {
        let engine = &self.engine;
        let reason = self.reason(seen);
        let prior = Prior {
            key: self.need.key.clone(),
            reason,
            token: seen.token.clone(),
            refresh_token: seen.refresh_token.clone(),
            id_token: seen.id_token.clone(),
            claims: self.need.claims.clone(),
        };
        let mut begun = Begun::default();
        let about = About {
            partition: &self.id.partition,
            name: &self.need.key,
            seen,
        };
        // The lease is kept while the call waits for its place.
        let gate = Arc::<Gate>::default();
        let work: Work<'_, Asked> = Box::pin(self.call(call, prior, &mut begun, &gate));
        let limit = self.begin_by.max(Instant::now()) + engine.terms.timeout;
        let answer = timeout_at(limit, async {
            match &mut exclusion.lease {
                Some(lease) => lease.guard(work, about, &gate).await,
                None => Guarded::Done(finish(work, &gate).await),
            }
        });
        let answer = match answer.await {
            Ok(Guarded::Overtaken) => return Err(Grounded::Overtaken),
            Ok(Guarded::Done(answer)) => answer,
            Err(_) => Ok(Asked::TimedOut),
        };
        let Begun { permit, at } = begun;
        let in_http = at.map_or(Duration::ZERO, |at| at.elapsed());
        let (kind, asked, error) = match answer {
            Ok(Asked::Abandoned) => return Err(Grounded::Overtaken),
            Ok(Asked::NoPlace) => return Err(timed_out().into()),
            Ok(Asked::NoRoom(error)) => return Err(error.into()),
            Ok(Asked::TimedOut) if at.is_none() => return Err(timed_out().into()),
            Ok(Asked::Answered(Ok(set))) if set.size() <= MAX_TOKEN_SET => {
                engine.counters.acquisitions.add(1);
                let landed = Landed {
                    token: set.access().clone(),
                    source: TokenSource::IdentityProvider,
                    level: CacheLevel::None,
                    reason,
                    in_http,
                    durability: None,
                    exclusive: exclusion.lease.is_some(),
                };
                return Box::pin(self.keep(landed, set, seen, permit)).await;
            }
            Ok(Asked::Answered(Ok(set))) => {
                let (size, limit) = (set.size(), MAX_TOKEN_SET);
                let error = Box::new(Error::TooLarge { size, limit });
                (AcquireErrorKind::Failed, None, Some(error as _))
            }
            Ok(Asked::Answered(Err(error))) => {
                let (kind, asked) = classify(&*error);
                (kind, asked, Some(error))
            }
            Err(Panicked) | Ok(Asked::Panicked) => (AcquireErrorKind::Panicked, None, None),
            Ok(Asked::TimedOut) => (AcquireErrorKind::TimedOut, None, None),
        };
        engine.counters.failed_acquisitions.add(1);
        let now = engine.clock.now();
        let setback = Setback::new(kind, asked, seen.setback.as_ref(), &seen.refresh_token, now);
        let mut failure = setback
            .error(now)
            .unwrap_or_else(|| AcquireError::new(kind));
        let concerns_all = error.as_deref().is_none_or(|error| !is_refusal(error));
        let concerns_all = concerns_all || kind != AcquireErrorKind::Failed;
        Box::pin(self.remember(setback, seen, concerns_all, permit)).await;
        if let Some(error) = error {
            failure = failure.with_source(error);
        }
        Err(failure.into())
    }

    /// One call, once there is a place for it.
    async fn call(&self, call: Call, prior: Prior, begun: &mut Begun, gate: &Arc<Gate>) -> Asked {
        let engine = &self.engine;
        let Some(mut place) = engine.flights.queue_up(&self.id, self.number) else {
            return Asked::Abandoned;
        };
        if timeout_at(self.begin_by, place.granted()).await.is_err() {
            return Asked::NoPlace;
        }
        if !engine.flights.begin(&self.id, self.number) {
            return Asked::Abandoned;
        }
        let (name, now) = (&self.need.key, engine.now());
        // How large it will be is not known yet.
        let has_room = |state: &mut State| state.has_room_for([(name, 0)], now);
        let known = engine.partitions.with_known(&self.id.partition, has_room);
        if let Some(Err(error)) = known {
            return Asked::NoRoom(error);
        }
        if self.policy != FailurePolicy::Bypass {
            match Box::pin(engine.reserve(ROOM.0, ROOM.1, engine.deadline())).await {
                Ok((permit, _)) => begun.permit = Some(permit),
                Err(error) => return Asked::NoRoom(error),
            }
        }
        begun.at = Some(Instant::now());
        let work = Box::pin(call.start(prior, engine, &self.id, gate));
        match timeout(engine.terms.timeout, place.run(work)).await {
            Ok(Ok(answer)) => Asked::Answered(answer),
            Ok(Err(NoAnswer::Panicked)) => Asked::Panicked,
            // Whoever waits and is still there has a call of their own.
            Ok(Err(NoAnswer::Stopped)) => Asked::Abandoned,
            Err(_) => Asked::TimedOut,
        }
    }

    fn tell(&mut self) {
        if !std::mem::replace(&mut self.told, true) {
            self.engine.flights.remove(&self.id, self.number);
            self.done.tell(self.outcome.clone());
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.tell();
    }
}

/// Whether the provider has answered, and refused: what it was asked with is not spent.
fn is_refusal(error: &(dyn std::error::Error + 'static)) -> bool {
    ProviderError::find(error).is_some_and(ProviderError::is_refusal)
}
