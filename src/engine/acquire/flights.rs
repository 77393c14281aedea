//! The flights of this process, and their waiters.
//!
//! A flight that has not begun its call to the provider ends with its last waiter, unless it is ahead of
//! time. A later request starts another one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};

use crate::engine::acquire::call_slots::{CallSlot, CallSlots};
use crate::engine::acquire::outcome::FlightEnd;
use crate::engine::acquire::redemption::{Redemption, Redemptions};
use crate::engine::partition::observed::Observed;
use crate::engine::sync::allowance::Allowance;
use crate::engine::sync::once;
use crate::engine::sync::waits::Waits;
use crate::error::Error;
use crate::key::{PartitionKey, PartitionKind, TokenKey};
use crate::random;

/// The most flights at a time: as many as 64 call slots get through in a minute at a quarter of a second a
/// call. They take some 4 KB each.
const MOST: usize = 16_384;
/// The most of these that are ahead of time.
const MOST_AHEAD: usize = MOST / 4;
/// The most of these that are of one partition.
const MOST_OF_ONE: usize = MOST / 16;

/// What a flight acquires.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FlightId {
    pub(crate) partition: PartitionKey,
    pub(crate) name: TokenKey,
    pub(crate) claims: Option<Arc<str>>,
}

impl FlightId {
    /// The flight, and what it redeems if there is a refresh token.
    pub(crate) fn places(&self) -> [Place; 2] {
        let redemption = (self.partition.clone(), self.name.refresh_token());
        [Place::Flight(self.clone()), Place::Redemption(redemption)]
    }
}

/// What an acquisition holds, and others wait for.
#[derive(Clone, PartialEq)]
pub(crate) enum Place {
    Flight(FlightId),
    Redemption(Redemption),
}

pub(crate) struct Flights {
    table: Mutex<Table>,
    pub(crate) redemptions: Redemptions,
    /// Acquisitions whose acquire functions wait for others.
    pub(crate) waits: Waits<Place>,
    call_slots: CallSlots,
    /// How many flights have not ended.
    count: watch::Sender<usize>,
    /// Makes the refresh times of this instance differ from those of others.
    pub(crate) jitter: u64,
}

#[derive(Default)]
struct Table {
    flights: HashMap<FlightId, Entry>,
    per_partition: HashMap<PartitionKey, usize>,
    ahead: usize,
}

/// A flight that can be joined.
struct Entry {
    number: u64,
    outcome: once::Receiver<FlightEnd>,
    /// What was observed when it was started. A request that began after a sign-out does not wait for a
    /// flight that the sign-out has ended.
    observed: Observed,
    /// How long it may wait for L2.
    allowance: Arc<Allowance>,
    waiters: usize,
    /// It refreshes ahead of time: it needs no waiter.
    is_ahead: bool,
    /// A request that needs the token now has joined it.
    is_awaited: bool,
    /// Its ticket in the queue for a call slot.
    ticket: Option<u64>,
    /// Ends the flight. `None` once the call has begun: if that were stopped, the refresh token that it
    /// redeems would be spent for nothing.
    abandoned: Option<Arc<Notify>>,
}

/// The flights under their lock.
pub(crate) struct Locked<'a> {
    flights: &'a Flights,
    table: MutexGuard<'a, Table>,
}

/// A flight's own ends of its entry.
pub(crate) struct FlightEnds {
    pub(crate) done: once::Sender<FlightEnd>,
    /// Notified when the flight is to end, because no request waits for it any more.
    pub(crate) abandoned: Arc<Notify>,
    pub(crate) allowance: Arc<Allowance>,
}

/// A request that waits for a flight, until this is dropped.
pub(crate) struct Waiter<'a> {
    flights: &'a Flights,
    id: FlightId,
    number: u64,
    /// What was observed when the flight was started.
    observed: Observed,
    allowance: Arc<Allowance>,
    outcome: once::Receiver<FlightEnd>,
}

impl Flights {
    pub(crate) fn new(max_acquisitions: u32) -> Self {
        Self {
            table: Mutex::default(),
            redemptions: Redemptions::default(),
            waits: Waits::default(),
            call_slots: CallSlots::new(max_acquisitions as usize),
            count: watch::Sender::new(0),
            jitter: random::number().unwrap_or_default(),
        }
    }

