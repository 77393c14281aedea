//! The state of one partition in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::acquire::UnstoredFailure;
use crate::engine::l1::digests::Listed;
use crate::engine::namespace::{NamespaceNumber, Number};
use crate::engine::partition::by_name::ByName;
use crate::engine::partition::entry::{Entry, Unopened};
use crate::engine::partition::life::Life;
use crate::engine::partition::links::Links;
use crate::engine::partition::pending::Pending;
use crate::engine::trust::Era;
use crate::key::PartitionKey;
use crate::mutation::{self, Mutation};
use crate::store::CommitId;
use crate::time::{Moment, Timestamp};

/// The number of a sign-out in this process. A handle outlives the [`State`] that it has observed, so the
/// count must not restart with a new `State`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SignOut(u64);

impl SignOut {
    /// A number later than all earlier ones.
    pub(crate) fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

#[repr(C)]
pub(crate) struct Partition {
    // The fields that a hit reads come first, in this order.
    /// When L1 last recorded a use; see `Eviction`.
    pub(crate) used: AtomicU32,
    /// The footprint that L1 last accounted for; 0 until it first does.
    pub(crate) weight: AtomicU32,
    pub(crate) key: PartitionKey,
    state: Mutex<State>,
    /// If L2 has the partition: whether it is stored under the name that is used with encryption.
    pub(crate) moved: AtomicBool,
}

impl Partition {
    pub(crate) fn new(key: PartitionKey, number: &NamespaceNumber) -> Arc<Self> {
        let state = State {
            number: number.known(),
            began: number.raised_at(),
            ..State::default()
        };
        Arc::new(Self {
            used: AtomicU32::new(0),
            weight: AtomicU32::new(0),
            key,
            state: Mutex::new(state),
            moved: AtomicBool::new(false),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock cannot leave a change half done: a change has everything it needs before it
        // begins.
        self.state.lock()
    }

    pub(crate) fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }
}

/// What memory knows of a partition: the entries of L2, with the pending changes applied on top.
#[repr(C)]
#[derive(Default)]
pub(crate) struct State {
    /// Until this moment a hit needs no other checks than those of `fresh_value`.
    pub(super) fresh_hit_until: Moment,
    /// The change feed's era when the entries were last compared with L2.
    pub(crate) era: Era,
    /// The last sign-out that ended what had begun here: one made through this process, or one made elsewhere
    /// while this process could not reach L2. 0 means none since the partition is in memory.
    pub(crate) sign_out: SignOut,
    /// `None` until L2 was asked for it.
    pub(crate) generation: Option<u64>,
    /// The namespace's number to which all of this belongs; `None` until it is known.
    pub(crate) number: Option<Number>,
    /// The users that the session belongs to.
    pub(crate) links: Links,
    // Most hits read up to the first entry, and nothing after it.
    pub(crate) entries: ByName<Entry>,
    /// Bytes that the entries own.
    pub(super) bytes: usize,
    /// When entries are next to be pruned; `None` if none expires.
    pub(super) prune_at: Option<Timestamp>,
    /// Whether `entries` is all that L2 had at `version`.
    pub(crate) complete: bool,
    /// Counts invalidations, most of them announced by the feed. `validated` is the count when L2 was last
    /// asked. If they differ, the partition is revalidated before it is used.
    pub(crate) invalidations: u32,
    pub(crate) validated: u32,
    /// The feed has announced what may be this process's own write; it is to be compared with L2.
    pub(crate) own_hint: bool,
    /// How many announcements of this process's own writes are still expected from the feed.
    pub(crate) own_due: u8,
    /// `None` while nothing is in progress.
    pub(crate) pending: Option<Box<Pending>>,
    /// The latest version that L2 is known to have.
    pub(crate) version: u64,
    /// The life of the partition in L2, if it is known to have one.
    pub(crate) life: Option<Life>,
    /// `Losses::count` when L2 was last read or written.
    pub(crate) losses: u32,
    /// The commit that made `version`. It distinguishes that version from an equal one in an L2 that has lost
    /// data.
    pub(crate) commit: Option<CommitId>,
    /// When L2 last confirmed `version`.
    pub(crate) checked_at: Moment,
    pub(crate) touched_at: Moment,
    /// When the partition was last signed out: L2 reports how long ago that was.
    pub(crate) cleared_at: Option<Moment>,
    /// When a read must ask L2 again (the L1 expiration ratio); `None` means never.
    pub(crate) fresh_until: Option<Moment>,
    /// When the partition ends, by the remaining time that L2 reported.
    pub(crate) end: Option<Moment>,
    pub(crate) hard_end: Option<Moment>,
    pub(crate) unopenable: Unopened,
    /// Why the last acquisition failed, if the partition is not known to exist.
    pub(crate) unstored_failure: Option<Box<UnstoredFailure>>,
    /// Its entry in the index of digests, if it has one.
    pub(crate) listed: Option<Listed<Partition>>,
    /// When all users were last signed out, as far as was known when this state began.
    pub(crate) began: Moment,
    /// Entries that are links have changed; `links` must be derived from them again.
    pub(super) relinked: bool,
}

impl State {
    /// Resets the state if the namespace's number has changed, because everything in it belongs to the old
    /// number. Returns how many changes are dropped.
    pub(crate) fn follow_number(&mut self, known: &NamespaceNumber) -> usize {
        let number = known.known();
        let before = std::mem::replace(&mut self.number, number);
        if before == number || mutation::is(Mutation::NumberIgnored) {
            return 0;
        }
        let began = known.raised_at();
        let mut pending = self.pending.take();
        let dropped = match &mut pending {
            // The number was not known: what was made since it was raised belongs to it.
            Some(pending) if before.is_none() => pending.end_older_than(began),
            Some(pending) => pending.drop_changes(),
            None => 0,
        };
        if before.is_none() && dropped == 0 {
            (self.pending, self.began) = (pending, began);
            return 0;
        }
        if let Some(pending) = &mut pending {
            // A sign-out whose generation is not confirmed may be meant for a session under the new number,
            // which other instances knew earlier: it is kept.
            pending.sign_out = pending.sign_out.filter(|sign_out| !sign_out.is_confirmed);
            if let Some(sign_out) = &mut pending.sign_out {
                sign_out.ends = None;
            }
        }
        *self = Self {
            number,
            began,
            pending,
            ..Self::default()
        };
        self.overlay_pending();
        dropped
    }

