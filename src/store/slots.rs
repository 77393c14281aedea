//! `Slots`: partitions that live elsewhere, while requests work on them.
//!
//! A request brings its partition along (in cookies), pins it here, and takes it away again.
//! Requests for one partition that run at the same time share its slot, and with it everything
//! that the engine guarantees. A slot that no request pins is kept while there is room: it is
//! newer than what a response that got lost or was overtaken has left in the browser.

mod snapshot;
mod table;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

pub(crate) use self::snapshot::Snapshot;
use self::table::{Slot, Table};
use super::memory::leases::Leases;
use super::partition::Partition;
use super::{
    Cleared, Commit, CommitId, Lease, LeaseState, Loaded, Origin, Outcome, PartitionId, Raise,
    Remaining,
};
use crate::time::{Clock, Timestamp};

/// Says whether a partition can be taken away; its size if it is too large.
pub(crate) type Fits = dyn Fn(&Snapshot) -> Result<(), usize> + Send + Sync;

/// A table of slots; clones share it.
#[derive(Clone)]
pub(crate) struct Slots(Arc<Shared>);

struct Shared {
    table: Mutex<Table>,
    leases: Leases,
    clock: Clock,
    fits: Box<Fits>,
    max_idle_bytes: u64,
}

/// The partition that was brought is from before a sign-out.
#[derive(Debug)]
pub(crate) struct SignedOut;

/// A request's hold on a slot.
pub(crate) struct Pinned {
    slots: Slots,
    id: PartitionId,
    /// The slot's [`checks`](Slot::checks) when it was pinned.
    checks: u64,
}

impl Slots {
    pub(crate) fn new(clock: Clock, max_idle_bytes: u64, fits: Box<Fits>) -> Self {
        Self(Arc::new(Shared {
            table: Mutex::default(),
            leases: Leases::default(),
            clock,
            fits,
            max_idle_bytes,
        }))
    }

    /// Pins a partition that nobody brings.
    pub(crate) fn pin(&self, id: &PartitionId) -> Pinned {
        self.hold(&mut self.table(), id)
    }

    /// Pins a partition that the request has brought. The newer of two states wins.
    pub(crate) fn resume(&self, id: &PartitionId, brought: Snapshot) -> Result<Pinned, SignedOut> {
        let now = self.0.clock.now();
        let mut table = self.table();
        let slot = table.slots.get(id);
        let held = slot.and_then(|slot| {
            let held = slot.partition.as_ref()?;
            (!held.is_forgotten(now)).then_some((&held.record, slot.changed_at))
        });
        let mut floor = 0;
        let mut newer = true;
        if let Some((record, changed_at)) = held {
            if brought.generation < record.generation {
                return Err(SignedOut);
            }
            newer = (brought.generation, brought.changed_at) > (record.generation, changed_at);
            // Whoever knows the version that stood here has to see that this is another.
            floor = record.version + 1;
        }
        let pinned = self.hold(&mut table, id);
        if newer && let Some(slot) = table.slots.get_mut(id) {
            slot.changed_at = brought.changed_at;
            slot.partition = Some(Partition::from_snapshot(brought, floor));
        }
        Ok(pinned)
    }

    fn hold(&self, table: &mut Table, id: &PartitionId) -> Pinned {
        table.take_from_idle(id);
        let slot = table.slots.entry(id.clone()).or_default();
        slot.pins += 1;
        slot.takers += 1;
        slot.verified = false;
        Pinned {
            slots: self.clone(),
            id: id.clone(),
            checks: slot.checks,
        }
    }

    /// Whether the partition is here.
    pub(crate) fn holds(&self, id: &PartitionId) -> bool {
        self.table().slots.contains_key(id)
    }

    /// The partition's generation, if the rest of the fleet is to be asked for a later one.
    pub(crate) fn unverified(&self, id: &PartitionId) -> Option<u64> {
        let table = self.table();
        let slot = table.slots.get(id).filter(|slot| !slot.verified)?;
        let partition = slot.partition.as_ref();
        Some(partition.map_or(0, |partition| partition.record.generation))
    }

    /// The fleet's generation was asked for, or there is no fleet to ask.
    pub(crate) fn verify(&self, id: &PartitionId) {
        if let Some(slot) = self.table().slots.get_mut(id) {
            slot.verified = true;
            slot.checks += 1;
        }
    }

    pub(crate) fn load(&self, id: &PartitionId) -> Loaded {
        let now = self.0.clock.now();
        let table = self.table();
        let held = table.slots.get(id).and_then(|slot| slot.partition.as_ref());
        let held = held.filter(|partition| !partition.is_forgotten(now));
        held.map_or_else(Loaded::default, |partition| partition.loaded(now))
    }

    pub(crate) fn commit(&self, commit: &Commit) -> Outcome {
        self.commit_if(&mut self.table(), commit, true)
    }

