//! The flights of this process, and who waits for them.
//!
//! A flight that has not begun to ask the provider ends with the last of those who wait for it, unless
//! it is ahead of time. Whoever comes later starts another.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, OwnedMutexGuard, watch};
use tokio::time::timeout;

use crate::engine::acquire::call_slots::{CallSlot, CallSlots};
use crate::engine::acquire::outcome::Outcome;
use crate::engine::limits::RECHECK;
use crate::engine::partition::observed::Observed;
use crate::engine::sync::in_use::{InUse, Use};
use crate::engine::sync::once;
use crate::error::Error;
use crate::key::{PartitionKey, PartitionKind, TokenKey};
use crate::random;

/// Flights at a time: as many as 64 call_slots get through in a minute at a third of a second a call. They
/// take some 4 KB each.
const MOST: usize = 16_384;
/// Of these those ahead of time.
const MOST_AHEAD: usize = MOST / 4;
/// Of these those of one partition.
const MOST_OF_ONE: usize = MOST / 16;

/// What flights are for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FlightId {
    pub(crate) partition: PartitionKey,
    pub(crate) name: TokenKey,
    pub(crate) claims: Option<Arc<str>>,
}

pub(crate) struct Flights {
    flying: Mutex<Flying>,
    /// Whoever redeems a partition's refresh token holds its lock.
    locks: InUse<Redeeming>,
    call_slots: CallSlots,
    /// How many have not landed.
    count: watch::Sender<usize>,
    /// Moves the refresh times of this instance apart from those of others.
    jitter: u64,
}

#[derive(Default)]
struct Flying {
    flights: HashMap<FlightId, Entry>,
    of_one: HashMap<PartitionKey, usize>,
    ahead: usize,
}

/// One flight that can be joined.
struct Entry {
    number: u64,
    outcome: once::Receiver<Outcome>,
    /// When it was started. What began after a sign-out does not wait for what one has ended.
    observed: Observed,
    waiters: usize,
    /// Nobody has to wait for it.
    is_ahead: bool,
    /// Somebody has come to wait for it.
    is_awaited: bool,
    /// Its ticket for a place.
    ticket: Option<u64>,
    /// Ends it. Nothing does once it asks the provider: what it redeems would be spent for nothing.
    abandoned: Option<Arc<Notify>>,
}

/// The flights under their lock.
pub(crate) struct Locked<'a> {
    flights: &'a Flights,
    flying: MutexGuard<'a, Flying>,
}

/// A flight's own end of it.
pub(crate) struct Joined {
    pub(crate) done: once::Sender<Outcome>,
    /// Told when the flight is to end, because nobody waits for it any more.
    pub(crate) abandoned: Arc<Notify>,
}

/// Somebody who waits for a flight; no longer once this is dropped.
pub(crate) struct Waiter<'a> {
    flights: &'a Flights,
    id: FlightId,
    number: u64,
    /// When the flight was started.
    observed: Observed,
    outcome: once::Receiver<Outcome>,
}

/// The right to redeem a partition's refresh token, within this process. Given back on drop.
pub(crate) struct Lock {
    _guard: OwnedMutexGuard<()>,
    _use: Use<Redeeming>,
}

#[derive(Default)]
struct Redeeming {
    lock: Arc<tokio::sync::Mutex<()>>,
    /// What the last who had the lock has seen.
    holder: Mutex<Option<Observed>>,
}

impl Flights {
    pub(crate) fn new(max_acquisitions: u32) -> Self {
        Self {
            flying: Mutex::default(),
            locks: InUse::default(),
            call_slots: CallSlots::new(max_acquisitions as usize),
            count: watch::Sender::new(0),
            jitter: random::number().unwrap_or_default(),
        }
    }

    pub(crate) fn jitter(&self) -> u64 {
        self.jitter
    }

    pub(crate) fn lock(&self) -> Locked<'_> {
        Locked {
            flights: self,
            flying: self.flying.lock(),
        }
    }

    /// The right to redeem this partition's refresh token. Who redeems that of a session which is
    /// `over` keeps nobody of the next one waiting.
    pub(crate) async fn lock_partition(
        &self,
        partition: &PartitionKey,
        observed: Observed,
        over: impl Fn(&Observed) -> bool,
    ) -> Lock {
        loop {
            let shared = self.locks.enter(partition);
            let redeeming = shared.value().clone();
            let mut locked = pin!(redeeming.lock.clone().lock_owned());
            let guard = loop {
                if redeeming.holder.lock().as_ref().is_some_and(&over) {
                    self.locks.replace(&shared);
                    break None;
                }
                // A sign-out elsewhere may be heard of meanwhile.
                if let Ok(guard) = timeout(RECHECK, &mut locked).await {
                    break Some(guard);
                }
            };
            let Some(guard) = guard.filter(|_| shared.is_current()) else {
                continue;
            };
            *redeeming.holder.lock() = Some(observed);
            return Lock {
                _guard: guard,
                _use: shared,
            };
        }
    }

    /// A place for the call of this flight, which has to be waited for. `None` where the flight was
    /// abandoned.
    pub(crate) fn queue_up(&self, id: &FlightId, number: u64) -> Option<CallSlot<'_>> {
        let mut flying = self.flying.lock();
        let flight = flying.find(id, number)?;
        let place = self
            .call_slots
            .enter(&id.partition, flight.is_ahead && !flight.is_awaited);
        flight.ticket = Some(place.ticket());
        Some(place)
    }

    /// The flight asks the provider now, and does so to the end. `false` where it was abandoned.
    pub(crate) fn begin(&self, id: &FlightId, number: u64) -> bool {
        let mut flying = self.flying.lock();
        let flight = flying.find(id, number);
        flight.is_some_and(|flight| flight.abandoned.take().is_some())
    }

    /// A flight has ended: its place is free, unless another has taken it.
    pub(crate) fn remove(&self, id: &FlightId, number: u64) {
        self.flying.lock().remove(id, number);
        self.count.send_modify(|count| *count -= 1);
    }

    fn leave(&self, id: &FlightId, number: u64) {
        let mut flying = self.flying.lock();
        let Some(flight) = flying.find(id, number) else {
            return;
        };
        flight.waiters -= 1;
        if flight.waiters == 0 && !flight.is_ahead && flight.abandon() {
            flying.remove(id, number);
        }
    }

    /// How many have not landed.
    pub(crate) fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// Waits until no flight is left.
    pub(crate) async fn landed(&self) {
        // The sender lives in this.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }
}

