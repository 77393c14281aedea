//! Acquisitions: one call to the provider, shared by everybody who needs the token.
//!
//! A request that finds no token it can use joins the *flight* that gets one, or starts it. What a
//! flight does is in `flight`; here is who joins which.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, watch};

use super::Engine;
use super::flight::Flight;
use super::pin::Pin;
use super::told;
use crate::acquire::{AcquireFuture, Prior, RefreshReason, TokenSource};
use crate::error::Error;
use crate::key::{PartitionKey, TokenKey};
use crate::lookup::{CacheLevel, Durability};
use crate::policy::FailurePolicy;
use crate::race::{Either, race};
use crate::random;
use crate::time::Timestamp;
use crate::token::Token;

/// The acquire function of the request that starts a flight.
pub(crate) type Call = Box<dyn FnOnce(Prior) -> AcquireFuture + Send>;

/// Tokens differ in their last bytes, where the signature is; the rest need not be hashed.
const DISTINCT: usize = 64;

/// How acquisitions are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// How long before its expiry a token is replaced.
    pub(super) refresh_before: Duration,
    pub(super) lease_ttl: Duration,
    /// How long one call to the provider may take.
    pub(super) timeout: Duration,
}

/// What a request demands of a token.
#[derive(Clone, Debug)]
pub(crate) struct Need {
    pub(crate) key: TokenKey,
    pub(crate) min_remaining: Duration,
    pub(crate) force: bool,
    /// The token has to be another than this.
    pub(crate) replaces: Option<Token>,
    pub(crate) claims: Option<Arc<str>>,
    pub(crate) reason: Option<RefreshReason>,
    /// What memory had, which may have expired: L2 does not tell.
    pub(crate) stale: Option<Token>,
}

impl Need {
    /// Whether this token of the cache will do.
    pub(crate) fn is_met_by(&self, token: &Token, now: Timestamp) -> bool {
        let lasts = token
            .expires_at()
            .is_none_or(|end| now.saturating_add(self.min_remaining) < end);
        let replaced = self.replaces.as_ref();
        lasts && replaced.is_none_or(|old| old.access_token() != token.access_token())
    }

    /// Whether the token is asked for ahead of its time, and nobody waits for it.
    pub(super) fn is_ahead(&self) -> bool {
        self.reason == Some(RefreshReason::ProactivelyRefreshed)
    }
}

/// What a flight brought.
#[derive(Clone, Debug)]
pub(crate) struct Landed {
    pub(crate) token: Token,
    pub(crate) source: TokenSource,
    pub(crate) level: CacheLevel,
    pub(crate) reason: RefreshReason,
    pub(crate) in_http: Duration,
    pub(crate) durability: Option<Durability>,
    pub(crate) exclusive: bool,
}

/// Why a flight brought nothing.
#[derive(Clone, Debug)]
pub(super) enum Grounded {
    /// Everybody who waited gets this.
    Failed(Error),
    /// Another instance has taken over. The acquire function is used up; who has another one may
    /// try again.
    Overtaken,
}

pub(super) type Outcome = Result<Landed, Grounded>;

/// What flights are for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FlightId {
    pub(super) partition: PartitionKey,
    pub(super) name: TokenKey,
    pub(super) claims: Option<Arc<str>>,
}

/// The flights of this process.
pub(super) struct Flights {
    flying: Mutex<HashMap<FlightId, Flying>>,
    /// Whoever redeems a partition's refresh token holds its lock.
    locks: Mutex<HashMap<PartitionKey, Weak<tokio::sync::Mutex<()>>>>,
    slots: Arc<Semaphore>,
    /// Those ahead of time leave some for those that are waited for.
    slots_ahead: Arc<Semaphore>,
    /// How many there are.
    count: watch::Sender<usize>,
    /// Moves the refresh times of this instance apart from those of others.
    jitter: u64,
}

/// One flight, seen by those who wait for it.
#[derive(Clone)]
struct Flying {
    number: u64,
    /// Told when somebody waits for it.
    awaited: Arc<Notify>,
    outcome: told::Receiver<Outcome>,
    /// When it was started. What began after a sign-out does not wait for what one has ended.
    pin: Pin,
}