    pub(crate) fn lock(&self) -> Locked<'_> {
        Locked {
            flights: self,
            table: self.table.lock(),
        }
    }

    /// Queues the call of this flight for a slot. `None` if the flight was abandoned.
    pub(crate) fn queue_up(&self, id: &FlightId, number: u64) -> Option<CallSlot<'_>> {
        let mut table = self.table.lock();
        let flight = table.find(id, number)?;
        let slot = self
            .call_slots
            .enter(&id.partition, flight.is_ahead && !flight.is_awaited);
        flight.ticket = Some(slot.ticket());
        Some(slot)
    }

    /// The flight begins its call, and is not abandoned from now on. `false` if it was abandoned before.
    pub(crate) fn begin(&self, id: &FlightId, number: u64) -> bool {
        let mut table = self.table.lock();
        let flight = table.find(id, number);
        flight.is_some_and(|flight| flight.abandoned.take().is_some())
    }

    /// The acquire function of this flight waits for another acquisition, and needs no slot meanwhile.
    pub(crate) fn leave_slot(&self, id: &FlightId, number: u64) {
        let mut table = self.table.lock();
        let ticket = table.find(id, number).and_then(|flight| flight.ticket);
        drop(table);
        if let Some(ticket) = ticket {
            self.call_slots.leave(&id.partition, ticket);
        }
    }

    /// A flight has ended. Its entry is removed, unless it was abandoned or replaced before.
    pub(crate) fn remove(&self, id: &FlightId, number: u64) {
        self.table.lock().remove(id, number);
        self.count.send_modify(|count| *count -= 1);
    }

    fn leave(&self, id: &FlightId, number: u64) {
        let mut table = self.table.lock();
        let Some(flight) = table.find(id, number) else {
            return;
        };
        flight.waiters -= 1;
        if flight.waiters == 0 && !flight.is_ahead && flight.abandon() {
            table.remove(id, number);
        }
    }

    /// How many flights have not ended.
    pub(crate) fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// Waits until no flight is left.
    pub(crate) async fn all_ended(&self) {
        // This cannot fail: the sender lives in `self`.
        let _ = self.count.subscribe().wait_for(|count| *count == 0).await;
    }
}

impl<'a> Locked<'a> {
    /// Joins the flight of this id, unless its session is `over`. It waits for L2 no longer than this request would,
    /// which has so much `left`.
    pub(crate) fn join(
        &mut self,
        id: &FlightId,
        is_ahead: bool,
        left: Duration,
        over: impl FnOnce(&Observed) -> bool,
    ) -> Option<Waiter<'a>> {
        let flight = self.table.flights.get_mut(id)?;
        if over(&flight.observed) {
            return None;
        }
        flight.waiters += 1;
        flight.allowance.limit(left);
        if !is_ahead && !std::mem::replace(&mut flight.is_awaited, true) {
            let waits = flight.ticket.into_iter();
            waits.for_each(|ticket| self.flights.call_slots.promote(&id.partition, ticket));
        }
        Some(Waiter {
            flights: self.flights,
            id: id.clone(),
            number: flight.number,
            observed: flight.observed,
            allowance: flight.allowance.clone(),
            outcome: flight.outcome.clone(),
        })
    }

    /// Starts a flight, with its first waiter.
    pub(crate) fn start(
        &mut self,
        id: FlightId,
        number: u64,
        is_ahead: bool,
        observed: Observed,
        allowance: Arc<Allowance>,
    ) -> Result<(FlightEnds, Waiter<'a>), Error> {
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
            allowance: allowance.clone(),
            outcome: outcome.clone(),
        };
        let entry = Entry {
            number,
            outcome,
            observed,
            allowance: allowance.clone(),
            waiters: 1,
            is_ahead,
            is_awaited: !is_ahead,
            ticket: None,
            abandoned: Some(abandoned.clone()),
        };
        self.table.insert(id, entry);
        self.flights.count.send_modify(|count| *count += 1);
        let ends = FlightEnds {
            done,
            abandoned,
            allowance,
        };
        Ok((ends, waiter))
    }

    fn has_room(&self, partition: &PartitionKey, is_ahead: bool) -> bool {
        let per_partition = self.table.per_partition.get(partition);
        let is_application = partition.kind() == PartitionKind::Application;
        // Flights that cannot be joined any more count until they have ended.
        self.flights.count() < MOST
            && (!is_ahead || self.table.ahead < MOST_AHEAD)
            && (is_application || per_partition.is_none_or(|count| *count < MOST_OF_ONE))
    }
}

impl Table {
    fn find(&mut self, id: &FlightId, number: u64) -> Option<&mut Entry> {
        let flight = self.flights.get_mut(id)?;
        (flight.number == number).then_some(flight)
    }

    fn insert(&mut self, id: FlightId, entry: Entry) {
        *self.per_partition.entry(id.partition.clone()).or_default() += 1;
        self.ahead += usize::from(entry.is_ahead);
        if let Some(mut before) = self.flights.insert(id.clone(), entry) {
            // A sign-out has ended that flight: it must not begin its call.
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
        if let Some(count) = self.per_partition.get_mut(&id.partition) {
            *count -= 1;
            if *count == 0 {
                self.per_partition.remove(&id.partition);
            }
        }
    }
}

impl Entry {
    /// Ends the flight, unless its call has begun.
    fn abandon(&mut self) -> bool {
        let abandoned = self.abandoned.take();
        abandoned.is_some_and(|abandoned| {
            abandoned.notify_one();
            true
        })
    }
}

impl Waiter<'_> {
    /// Whether the flight is for a session that began after that of this observation was signed out.
    pub(crate) fn is_after(&self, observed: &Observed) -> bool {
        observed.is_before(&self.observed)
    }

    /// How much longer the flight waits for L2.
    pub(crate) fn left(&self) -> Duration {
        self.allowance.left()
    }

    pub(crate) async fn outcome(&self) -> Option<FlightEnd> {
        self.outcome.outcome().await
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.flights.leave(&self.id, self.number);
    }
}
