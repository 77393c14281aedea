//! The state of one partition in memory.

use std::sync::Arc;
#[cfg(feature = "seal")]
use std::sync::atomic::AtomicBool;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::engine::l1::digests::Listed;
use crate::engine::namespace::{NamespaceGeneration, Number};
use crate::engine::partition::entries::ByName;
use crate::engine::partition::entry::{Entry, Unopened};
use crate::engine::partition::failure_record::UnstoredFailure;
use crate::engine::partition::life::Life;
use crate::engine::partition::links::Links;
use crate::engine::partition::pending::Pending;
use crate::key::PartitionKey;
use crate::sabotage::{self, Sabotage};
use crate::store::CommitId;
use crate::time::{Moment, Timestamp};

/// A sign-out, by its number in this process. Handles outlive the [`State`] that they have seen,
/// so that no count may begin anew with one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SignOut(u64);

impl SignOut {
    /// One after all others.
    pub(crate) fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

#[repr(C)]
pub(crate) struct Partition {
    // First what a hit reads, in this order.
    /// When L1 last heard that it was used; see `Eviction`.
    pub(crate) used: AtomicU32,
    /// The footprint that L1 was last told; 0 before it first was.
    pub(crate) weight: AtomicU32,
    pub(crate) key: PartitionKey,
    state: Mutex<State>,
    /// Whether L2 has it, if it does, under the name that it has with encryption.
    #[cfg(feature = "seal")]
    pub(crate) moved: AtomicBool,
}

impl Partition {
    pub(crate) fn new(key: PartitionKey, prefix: &NamespaceGeneration) -> Arc<Self> {
        let state = State {
            prefix: prefix.known(),
            began: prefix.raised_at(),
            ..State::default()
        };
        Arc::new(Self {
            used: AtomicU32::new(0),
            weight: AtomicU32::new(0),
            key,
            state: Mutex::new(state),
            #[cfg(feature = "seal")]
            moved: AtomicBool::new(false),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock cannot leave a half-made change: whatever changes memory has
        // everything it needs before it begins.
        self.state.lock()
    }

    pub(crate) fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }
}

/// What memory knows of a partition: L2's entries with the pending changes laid over.
#[repr(C)]
#[derive(Default)]
pub(crate) struct State {
    /// Until then an entry here can be served without looking at anything else.
    pub(super) fresh_hit_until: Moment,
    /// The epoch of the feed in which the entries were compared with L2.
    pub(crate) epoch: u32,
    /// When what had begun here was over last: the partition was signed out through this process, or
    /// by others while this one could not tell L2. 0 is not since it is in memory.
    pub(crate) sign_out: SignOut,
    /// `None` until L2 was asked.
    pub(crate) generation: Option<u64>,
    /// The number of the namespace that all of this is under; `None` until it is known.
    pub(crate) prefix: Option<Number>,
    /// The users that the session belongs to.
    pub(crate) links: Links,
    // With the first of them ends what most hits read.
    pub(crate) entries: ByName<Entry>,
    /// What the entries own, in bytes.
    pub(super) bytes: usize,
    /// When some of them have expired for long enough; `None` if none ever will.
    pub(super) prune_at: Option<Timestamp>,
    /// Whether `entries` is all that L2 had at `version`.
    pub(crate) complete: bool,
    /// How often the feed has told of a change, and how many of these were when L2 was last asked. Where
    /// they differ, it is asked once more.
    pub(crate) invalidations: u32,
    pub(crate) validated: u32,
    /// The feed has told of what this process has written; that is to be compared.
    pub(crate) own_hint: bool,
    /// How often the feed is to tell of what this process has sent.
    pub(crate) own_due: u8,
    /// `None` while nothing is under way.
    pub(crate) pending: Option<Box<Pending>>,
    /// The latest version that L2 is known to have.
    pub(crate) version: u64,
    /// The life of the partition in L2, if it is known to have one.
    pub(crate) life: Option<Life>,
    /// How often L2 had lost everything by then.
    pub(crate) losses: u32,
    /// The commit that made it, which tells it from the same version of an L2 that has lost data.
    pub(crate) commit: Option<CommitId>,
    /// When L2 last confirmed that.
    pub(crate) checked_at: Moment,
    pub(crate) touched_at: Moment,
    /// When the partition was last signed out: so long ago as L2 says, by the clock of this instance.
    pub(crate) cleared_at: Option<Timestamp>,
    /// When a read must ask L2 again (the L1 expiration ratio); `None` is never.
    pub(crate) fresh_until: Option<Moment>,
    /// When it ends, by what L2 said it had left.
    pub(crate) end: Option<Moment>,
    pub(crate) hard_end: Option<Moment>,
    pub(crate) unopenable: Unopened,
    /// Why the last acquisition failed, where the partition is not known to be there.
    pub(crate) unstored_failure: Option<Box<UnstoredFailure>>,
    /// Its place in the index of digests, where there is one.
    pub(crate) listed: Option<Listed<Partition>>,
    /// When everybody was signed out last, as far as was known when this began.
    pub(crate) began: Timestamp,
    /// Entries have changed that are links.
    pub(super) relinked: bool,
}

impl State {
    /// Begins anew when the number of the namespace has changed: all of this is of the past. Returns
    /// how many changes are dropped.
    pub(crate) fn follow_prefix(&mut self, known: &NamespaceGeneration) -> usize {
        let prefix = known.known();
        let before = std::mem::replace(&mut self.prefix, prefix);
        if before == prefix || sabotage::is(Sabotage::NumberIgnored) {
            return 0;
        }
        let began = known.raised_at();
        if before.is_none() {
            self.began = began;
            let since = self.pending.as_ref().and_then(|pending| pending.since());
            if since.is_none_or(|since| since >= began) {
                return 0;
            }
        }
        let mut pending = self.pending.take();
        let dropped = pending.as_mut().map_or(0, |pending| pending.drop_changes());
        if let Some(pending) = &mut pending {
            // Who signed out may have meant a session under this number, which others knew before.
            let waits = pending.clear.is_some() && !pending.clear_confirmed;
            pending.clear = waits.then_some(None);
            pending.clear_confirmed = false;
        }
        *self = Self {
            prefix,
            began,
            pending,
            ..Self::default()
        };
        dropped
    }

    /// What is under way, to be added to.
    pub(crate) fn pending(&mut self) -> &mut Pending {
        self.pending.get_or_insert_default()
    }

    /// The load under way is over.
    pub(crate) fn end_load(&mut self) {
        let pending = self.pending();
        pending.loading = None;
        pending.end_read();
    }

    /// Whether a change of `name` waits for L2.
    pub(crate) fn waits(&self, name: &str) -> bool {
        let waits = |pending: &Pending| pending.clear.is_some() || pending.holds(name);
        self.pending.as_deref().is_some_and(waits)
    }

    pub(crate) fn is_clearing(&self) -> bool {
        self.pending
            .as_ref()
            .is_some_and(|pending| pending.clear.is_some())
    }

    /// Whether something of this process is on its way to L2.
    pub(crate) fn is_writing(&self) -> bool {
        self.pending
            .as_ref()
            .is_some_and(|pending| pending.is_writing())
    }

    /// Whether this partition must be kept whatever L1 evicts.
    pub(crate) fn is_active(&self) -> bool {
        self.pending
            .as_ref()
            .is_some_and(|pending| pending.is_active())
    }

    /// Whether a broken engine would let this partition go although changes wait.
    pub(crate) fn is_forgettable(&self) -> bool {
        sabotage::is(Sabotage::EvictionDropsPending)
            && self.pending.as_ref().is_some_and(|p| p.only_waits())
    }
}