impl Flights {
    pub(super) fn new(max_acquisitions: u32) -> Self {
        let slots = max_acquisitions as usize;
        Self {
            flying: Mutex::default(),
            locks: Mutex::default(),
            slots: Arc::new(Semaphore::new(slots)),
            slots_ahead: Arc::new(Semaphore::new((slots / 4).max(1))),
            count: watch::Sender::new(0),
            jitter: random::number().unwrap_or_default(),
        }
    }

    /// Leave to ask the provider, of which there is only so much. A flight ahead of time that
    /// comes to be waited for leaves the queue of those that are not.
    pub(super) async fn slot(
        &self,
        awaited: &Notify,
    ) -> (Option<OwnedSemaphorePermit>, Option<OwnedSemaphorePermit>) {
        // Neither is ever closed.
        let slot = self.slots_ahead.clone().acquire_owned();
        let ahead = match race(awaited.notified(), slot).await {
            Either::First(()) => None,
            Either::Second(slot) => slot.ok(),
        };
        (ahead, self.slots.clone().acquire_owned().await.ok())
    }

    /// The right to redeem this partition's refresh token, within this process.
    pub(super) async fn lock(&self, partition: &PartitionKey) -> OwnedMutexGuard<()> {
        let mutex = {
            let mut locks = self.locks.lock();
            locks.retain(|key, mutex| key == partition || mutex.strong_count() > 0);
            let known = locks.get(partition).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let mutex = Arc::default();
                locks.insert(partition.clone(), Arc::downgrade(&mutex));
                mutex
            })
        };
        mutex.lock_owned().await
    }

    /// A flight has ended: its place is free, unless another has taken it.
    pub(super) fn remove(&self, id: &FlightId, number: u64) {
        let mut flying = self.flying.lock();
        if flying.get(id).is_some_and(|flight| flight.number == number) {
            flying.remove(id);
        }
        drop(flying);
        self.count.send_modify(|count| *count -= 1);
    }

    /// Waits until no flight is left.
    pub(super) async fn landed(&self) {
        // The sender lives in this.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }
}

