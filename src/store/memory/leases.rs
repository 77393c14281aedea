//! The leases of a store in memory.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use crate::store::{EntryId, Lease, LeaseState, PartitionId};
use crate::time::Moment;

/// So few are not worth looking through for those that have run out.
const FEW: usize = 64;

/// Who has which lease until when. Those that have run out are freed when the table has doubled.
#[derive(Default)]
pub(in crate::store) struct Leases(Mutex<Table>);

#[derive(Default)]
struct Table {
    held: HashMap<(PartitionId, EntryId), Held>,
    /// What was left when the table was last looked through.
    kept: usize,
}

struct Held {
    owner: [u8; 16],
    until: Moment,
}

impl Leases {
    pub(in crate::store) fn acquire(
        &self,
        lease: &Lease,
        ttl: Duration,
        now: Moment,
    ) -> LeaseState {
        let mut table = self.table();
        table.sweep(now);
        let next = Held {
            owner: lease.owner,
            until: now.saturating_add(ttl),
        };
        match table.held.entry(key(lease)) {
            Entry::Occupied(held) if held.get().is_of_another(lease, now) => LeaseState::Held {
                remaining: held.get().until.since(now),
            },
            entry => {
                entry.insert_entry(next);
                LeaseState::Granted
            }
        }
    }

    pub(in crate::store) fn renew(&self, lease: &Lease, ttl: Duration, now: Moment) -> bool {
        let mut table = self.table();
        let held = table.held.get_mut(&key(lease));
        let Some(held) = held.filter(|held| held.is_of(lease, now)) else {
            return false;
        };
        held.until = now.saturating_add(ttl);
        true
    }

    pub(in crate::store) fn release(&self, lease: &Lease, now: Moment) -> bool {
        let mut table = self.table();
        match table.held.entry(key(lease)) {
            Entry::Occupied(held) if held.get().is_of(lease, now) => {
                held.remove();
                true
            }
            _ => false,
        }
    }

    /// No code that can panic runs under the lock.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock()
    }
}

impl Table {
    fn sweep(&mut self, now: Moment) {
        if self.held.len() >= FEW.max(2 * self.kept) {
            self.held.retain(|_, held| held.lasts(now));
            self.kept = self.held.len();
        }
    }
}

impl Held {
    fn lasts(&self, now: Moment) -> bool {
        now < self.until
    }

    fn is_of(&self, lease: &Lease, now: Moment) -> bool {
        self.owner == lease.owner && self.lasts(now)
    }

    fn is_of_another(&self, lease: &Lease, now: Moment) -> bool {
        self.owner != lease.owner && self.lasts(now)
    }
}

fn key(lease: &Lease) -> (PartitionId, EntryId) {
    (lease.partition.clone(), lease.entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_that_have_run_out_are_freed() {
        let (leases, ttl) = (Leases::default(), Duration::from_secs(1));
        let mut now = Moment::default();
        for i in 0..10_000_u64 {
            let lease = Lease {
                partition: PartitionId {
                    namespace: "test".into(),
                    digest: [i.to_be_bytes(); 4].concat().try_into().expect("32 bytes"),
                },
                entry: EntryId::from([0; 16]),
                owner: [1; 16],
            };
            assert_eq!(leases.acquire(&lease, ttl, now), LeaseState::Granted);
            now = now.saturating_add(Duration::from_millis(10));
        }
        let held = leases.table().held.len();
        assert!((100..=201).contains(&held), "100 of {held} are in force");
    }
}
