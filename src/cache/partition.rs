//! One partition in memory: what is known of it, and what waits to be written.
//!
//! A `State` is guarded by its partition's lock and never held across an await. It is the only
//! place that decides what a read may answer and what may enter or leave memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::budget::Permit;
use super::entries::{Entries, Entry};
use super::l2::L2Error;
use crate::codec::Value;
use crate::key::{PartitionKey, TokenKey};
use crate::store::{CommitId, EntryId, PartitionId, Remaining};
use crate::time::Timestamp;
use crate::tokens::Lookup;

/// Clocks of instances and store may differ by this much where a change made while L2 could not
/// be asked is compared with the time of a sign-out. In doubt the sign-out wins.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Memory of a partition without its entries, in L1's index included; measured, see
/// `benches/memory.rs`.
const BASE_FOOTPRINT: usize = 512 + std::mem::size_of::<Partition>();
/// Memory of an entry besides what its key and value own.
const ENTRY_FOOTPRINT: usize = std::mem::size_of::<Entry>();

pub(crate) struct Partition {
    pub(crate) key: PartitionKey,
    pub(crate) id: PartitionId,
    state: Mutex<State>,
    /// The footprint that L1 was last told.
    pub(super) weight: AtomicU32,
}

impl Partition {
    pub(super) fn new(key: PartitionKey, id: PartitionId) -> Arc<Self> {
        let weight = AtomicU32::new(State::default().footprint(&key));
        Arc::new(Self {
            key,
            id,
            state: Mutex::default(),
            weight,
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock cannot leave a half-made change: every method below changes
        // memory only after it has everything it needs.
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
pub(crate) struct State {
    pub(super) view: View,
    pub(super) pending: Pending,
    /// The load under way, if any; its end wakes everyone who waits.
    pub(super) loading: Option<watch::Receiver<Option<Result<(), L2Error>>>>,
}

/// What memory knows of the partition: L2's entries with the pending changes laid over.
#[derive(Default)]
pub(super) struct View {
    /// `None` until L2 was asked.
    pub(super) generation: Option<u64>,
    /// The latest version that L2 is known to have.
    pub(super) version: u64,
    /// How often the partition was signed out through this process.
    pub(super) sign_outs: u64,
    /// When L2 says it was last signed out.
    pub(super) cleared_at: Option<Timestamp>,
    /// Whether `entries` is all that L2 had at `version`.
    complete: bool,
    /// When L2 last confirmed that.
    checked_at: Timestamp,
    /// When a full read must ask L2 again (the L1 expiration ratio); `None` is never.
    fresh_until: Option<Timestamp>,
    end: Option<Timestamp>,
    hard_end: Option<Timestamp>,
    touched_at: Timestamp,
    entries: Entries,
    unopenable: Vec<EntryId>,
    bytes: usize,
}

/// What waits to be written.
#[derive(Default)]
pub(super) struct Pending {
    /// A sign-out that L2 has not acknowledged, with the generation it ends.
    pub(super) clear: Option<Option<u64>>,
    pub(super) changes: BTreeMap<TokenKey, PendingChange>,
    /// A commit that was sent, and whose answer is awaited or was lost.
    pub(super) in_flight: Option<InFlight>,
    /// Some task is sending this partition's work now.
    pub(super) sending: bool,
    pub(super) queued: bool,
    pub(super) touch: bool,
    /// Those who wait for all that waits now.
    waiters: Vec<Waiter>,
    /// Those who wait for the commit in flight.
    riders: Vec<Waiter>,
}

type Waiter = oneshot::Sender<Result<(), L2Error>>;

#[derive(Clone)]
pub(super) struct PendingChange {
    /// `None` removes the entry.
    pub(super) value: Option<Value>,
    pub(super) since: Timestamp,
    /// The change's place in the budget, given back when the last copy is dropped.
    pub(super) _permit: Arc<Permit>,
}

#[derive(Clone)]
pub(super) struct InFlight {
    pub(super) id: CommitId,
    pub(super) changes: Arc<Vec<(TokenKey, PendingChange)>>,
}

/// What a handle saw when it first used the partition. Its changes are refused once the partition
/// was signed out after that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pin {
    generation: Option<u64>,
    sign_outs: u64,
    since: Timestamp,
}

/// What memory can say of an entry.
pub(super) enum Answer {
    /// This, for certain enough.
    Known(Lookup<Value>),
    /// This value, unless L2 can be asked.
    Stale(Value),
    /// Nothing, unless L2 can be asked.
    Unknown,
}

/// How the settings of the cache bear on a view.
#[derive(Clone, Copy, Debug)]
pub(super) struct ViewRules {
    pub(super) negative_ttl: Duration,
    pub(super) expiration_ratio: f64,
    pub(super) revalidate_every: Option<Duration>,
    pub(super) sliding: Option<Duration>,
}

/// A partition as read from L2, decoded.
pub(super) struct Fetched {
    pub(super) generation: u64,
    pub(super) version: u64,
    pub(super) cleared_at: Option<Timestamp>,
    pub(super) remaining: Remaining,
    pub(super) entries: Vec<(TokenKey, Value)>,
    pub(super) unopenable: Vec<EntryId>,
}

/// Whether what was read from L2 entered memory.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    Yes,
    /// A commit or sign-out has overtaken the read: read again.
    Overtaken,
}

/// Upkeep that a read found due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) touch: bool,
    pub(super) revalidate: bool,
}

impl State {
    /// What a handle that uses the partition now has seen.
    pub(crate) fn pin(&self, now: Timestamp) -> Pin {
        Pin {
            generation: self.view.generation,
            sign_outs: self.view.sign_outs,
            since: now,
        }
    }