impl Engine {
    /// A token from the provider, or from whoever asks the provider meanwhile.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        partition: &PartitionKey,
        need: &Need,
        policy: FailurePolicy,
        pin: &mut Option<Pin>,
        call: Call,
    ) -> Result<Landed, Error> {
        let mut call = Some(call);
        if pin.is_none() && policy != FailurePolicy::Bypass {
            // Whoever insists on a new token has not read anything yet.
            self.know_generation(partition, policy, pin).await?;
        }
        loop {
            let now = self.clock.now();
            let (setback, seen) = self.partitions.with(partition, |_, state| {
                let seen = *pin.get_or_insert_with(|| state.pin(now));
                (state.seen(need.key.as_ref(), now).setback, seen)
            });
            if let Some(error) = setback.and_then(|setback| setback.error(now)) {
                return Err(error.into());
            }
            let outcome = self.join(partition, need, policy, seen, &mut call)?;
            // The flight goes on when this caller goes away.
            let landed = outcome.outcome().await;
            let signed_out = self.find(partition).lock().signed_out_since(&seen);
            let started = call.is_none();
            match landed {
                _ if signed_out => return Err(Error::SignedOut),
                Some(Ok(landed)) => {
                    let asked = landed.source == TokenSource::IdentityProvider;
                    let now = self.clock.now();
                    if asked || started || (!need.force && need.is_met_by(&landed.token, now)) {
                        return Ok(landed);
                    }
                }
                Some(Err(Grounded::Failed(error))) => return Err(error),
                Some(Err(Grounded::Overtaken)) if !started => {}
                Some(Err(Grounded::Overtaken)) | None => return Err(super::flight::overtaken()),
            }
        }
    }

    /// Asks for a successor of a token that will expire soon; nobody waits for it.
    pub(crate) fn refresh_ahead(
        self: &Arc<Self>,
        partition: &PartitionKey,
        token: &Token,
        key: &TokenKey,
        policy: FailurePolicy,
        call: Call,
    ) {
        let now = self.clock.now();
        let seen = self
            .partitions
            .with(partition, |_, state| state.seen(key.as_ref(), now));
        if seen
            .setback
            .is_some_and(|setback| setback.error(now).is_some())
        {
            return;
        }
        let need = Need {
            key: key.clone(),
            min_remaining: Duration::ZERO,
            force: false,
            replaces: Some(token.clone()),
            claims: None,
            reason: Some(RefreshReason::ProactivelyRefreshed),
            stale: None,
        };
        // Shut down: the token is still good.
        let _ = self.join(partition, &need, policy, seen.pin, &mut Some(call));
    }

    /// When a successor of this token is asked for, ahead of its expiry: a little earlier or later
    /// on each instance, always the same for one token.
    pub(crate) fn refresh_at(&self, token: &Token) -> Option<Timestamp> {
        let (at, window) = self.refresh_window(token)?;
        // ±10 %
        let text = token.access_token().as_bytes();
        let end = &text[text.len().saturating_sub(DISTINCT)..];
        let mut hasher = DefaultHasher::new();
        (self.flights.jitter, end).hash(&mut hasher);
        let hash = hasher.finish() as u32;
        let shift = window.mul_f64(0.2 * f64::from(hash) / f64::from(u32::MAX));
        Some(at.saturating_sub(window / 10).saturating_add(shift))
    }

    /// Whether that time has come.
    pub(crate) fn is_refresh_due(&self, token: &Token, now: Timestamp) -> bool {
        let soon = self.terms.refresh_before.saturating_mul(2);
        let has_long = |end: Timestamp| now.saturating_add(soon) < end;
        if token.refresh_at().is_none() && token.expires_at().is_some_and(has_long) {
            // Most tokens, and more is not to be worked out for them.
            return false;
        }
        let near = |(at, window): (Timestamp, Duration)| now >= at.saturating_sub(window / 10);
        self.refresh_window(token).is_some_and(near)
            && self.refresh_at(token).is_some_and(|at| now >= at)
    }

    /// The refresh time without jitter, and the time that the jitter is a part of.
    fn refresh_window(&self, token: &Token) -> Option<(Timestamp, Duration)> {
        let before = self.terms.refresh_before;
        match (token.refresh_at(), token.expires_at()) {
            (Some(at), Some(end)) => Some((at, end.since(at).min(before))),
            (Some(at), None) => Some((at, before)),
            (None, Some(end)) => {
                // A fifth of a short life is enough; else it would be replaced all the time.
                let life = token.issued_at().map(|issued| end.since(issued));
                let window = life.map_or(before, |life| before.min(life / 5));
                Some((end.saturating_sub(window), window))
            }
            (None, None) => None,
        }
    }

    /// The flight for this need, which is started with `call` if there is none.
    fn join(
        self: &Arc<Self>,
        partition: &PartitionKey,
        need: &Need,
        policy: FailurePolicy,
        pin: Pin,
        call: &mut Option<Call>,
    ) -> Result<told::Receiver<Outcome>, Error> {
        let id = FlightId {
            partition: partition.clone(),
            name: need.key.clone(),
            claims: need.claims.clone(),
        };
        let mut flying = self.flights.flying.lock();
        let begun = flying.get(&id);
        let over = |flight: &Flying| self.find(partition).lock().signed_out_since(&flight.pin);
        if let Some(flight) = begun.filter(|flight| !over(flight)) {
            if !need.is_ahead() {
                flight.awaited.notify_one();
            }
            return Ok(flight.outcome.clone());
        }
        if self.queue.is_closed() {
            return Err(Error::ShutDown);
        }
        let Some(call) = call.take() else {
            return Err(super::flight::overtaken());
        };
        let (done, outcome) = told::channel();
        let number = u64::from_be_bytes(self.queue.next_id().0);
        let awaited = Arc::<Notify>::default();
        if !need.is_ahead() {
            awaited.notify_one();
        }
        let flight = Flight::new(self.clone(), id.clone(), number, policy, need.clone(), done);
        self.flights.count.send_modify(|count| *count += 1);
        flying.insert(
            id,
            Flying {
                number,
                awaited: awaited.clone(),
                outcome: outcome.clone(),
                pin,
            },
        );
        drop(flying);
        self.runtime.spawn(flight.run(call, awaited));
        Ok(outcome)
    }
}