    fn commit_if(&self, table: &mut Table, commit: &Commit, allowed: bool) -> Outcome {
        self.update(table, &commit.partition, |slot, now| {
            let mut next = slot.stored(now);
            let version = |stored: &Option<Partition>| stored.as_ref().map(|p| p.record.version);
            let known = version(&next);
            // Whether a session is there, its cookie says.
            let commit = &Commit {
                life: None,
                ..commit.clone()
            };
            let outcome = Partition::commit(&mut next, commit, allowed, now);
            let changed = version(&next) != known;
            let Some(next) = next.filter(|_| changed) else {
                return outcome;
            };
            let changed_at = slot.next_change(now);
            let snapshot = next.snapshot(changed_at, now);
            if let Err(size) = (self.0.fits)(&snapshot) {
                slot.refusals += 1;
                slot.refused_size = size;
                return Outcome::Conflict;
            }
            if slot.pins > 0 && slot.takers == 0 {
                tracing::warn!(
                    partition = commit.partition.short(),
                    "a change came after the response head: it is in this process only"
                );
            }
            slot.partition = Some(next);
            slot.changed_at = changed_at;
            slot.checks += 1;
            outcome
        })
    }

    pub(crate) fn touch(&self, id: &PartitionId) -> Remaining {
        self.update(&mut self.table(), id, |slot, now| {
            let stored = slot.partition.as_mut().filter(|p| !p.is_forgotten(now));
            let touched = stored.and_then(|partition| partition.touch(now));
            if touched.is_some() {
                slot.changed_at = slot.next_change(now);
            }
            touched.unwrap_or_default()
        })
    }

    pub(crate) fn clear(
        &self,
        partition: &PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> Cleared {
        self.clear_in(&mut self.table(), partition, expected, id)
    }

    fn clear_in(
        &self,
        table: &mut Table,
        partition: &PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> Cleared {
        self.update(table, partition, |slot, now| {
            slot.partition = slot.stored(now);
            slot.changed_at = slot.next_change(now);
            Partition::clear(&mut slot.partition, expected, id, now)
        })
    }

    pub(crate) fn raise(&self, id: &PartitionId, raise: Raise, keep: Option<Duration>) -> u64 {
        self.update(&mut self.table(), id, |slot, now| {
            slot.changed_at = slot.next_change(now);
            slot.partition = slot.stored(now);
            Partition::raise(&mut slot.partition, raise, keep, now)
        })
    }

    /// `None` for a move of a partition to itself.
    pub(crate) fn relocate(&self, from: &Origin, commit: &Commit) -> Option<Outcome> {
        if from.partition == commit.partition {
            return None;
        }
        let now = self.0.clock.now();
        let mut table = self.table();
        let slot = table.slots.get(&from.partition);
        let stored = slot.and_then(|slot| slot.stored(now));
        let unmoved = from.unmoved(stored.as_ref().map(|p| &p.record), now);
        let outcome = self.commit_if(&mut table, commit, unmoved);
        if let Outcome::Committed { .. } = outcome {
            let ended = Some(from.generation);
            self.clear_in(&mut table, &from.partition, ended, commit.id);
        }
        Some(outcome)
    }

    pub(crate) fn acquire_lease(&self, lease: &Lease, ttl: Duration) -> LeaseState {
        self.0
            .leases
            .acquire(lease, ttl, self.0.clock.read().moment)
    }

    pub(crate) fn renew_lease(&self, lease: &Lease, ttl: Duration) -> bool {
        self.0.leases.renew(lease, ttl, self.0.clock.read().moment)
    }

    pub(crate) fn release_lease(&self, lease: &Lease) -> bool {
        self.0.leases.release(lease, self.0.clock.read().moment)
    }

    fn update<R>(
        &self,
        table: &mut Table,
        id: &PartitionId,
        change: impl FnOnce(&mut Slot, Timestamp) -> R,
    ) -> R {
        let now = self.0.clock.now();
        table.take_from_idle(id);
        let result = change(table.slots.entry(id.clone()).or_default(), now);
        table.rest(id, self.0.max_idle_bytes);
        result
    }

    /// No code that can panic runs under the lock.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock()
    }
}

impl Pinned {
    /// The partition as it is to be taken away; `None` while there never was one.
    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        let now = self.slots.0.clock.now();
        let table = self.slots.table();
        let slot = table.slots.get(&self.id)?;
        let partition = slot.partition.as_ref()?;
        Some(partition.snapshot(slot.changed_at, now))
    }

    /// Whether the partition was verified or changed since it was pinned: by this request, or by
    /// another that shares the slot.
    pub(crate) fn was_checked(&self) -> bool {
        let table = self.slots.table();
        let slot = table.slots.get(&self.id);
        slot.is_some_and(|slot| slot.checks != self.checks)
    }

    /// From now on this request cannot take the partition away.
    pub(crate) fn release(&self) {
        if let Some(slot) = self.slots.table().slots.get_mut(&self.id) {
            slot.takers = slot.takers.saturating_sub(1);
        }
    }

    /// How often a commit was refused because of its size, and the last such size.
    pub(crate) fn refusals(&self) -> (u64, usize) {
        let table = self.slots.table();
        let slot = table.slots.get(&self.id);
        slot.map_or((0, 0), |slot| (slot.refusals, slot.refused_size))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut table = self.slots.table();
        if let Some(slot) = table.slots.get_mut(&self.id) {
            slot.pins -= 1;
        }
        let max_bytes = self.slots.0.max_idle_bytes;
        table.rest(&self.id, max_bytes);
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pinned").field(&self.id).finish()
    }
}