    /// Whether the partition was signed out after `pin` was taken.
    pub(crate) fn signed_out_since(&self, pin: &Pin) -> bool {
        let ended = match (pin.generation, self.view.generation) {
            (Some(seen), Some(now)) => now > seen,
            (None, Some(_)) => self.cleared_since(pin.since),
            _ => false,
        };
        ended || self.view.sign_outs > pin.sign_outs
    }

    /// Takes over the generation that a handle saw, where memory has none: L1 is off, or has
    /// evicted the partition since. L2 checks it in any case.
    pub(super) fn adopt(&mut self, pin: &Pin) {
        self.view.generation = self.view.generation.or(pin.generation);
    }

    fn cleared_since(&self, time: Timestamp) -> bool {
        let cleared = self.view.cleared_at.map(|at| at.saturating_add(CLOCK_SKEW));
        cleared.is_some_and(|at| at >= time)
    }

    /// What memory says of the entry `name`.
    pub(super) fn answer(&self, name: &str, now: Timestamp, rules: &ViewRules) -> Answer {
        if let Some(entry) = self.view.entries.get(name) {
            let waits = entry.local || self.pending.holds(name);
            let alive = waits || !self.view.ended(now);
            let usable = entry.value.expires_at().is_none_or(|at| at > now);
            if alive && usable {
                return match waits || (self.view.complete && self.view.fresh(now)) {
                    true => Answer::Known(Lookup::Hit(entry.value.clone())),
                    false => Answer::Stale(entry.value.clone()),
                };
            }
        }
        if self.pending.clear.is_some() || self.pending.holds(name) {
            return Answer::Known(Lookup::Absent);
        }
        if !self.absences_are_known(now, rules) {
            return Answer::Unknown;
        }
        let unopenable = &self.view.unopenable;
        let damaged = !unopenable.is_empty() && unopenable.contains(&EntryId::of(name));
        Answer::Known(match damaged {
            true => Lookup::Unopenable,
            false => Lookup::Absent,
        })
    }

    /// Whether memory may say that there is no other entry.
    pub(super) fn absences_are_known(&self, now: Timestamp, rules: &ViewRules) -> bool {
        self.pending.clear.is_some()
            || (self.view.complete && now < self.view.checked_at.saturating_add(rules.negative_ttl))
    }

