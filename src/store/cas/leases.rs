//! Leases over compare-and-set.
//!
//! A record says whose the lease is and for how long, and has a random number, which is another after each renewal.
//! It says no point in time: an instance that waits watches the number, and takes the lease over once the number has
//! stayed for the lease's time. That is safe whatever the clocks show: the owner counts from before its record was
//! written, all others from after they first read it.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{CasStore, keys};
use crate::error::{StoreError, StoreErrorKind};
use crate::random;
use crate::store::retries::Retries;
use crate::store::{Lease, LeaseState};
use crate::time::{Clock, Now, millis};

const FORM: u8 = 1;
/// For how much longer than the lease lasts the store keeps its record: clocks do not run equally fast.
const MARGIN: Duration = Duration::from_secs(5);
/// So few are not worth looking through for those that are over.
const FEW: usize = 64;

/// A lease as the store has it.
#[derive(Clone, Copy)]
struct Held {
    owner: [u8; 16],
    /// Another one after each renewal.
    number: u64,
    ttl: Duration,
}

impl Held {
    fn new(lease: &Lease, ttl: Duration) -> Result<Self, StoreError> {
        let number = random::number();
        let number =
            number.map_err(|error| StoreError::with_source(StoreErrorKind::Refused, error));
        Ok(Self {
            owner: lease.owner,
            number: number?,
            ttl,
        })
    }

    fn write(self) -> Bytes {
        let (number, ttl) = (self.number.to_be_bytes(), millis(self.ttl).to_be_bytes());
        [&[FORM][..], &self.owner, &number, &ttl].concat().into()
    }

    /// `None` when it is damaged or foreign: then the lease is free.
    fn read(bytes: &[u8]) -> Option<Self> {
        let (form, bytes) = bytes.split_first()?;
        let (owner, bytes) = bytes.split_first_chunk()?;
        let (number, ttl) = bytes.split_first_chunk()?;
        (*form == FORM).then_some(Self {
            owner: *owner,
            number: u64::from_be_bytes(*number),
            ttl: Duration::from_millis(u64::from_be_bytes(ttl.try_into().ok()?)),
        })
    }
}

/// Since when leases have been seen as they are, by key.
#[derive(Default)]
pub(super) struct Watches(Mutex<Table>);

#[derive(Default)]
struct Table {
    watched: HashMap<String, Watch>,
    /// What was left when the table was last looked through.
    kept: usize,
}

struct Watch {
    number: u64,
    since: Now,
    ttl: Duration,
}

impl Watches {
    /// For how much longer no other owner may take this lease, which was read just now.
    fn remaining(&self, key: &str, held: &Held, now: Now) -> Duration {
        let mut table = self.0.lock();
        if let Some(watch) = table.watched.get(key)
            && watch.number == held.number
            // A machine that has slept, or whose clock was set, does not know how much time has passed.
            && watch.since.sleeps == now.sleeps
        {
            return held
                .ttl
                .saturating_sub(now.moment.since(watch.since.moment));
        }
        table.watch(key, held, now);
        held.ttl
    }

    /// This lease was written at this time, or later.
    fn written(&self, key: &str, held: &Held, since: Now) {
        self.0.lock().watch(key, held, since);
    }

    fn released(&self, key: &str) {
        self.0.lock().watched.remove(key);
    }
}

impl Table {
    /// One that is forgotten too early is watched anew, and taken over later.
    fn watch(&mut self, key: &str, held: &Held, since: Now) {
        if self.watched.len() >= FEW.max(2 * self.kept) {
            let over = |watch: &Watch| since.moment.since(watch.since.moment) > watch.ttl + MARGIN;
            self.watched.retain(|_, watch| !over(watch));
            self.kept = self.watched.len();
        }
        let watch = Watch {
            number: held.number,
            since,
            ttl: held.ttl,
        };
        self.watched.insert(key.into(), watch);
    }
}

/// Leases in a store that can compare and set, by the time of a clock.
pub(super) struct Leases<'a, C> {
    pub(super) store: &'a C,
    pub(super) clock: &'a Clock,
    pub(super) watches: &'a Watches,
}

impl<C: CasStore> Leases<'_, C> {
    pub(super) async fn acquire(
        &self,
        lease: &Lease,
        ttl: Duration,
    ) -> Result<LeaseState, StoreError> {
        let key = keys::of_lease(lease);
        let mut retries = Retries::new();
        loop {
            let found = self.store.get(&key).await?;
            let held = found.as_ref().and_then(|(bytes, _)| Held::read(bytes));
            if let Some(held) = held.filter(|held| held.owner != lease.owner) {
                let remaining = self.remaining(&key, &held);
                if !remaining.is_zero() {
                    return Ok(LeaseState::Held { remaining });
                }
            }
            let revision = found.as_ref().map(|(_, revision)| revision);
            if self.write(&key, lease, ttl, revision).await? {
                return Ok(LeaseState::Granted);
            }
            retries.pause().await?;
        }
    }

    pub(super) async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        let key = keys::of_lease(lease);
        let mut retries = Retries::new();
        loop {
            let Some(revision) = self.own(&key, lease).await? else {
                return Ok(false);
            };
            if self.write(&key, lease, ttl, Some(&revision)).await? {
                return Ok(true);
            }
            retries.pause().await?;
        }
    }

    pub(super) async fn release(&self, lease: &Lease) -> Result<bool, StoreError> {
        let key = keys::of_lease(lease);
        let mut retries = Retries::new();
        loop {
            let Some(revision) = self.own(&key, lease).await? else {
                return Ok(false);
            };
            if self.store.delete(&key, &revision).await? {
                self.watches.released(&key);
                return Ok(true);
            }
            retries.pause().await?;
        }
    }

    /// The revision of a lease that is this owner's and has not run out.
    async fn own(&self, key: &str, lease: &Lease) -> Result<Option<C::Revision>, StoreError> {
        let found = self.store.get(key).await?;
        let own = found.filter(|(bytes, _)| {
            let held = Held::read(bytes).filter(|held| held.owner == lease.owner);
            held.is_some_and(|held| !self.remaining(key, &held).is_zero())
        });
        Ok(own.map(|(_, revision)| revision))
    }

    fn remaining(&self, key: &str, held: &Held) -> Duration {
        self.watches.remaining(key, held, self.clock.read())
    }

    async fn write(
        &self,
        key: &str,
        lease: &Lease,
        ttl: Duration,
        revision: Option<&C::Revision>,
    ) -> Result<bool, StoreError> {
        let held = Held::new(lease, ttl)?;
        let since = self.clock.read();
        let keep = Some(ttl.saturating_add(MARGIN));
        let written = self.store.put(key, held.write(), revision, keep).await?;
        if written {
            self.watches.written(key, &held, since);
        }
        Ok(written)
    }
}