impl<'a> Locked<'a> {
    /// The flight of this id, unless it is `over`.
    pub(crate) fn join(
        &mut self,
        id: &FlightId,
        is_ahead: bool,
        over: impl FnOnce(&Observed) -> bool,
    ) -> Option<Waiter<'a>> {
        let flight = self.flying.flights.get_mut(id)?;
        if over(&flight.observed) {
            return None;
        }
        flight.waiters += 1;
        if !is_ahead && !std::mem::replace(&mut flight.is_awaited, true) {
            let waits = flight.ticket.into_iter();
            waits.for_each(|ticket| self.flights.call_slots.promote(&id.partition, ticket));
        }
        Some(Waiter {
            flights: self.flights,
            id: id.clone(),
            number: flight.number,
            observed: flight.observed,
            outcome: flight.outcome.clone(),
        })
    }

    /// A new flight, and the first who waits for it.
    pub(crate) fn start(
        &mut self,
        id: FlightId,
        number: u64,
        is_ahead: bool,
        observed: Observed,
    ) -> Result<(Joined, Waiter<'a>), Error> {
        if !self.has_room(&id.partition, is_ahead) {
            return Err(Error::Overloaded);
        }
        let (done, outcome) = once::channel();
        let abandoned = Arc::<Notify>::default();
        let waiter = Waiter {
            flights: self.flights,
            id: id.clone(),
            number,
            observed,
            outcome: outcome.clone(),
        };
        let entry = Entry {
            number,
            outcome,
            observed,
            waiters: 1,
            is_ahead,
            is_awaited: !is_ahead,
            ticket: None,
            abandoned: Some(abandoned.clone()),
        };
        self.flying.insert(id, entry);
        self.flights.count.send_modify(|count| *count += 1);
        Ok((Joined { done, abandoned }, waiter))
    }

    fn has_room(&self, partition: &PartitionKey, is_ahead: bool) -> bool {
        let of_one = self.flying.of_one.get(partition);
        let is_application = partition.kind() == PartitionKind::Application;
        // Those that end without being joined any more count as well.
        self.flights.count() < MOST
            && (!is_ahead || self.flying.ahead < MOST_AHEAD)
            && (is_application || of_one.is_none_or(|count| *count < MOST_OF_ONE))
    }
}

impl Flying {
    fn find(&mut self, id: &FlightId, number: u64) -> Option<&mut Entry> {
        let flight = self.flights.get_mut(id)?;
        (flight.number == number).then_some(flight)
    }

    fn insert(&mut self, id: FlightId, entry: Entry) {
        *self.of_one.entry(id.partition.clone()).or_default() += 1;
        self.ahead += usize::from(entry.is_ahead);
        if let Some(mut before) = self.flights.insert(id.clone(), entry) {
            // A sign-out has ended it: it must not begin any more.
            before.abandon();
            self.forget(&id, &before);
        }
    }

    fn remove(&mut self, id: &FlightId, number: u64) {
        if self.find(id, number).is_some()
            && let Some(flight) = self.flights.remove(id)
        {
            self.forget(id, &flight);
        }
    }

    fn forget(&mut self, id: &FlightId, flight: &Entry) {
        self.ahead -= usize::from(flight.is_ahead);
        if let Some(count) = self.of_one.get_mut(&id.partition) {
            *count -= 1;
            if *count == 0 {
                self.of_one.remove(&id.partition);
            }
        }
    }
}

impl Entry {
    /// Ends the flight, unless it asks the provider by now.
    fn abandon(&mut self) -> bool {
        let abandoned = self.abandoned.take();
        abandoned.is_some_and(|abandoned| {
            abandoned.notify_one();
            true
        })
    }
}

impl Waiter<'_> {
    /// Whether it is for a session that began after this observed's was signed out.
    pub(crate) fn is_after(&self, observed: &Observed) -> bool {
        observed.is_before(&self.observed)
    }

    pub(crate) async fn outcome(&self) -> Option<Outcome> {
        self.outcome.outcome().await
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.flights.leave(&self.id, self.number);
    }
}