    /// The token keys of the entries that can be used.
    pub(super) fn keys(&self, now: Timestamp) -> Vec<TokenKey> {
        let entries = self.view.entries.iter();
        let alive = entries.filter(|entry| {
            let waits = entry.local || self.pending.holds(entry.name.as_ref());
            let usable = entry.value.expires_at().is_none_or(|at| at > now);
            matches!(entry.value, Value::Token(_)) && usable && (waits || !self.view.ended(now))
        });
        alive.map(|entry| entry.name.clone()).collect()
    }

    /// Upkeep that is due now, and marks it as taken care of.
    pub(super) fn take_due(&mut self, now: Timestamp, rules: &ViewRules) -> Due {
        let view = &mut self.view;
        let stale = |every| now >= view.checked_at.saturating_add(every);
        let revalidate = self.loading.is_none()
            && self.pending.is_idle()
            && rules.revalidate_every.is_some_and(stale);
        // A tenth of the sliding lifetime is the most by which it can end early.
        let slide = |sliding: Duration| now >= view.touched_at.saturating_add(sliding / 10);
        let touch = view.version > 0 && rules.sliding.is_some_and(slide);
        if touch {
            view.touched_at = now;
            self.pending.touch = true;
            // Users of L1 stay signed in while L2 cannot be told that they were here.
            let idle_end = rules.sliding.map(|sliding| now.saturating_add(sliding));
            view.end = [view.hard_end, idle_end].into_iter().flatten().min();
        }
        Due { touch, revalidate }
    }

    /// Lays changes over the view and, unless they are `local`, queues them for L2.
    pub(super) fn change(
        &mut self,
        changes: Vec<(TokenKey, Option<Value>, Option<Permit>)>,
        now: Timestamp,
    ) {
        if self.view.ended(now) && self.pending.is_idle() {
            self.view.forget_entries();
            self.view.end = None;
        }
        for (name, value, permit) in changes {
            self.view.lay(name.clone(), value.clone(), permit.is_none());
            if let Some(permit) = permit {
                let change = PendingChange {
                    value,
                    since: now,
                    _permit: Arc::new(permit),
                };
                self.pending.changes.insert(name, change);
            }
        }
    }

    /// Empties the partition; until L2 acknowledges it, nothing that L2 holds counts.
    pub(super) fn sign_out(&mut self) -> usize {
        let dropped = self.drop_pending();
        self.view.forget_entries();
        self.view.sign_outs += 1;
        self.pending.clear.get_or_insert(self.view.generation);
        dropped
    }

    /// L2 has acknowledged the sign-out.
    pub(super) fn cleared(&mut self, generation: u64, now: Timestamp) {
        self.pending.clear = None;
        self.view.generation = Some(generation);
        self.view.cleared_at = Some(now);
        self.view.version = 0;
        self.view.complete = false;
        self.view.end = None;
        self.view.hard_end = None;
    }

    /// What was known when a load began; see [`admit`](Self::admit).
    pub(super) fn floor(&self) -> (u64, u64, u64) {
        let generation = self.view.generation.unwrap_or(0);
        (self.view.sign_outs, generation, self.view.version)
    }