    /// The work in progress, created if there is none.
    pub(crate) fn pending(&mut self) -> &mut Pending {
        self.pending.get_or_insert_default()
    }

    /// Ends the load in progress.
    pub(crate) fn end_load(&mut self) {
        let pending = self.pending();
        pending.loading = None;
        pending.end_hold();
    }

    /// Whether L2 has yet to acknowledge a visible change of `name`, or a sign-out.
    pub(crate) fn waits(&self, name: &str) -> bool {
        let waits = |pending: &Pending| pending.sign_out.is_some() || pending.holds(name);
        self.pending.as_deref().is_some_and(waits)
    }

    /// Whether changes wait, by this ticket, for the head of a response.
    pub(crate) fn is_deferred(&self, ticket: u64) -> bool {
        let pending = self.pending.as_ref();
        pending.is_some_and(|pending| pending.deferred == Some(ticket))
    }

    /// Whether this process is sending something of the partition to L2, or is about to.
    pub(crate) fn is_writing(&self) -> bool {
        self.pending
            .as_ref()
            .is_some_and(|pending| pending.is_writing())
    }

    /// Whether the partition must not be evicted, because work is in progress.
    pub(crate) fn is_active(&self) -> bool {
        self.pending
            .as_ref()
            .is_some_and(|pending| pending.is_active())
    }

    /// Mutation: whether the partition may be evicted although changes are pending.
    pub(crate) fn is_forgettable(&self) -> bool {
        mutation::is(Mutation::EvictionDropsPending)
            && self.pending.as_ref().is_some_and(|p| p.only_waits())
    }
}
