//! The bound on the changes that wait for L2, by number and by bytes.

use std::pin::pin;
use std::sync::Arc;

use tokio::sync::{Notify, Semaphore};

/// Permits for a number of changes and for their bytes; either can run out first.
pub(crate) struct Budget(Arc<Room>);

#[derive(Debug)]
struct Room {
    changes: Semaphore,
    bytes: Semaphore,
    /// Notified when room is given back.
    freed: Notify,
    max_changes: u32,
    max_bytes: u32,
}

/// Room for some changes, given back on drop.
#[derive(Debug)]
pub(crate) struct Permit {
    room: Arc<Room>,
    changes: u32,
    bytes: u32,
}

impl Budget {
    pub(crate) fn new(max_changes: u32, max_bytes: u32) -> Self {
        Self(Arc::new(Room {
            changes: Semaphore::new(max_changes as usize),
            bytes: Semaphore::new(max_bytes as usize),
            freed: Notify::new(),
            max_changes,
            max_bytes,
        }))
    }

    /// Room for so many changes of so many bytes, if there is any now.
    pub(crate) fn try_reserve(&self, changes: usize, bytes: usize) -> Option<Permit> {
        let Self(room) = self;
        let (changes, bytes) = self.clamp(changes, bytes);
        let taken = room.changes.try_acquire_many(changes).ok()?;
        room.bytes.try_acquire_many(bytes).ok()?.forget();
        taken.forget();
        Some(self.permit(changes, bytes))
    }

    /// Room for so many changes of so many bytes, as soon as there is any.
    pub(crate) async fn reserve(&self, changes: usize, bytes: usize) -> Option<Permit> {
        let Self(room) = self;
        let (changes, bytes) = self.clamp(changes, bytes);
        let taken = room.changes.acquire_many(changes).await.ok()?;
        room.bytes.acquire_many(bytes).await.ok()?.forget();
        taken.forget();
        Some(self.permit(changes, bytes))
    }

    /// How many changes hold room now.
    pub(crate) fn pending(&self) -> u64 {
        u64::from(self.0.max_changes) - self.0.changes.available_permits() as u64
    }

    /// Waits until all room is free.
    pub(crate) async fn drained(&self) {
        loop {
            let mut freed = pin!(self.0.freed.notified());
            // Registered before the check, so that no notification falls in between.
            freed.as_mut().enable();
            if self.pending() == 0 {
                return;
            }
            freed.await;
        }
    }

    fn permit(&self, changes: u32, bytes: u32) -> Permit {
        Permit {
            room: self.0.clone(),
            changes,
            bytes,
        }
    }

    /// A change larger than the whole budget takes all of it.
    fn clamp(&self, changes: usize, bytes: usize) -> (u32, u32) {
        (
            at_most(changes, self.0.max_changes),
            at_most(bytes, self.0.max_bytes),
        )
    }
}

impl Permit {
    /// Splits one change's room off this permit, as far as the permit goes.
    pub(crate) fn split(&mut self, bytes: usize) -> Self {
        let part = Self {
            room: self.room.clone(),
            changes: self.changes.min(1),
            bytes: at_most(bytes, self.bytes),
        };
        self.changes -= part.changes;
        self.bytes -= part.bytes;
        part
    }
}

fn at_most(wanted: usize, limit: u32) -> u32 {
    u32::try_from(wanted).unwrap_or(u32::MAX).min(limit)
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.room.changes.add_permits(self.changes as usize);
        self.room.bytes.add_permits(self.bytes as usize);
        self.room.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_for_several_changes_is_taken_at_once_or_not_at_all() {
        let budget = Budget::new(3, 100);
        let first = budget.try_reserve(2, 10).expect("there is room");
        assert!(budget.try_reserve(2, 10).is_none());
        assert!(budget.try_reserve(1, 91).is_none());
        assert_eq!(budget.pending(), 2, "who waits holds nothing");
        drop(first);
        assert!(budget.try_reserve(3, 100).is_some());
    }

    #[test]
    fn each_change_gives_its_own_room_back() {
        let budget = Budget::new(3, 100);
        let mut reserved = budget.try_reserve(3, 60).expect("there is room");
        let (one, other) = (reserved.split(10), reserved.split(20));
        assert_eq!(budget.pending(), 3);
        drop(one);
        assert_eq!(budget.pending(), 2);
        assert!(budget.try_reserve(1, 51).is_none());
        drop(other);
        drop(reserved);
        assert!(budget.try_reserve(3, 100).is_some());
    }

    #[test]
    fn what_is_larger_than_the_budget_takes_all_of_it() {
        let budget = Budget::new(2, 100);
        let mut all = budget.try_reserve(3, 1000).expect("there is room");
        let parts = [200, 700, 100].map(|bytes| all.split(bytes));
        assert!(budget.try_reserve(1, 0).is_none());
        drop((parts, all));
        assert!(budget.try_reserve(2, 100).is_some());
    }
}