    /// Takes a partition that was read from L2 into memory, unless something has overtaken it.
    /// `floor` is what was known when the read began.
    pub(super) fn admit(
        &mut self,
        fetched: Fetched,
        floor: (u64, u64, u64),
        now: Timestamp,
        rules: &ViewRules,
    ) -> (Admitted, usize) {
        if self.pending.clear.is_some() {
            return (Admitted::Yes, 0);
        }
        let (sign_outs, generation, version) = self.floor();
        let older = (fetched.generation, fetched.version) < (generation, version);
        // Older than what was known before the read began: the store has lost data, and what it
        // has now is the truth. Older than what became known meanwhile: the read was overtaken.
        if sign_outs != floor.0 || (older && (generation, version) != (floor.1, floor.2)) {
            return (Admitted::Overtaken, 0);
        }
        self.view.cleared_at = fetched.cleared_at;
        let signed_out = match self.view.generation {
            Some(known) => fetched.generation > known,
            None => self
                .pending
                .since()
                .is_some_and(|since| self.cleared_since(since)),
        };
        let dropped = match signed_out {
            true => self.drop_pending(),
            false => 0,
        };
        let view = &mut self.view;
        view.generation = Some(fetched.generation.max(generation));
        view.version = fetched.version;
        view.complete = true;
        view.checked_at = now;
        view.unopenable = fetched.unopenable;
        view.set_remaining(fetched.remaining, now, rules);
        view.forget_loaded_entries();
        if fetched.generation >= generation {
            for (name, value) in fetched.entries {
                view.lay(name, Some(value), false);
            }
        }
        let in_flight = self.pending.in_flight.iter();
        let in_flight = in_flight.flat_map(|commit| commit.changes.iter().cloned());
        let waiting = self.pending.changes.clone();
        for (name, change) in in_flight.chain(waiting) {
            view.lay(name, change.value, false);
        }
        (Admitted::Yes, dropped)
    }

    /// L2 has taken the commit `id`. Returns how many changes it held.
    pub(super) fn committed(
        &mut self,
        id: CommitId,
        version: u64,
        remaining: Remaining,
        now: Timestamp,
        rules: &ViewRules,
    ) -> usize {
        let Some(commit) = self.pending.in_flight.take_if(|commit| commit.id == id) else {
            return 0;
        };
        let view = &mut self.view;
        // One step further: nobody else has committed since the view was complete.
        view.complete &= version == view.version + 1;
        if view.complete {
            view.checked_at = now;
        }
        view.version = view.version.max(version);
        view.touched_at = now;
        view.set_remaining(remaining, now, rules);
        commit.changes.len()
    }

    /// L2 has started the sliding lifetime anew.
    pub(super) fn touched(&mut self, remaining: Remaining, now: Timestamp, rules: &ViewRules) {
        if remaining != Remaining::default() {
            self.view.set_remaining(remaining, now, rules);
        }
    }

    /// L2 has refused the commit `id`, because the partition was signed out elsewhere.
    pub(super) fn refused(&mut self, id: CommitId, generation: u64, now: Timestamp) -> usize {
        if self
            .pending
            .in_flight
            .as_ref()
            .is_none_or(|commit| commit.id != id)
        {
            return 0;
        }
        self.view.forget_entries();
        let dropped = self.drop_pending();
        self.cleared(generation, now);
        dropped
    }

    /// Drops changes that waited for so long that a sign-out's tombstone may be gone.
    pub(super) fn drop_older_than(&mut self, limit: Timestamp) -> usize {
        match self.pending.since() {
            Some(since) if since < limit && !self.pending.sending => {
                self.view.complete = false;
                self.drop_pending()
            }
            _ => 0,
        }
    }

    pub(super) fn drop_pending(&mut self) -> usize {
        let in_flight = self.pending.in_flight.take();
        let dropped = in_flight.map_or(0, |commit| commit.changes.len());
        dropped + std::mem::take(&mut self.pending.changes).len()
    }

    /// Whether this partition must be kept whatever L1 evicts.
    pub(super) fn is_active(&self) -> bool {
        self.loading.is_some() || self.pending.sending || self.pending.has_work()
    }

    /// Whether nothing here is of use any more.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        let used = |entry: &Entry| entry.value.expires_at().is_none_or(|at| at > now);
        let useless = self.view.ended(now) || !self.view.entries.iter().any(used);
        !self.is_active() && useless
    }

    pub(super) fn footprint(&self, key: &PartitionKey) -> u32 {
        let bytes = BASE_FOOTPRINT + key.value().len() + self.view.bytes;
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}

impl View {
    fn ended(&self, now: Timestamp) -> bool {
        self.end.is_some_and(|end| end <= now)
    }

    fn fresh(&self, now: Timestamp) -> bool {
        self.fresh_until.is_none_or(|until| now < until)
    }

    fn set_remaining(&mut self, remaining: Remaining, now: Timestamp, rules: &ViewRules) {
        let at = |rest: Option<Duration>| rest.map(|rest| now.saturating_add(rest));
        self.end = at(remaining.idle);
        self.hard_end = at(remaining.hard);
        let fresh = |rest: Duration| rest.mul_f64(rules.expiration_ratio);
        let limited = rules.expiration_ratio < 1.0;
        self.fresh_until = at(remaining.idle.filter(|_| limited).map(fresh));
    }

    fn lay(&mut self, name: TokenKey, value: Option<Value>, local: bool) {
        let replaced = match value {
            Some(value) => {
                let entry = Entry { name, value, local };
                self.bytes += footprint(&entry);
                self.entries.insert(entry)
            }
            None => self.entries.remove(name.as_ref()),
        };
        self.bytes -= replaced.as_ref().map_or(0, footprint);
    }

    fn forget_loaded_entries(&mut self) {
        self.entries.retain(|entry| entry.local);
        self.bytes = self.entries.iter().map(footprint).sum();
    }

    fn forget_entries(&mut self) {
        self.entries.clear();
        self.unopenable.clear();
        self.bytes = 0;
    }
}

/// Memory of one entry.
fn footprint(entry: &Entry) -> usize {
    entry.name.footprint() + ENTRY_FOOTPRINT + entry.value.footprint()
}

impl Pending {
    /// Whether a change of `name` waits.
    fn holds(&self, name: &str) -> bool {
        let in_flight = |commit: &InFlight| commit.changes.iter().any(|(n, _)| n.as_ref() == name);
        self.changes.contains_key(name) || self.in_flight.as_ref().is_some_and(in_flight)
    }

    /// When the oldest of the changes was made.
    fn since(&self) -> Option<Timestamp> {
        let in_flight = self
            .in_flight
            .iter()
            .flat_map(|commit| commit.changes.iter());
        let all = in_flight
            .map(|(_, change)| change)
            .chain(self.changes.values());
        all.map(|change| change.since).min()
    }

    /// Whether changes or a sign-out wait.
    pub(super) fn is_dirty(&self) -> bool {
        self.clear.is_some() || !self.changes.is_empty() || self.in_flight.is_some()
    }

    fn has_work(&self) -> bool {
        self.is_dirty() || self.touch || !self.waiters.is_empty() || !self.riders.is_empty()
    }

    fn is_idle(&self) -> bool {
        !self.sending && !self.is_dirty()
    }

    /// Told when everything that waits now is written, or could not be.
    pub(super) fn wait(&mut self) -> oneshot::Receiver<Result<(), L2Error>> {
        let (sender, receiver) = oneshot::channel();
        self.waiters.retain(|waiter| !waiter.is_closed());
        self.waiters.push(sender);
        receiver
    }

    /// All changes that wait, as one commit. One whose answer was lost goes out again as it was,
    /// before anything newer.
    pub(super) fn depart(&mut self, next_id: impl FnOnce() -> CommitId) -> InFlight {
        let commit = self.in_flight.get_or_insert_with(|| {
            self.riders.append(&mut self.waiters);
            InFlight {
                id: next_id(),
                changes: Arc::new(std::mem::take(&mut self.changes).into_iter().collect()),
            }
        });
        commit.clone()
    }

    /// A turn has ended well: tells those whose changes are written.
    pub(super) fn tell_written(&mut self) {
        if self.in_flight.is_none() {
            tell(&mut self.riders, &Ok(()));
        }
        if !self.is_dirty() {
            tell(&mut self.waiters, &Ok(()));
        }
    }

    /// A turn has failed: tells everybody.
    pub(super) fn tell_failed(&mut self, failure: L2Error) {
        let failure = Err(failure);
        tell(&mut self.riders, &failure);
        tell(&mut self.waiters, &failure);
    }
}

fn tell(waiters: &mut Vec<Waiter>, outcome: &Result<(), L2Error>) {
    for waiter in waiters.drain(..) {
        // A waiter that has gone needs no answer.
        let _ = waiter.send(outcome.clone());
    }
}
