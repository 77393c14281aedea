//! One partition in memory: what is known of it, and what it has under way.
//!
//! A `State` is guarded by its partition's lock and never held across an await. It is the only
//! place that decides what a read may answer, and (in `admission`) what may enter memory.

pub(crate) mod entries;
pub(crate) mod failure_record;
pub(crate) mod hints;
pub(crate) mod life;
pub(crate) mod links;
pub(crate) mod merge;
pub(crate) mod observed;
pub(crate) mod pending;
pub(crate) mod refresh;

use std::sync::Arc;
#[cfg(feature = "seal")]
use std::sync::atomic::AtomicBool;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use crate::codec::Value;
use crate::engine::budget::Permit;
use crate::engine::l1::digests::{FOOTPRINT, Listed};
use crate::engine::namespace::{Number, Prefix};
use crate::engine::partition::entries::ByName;
use crate::engine::partition::failure_record::Rebuff;
use crate::engine::partition::life::{Life, Losses};
use crate::engine::partition::links::{Links, Users};
use crate::engine::partition::pending::{Pending, PendingChange};
use crate::engine::vouch::{Hearing, STALE, Vouch};
use crate::error::Error;
use crate::key::{PartitionKey, TokenKey};
use crate::lookup::Lookup;
use crate::sabotage::{self, Sabotage};
use crate::store::{CommitId, EntryId, Names};
use crate::time::{Moment, Now, Timestamp};

/// The clock of an instance may be set by this much where a change made while L2 could not be asked
/// is compared with the time of a sign-out. In doubt the sign-out wins.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// How often a partition is compared with L2 while its feed is lost.
pub(crate) const RECHECK: Duration = Duration::from_secs(1);

/// Memory of a partition besides itself and what its entries own: its share of L1's index and of
/// the allocator. Measured; see `benches/peers/benches/memory.rs`.
const INDEX_FOOTPRINT: usize = 480;

/// The most that a partition takes, in bytes, and what each entry counts for besides its own: 2,000 tokens
/// of 4 KB. It is read as a whole, within the time that L2 has for an answer.
const MAX_PARTITION: usize = 8 << 20;
const EACH: usize = 256;

/// How long what has expired stays at least: an acquisition is told what it replaces.
const EXPIRED_KEPT: Duration = Duration::from_secs(60);

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
    /// When L1 last heard that it was used; see `Bound`.
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
    pub(crate) fn new(key: PartitionKey, prefix: &Prefix) -> Arc<Self> {
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
    settled_until: Moment,
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
    bytes: usize,
    /// When some of them have expired for long enough; `None` if none ever will.
    prune_at: Option<Timestamp>,
    /// Whether `entries` is all that L2 had at `version`.
    pub(crate) complete: bool,
    /// How often the feed has told of a change, and how many of these were when L2 was last asked. Where
    /// they differ, it is asked once more.
    pub(crate) doubts: u32,
    pub(crate) dispelled: u32,
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
    pub(crate) rebuff: Option<Box<Rebuff>>,
    /// Its place in the index of digests, where there is one.
    pub(crate) listed: Option<Listed<Partition>>,
    /// When everybody was signed out last, as far as was known when this began.
    pub(crate) began: Timestamp,
    /// Entries have changed that are links.
    relinked: bool,
}

pub(crate) struct Entry {
    pub(crate) value: Value,
    /// [`Timestamp::MAX`] when it has no expiry of its own.
    expires_at: Timestamp,
    /// Lives in memory only; L2 has not heard of it.
    pub(crate) local: bool,
}

impl Entry {
    fn new(value: Value, local: bool) -> Self {
        Self {
            expires_at: value.expires_at().unwrap_or(Timestamp::MAX),
            value,
            local,
        }
    }

    pub(crate) fn is_usable(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }
}

/// Entries that L2 has and that cannot be opened. They are known by the names of L2 only.
#[derive(Default)]
pub(crate) struct Unopened(Option<Box<(Names, Vec<EntryId>)>>);

impl Unopened {
    pub(crate) fn new(entries: Vec<EntryId>, names: impl FnOnce() -> Names) -> Self {
        Self((!entries.is_empty()).then(|| Box::new((names(), entries))))
    }

    pub(crate) fn holds(&self, name: &str) -> bool {
        let holds = |(names, entries): &(Names, Vec<EntryId>)| entries.contains(&names.entry(name));
        self.0.as_deref().is_some_and(holds)
    }
}

/// What memory can say of an entry.
pub(crate) enum Answer {
    /// This, for certain enough.
    Known(Lookup<Value>),
    /// This value, unless L2 can be asked.
    Stale(Value),
    /// Nothing, unless L2 can be asked.
    Unknown,
}

/// How the settings of the cache bear on a partition.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) negative_ttl: Duration,
    pub(crate) expiration_ratio: f64,
    pub(crate) revalidate_every: Option<Duration>,
    pub(crate) max_staleness: Option<Duration>,
    pub(crate) sliding: Option<Duration>,
    pub(crate) vouch: Vouch,
    pub(crate) losses: Losses,
    pub(crate) users: Users,
}

/// What becomes of a change that the feed tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hint {
    /// L2 is asked before memory is used.
    Foreign,
    /// It may be no other than what this process has written: that is compared in the background.
    Own,
    /// The same, and somebody is at it.
    Known,
}

/// Upkeep that a read found due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) touch: bool,
    pub(crate) revalidate: bool,
}

impl State {
    /// The value of an entry that needs no second look: the path of a hit.
    pub(crate) fn settled(&self, name: &str, now: Now, epoch: u32) -> Option<&Value> {
        if now.moment >= self.settled_until || epoch != self.epoch || self.links.are_doubtful() {
            return None;
        }
        let entry = self.entries.get(name)?;
        entry.is_usable(now.wall).then_some(&entry.value)
    }

    /// The value of an entry that can be served if L2 cannot be asked, and nothing else is due.
    pub(crate) fn unsettled(&self, name: &str, now: Now, rules: &Rules) -> Option<&Value> {
        let touch_is_due = self.touch_at(rules).is_some_and(|at| at <= now.moment);
        if self.ended(now) || touch_is_due || self.links.are_over() || self.was_told_of(rules) {
            return None;
        }
        let entry = self.entries.get(name)?;
        entry.is_usable(now.wall).then_some(&entry.value)
    }

    pub(crate) fn cleared_since(&self, time: Timestamp) -> bool {
        let cleared = self.cleared_at.map(|at| at.saturating_add(CLOCK_SKEW));
        cleared.is_some_and(|at| at >= time)
    }

    /// What memory says of the entry `name`.
    pub(crate) fn answer(&self, name: &str, now: Now, rules: &Rules) -> Answer {
        let waits = self.waits(name);
        if let Some(entry) = self
            .entries
            .get(name)
            .filter(|entry| entry.is_usable(now.wall))
        {
            let current = self.complete && self.fresh(now) && self.is_coherent(now, rules);
            if waits || entry.local || (current && !self.ended(now)) {
                return Answer::Known(Lookup::Hit(entry.value.clone()));
            }
            // The store has told of a change, and it may be a sign-out.
            if !self.ended(now) && !self.was_told_of(rules) {
                return Answer::Stale(entry.value.clone());
            }
        }
        if waits {
            return Answer::Known(Lookup::Absent);
        }
        if !self.absences_are_known(now, rules) {
            return Answer::Unknown;
        }
        Answer::Known(match self.unopenable.holds(name) {
            true => Lookup::Unopenable,
            false => Lookup::Absent,
        })
    }

    /// What memory says of the entry `name` right after it was read from L2.
    pub(crate) fn answer_as_read(&self, name: &str, now: Now) -> Lookup<Value> {
        let usable = |entry: &&Entry| {
            let lives = entry.local || self.waits(name) || !self.ended(now);
            lives && entry.is_usable(now.wall)
        };
        match self.entries.get(name).filter(usable) {
            Some(entry) => Lookup::Hit(entry.value.clone()),
            None if !self.waits(name) && self.unopenable.holds(name) => Lookup::Unopenable,
            None => Lookup::Absent,
        }
    }

    /// Whether memory may say that there is no other entry.
    pub(crate) fn absences_are_known(&self, now: Now, rules: &Rules) -> bool {
        let until = self.checked_at.saturating_add(rules.negative_ttl);
        let known = self.complete && self.is_coherent(now, rules) && now.moment < until;
        self.is_clearing() || known
    }

    /// Whether memory can be trusted to have what L2 has, within the bound on staleness.
    pub(crate) fn is_coherent(&self, now: Now, rules: &Rules) -> bool {
        let bound = match rules.vouch.hearing(now.moment) {
            Hearing::None => self.stale_at(rules),
            Hearing::Alive => None,
            // What was told before counts until then only.
            Hearing::Lost if self.checked_at <= rules.vouch.until() => return false,
            Hearing::Lost => Some(self.checked_at.saturating_add(RECHECK)),
        };
        let doubted = self.is_doubted() || rules.vouch.doubts_number();
        let current = self.epoch == rules.vouch.epoch() && !doubted;
        current && bound.is_none_or(|bound| now.moment < bound)
    }

    /// Whether L2 is known to have something else, and not only perhaps.
    pub(crate) fn is_contradicted(&self) -> bool {
        self.epoch == STALE || self.is_doubted()
    }

    fn is_doubted(&self) -> bool {
        self.is_hinted() || self.links.are_doubtful()
    }

    /// Whether the feed has told of a change that was not looked at since.
    pub(crate) fn is_hinted(&self) -> bool {
        self.doubts != self.dispelled
    }

    /// Whether the feed has told of a change of the partition, of its users or of the namespace's number, and
    /// L2 was not asked since. It may be a sign-out.
    fn was_told_of(&self, rules: &Rules) -> bool {
        self.is_hinted() || self.links.are_told_of() || rules.vouch.doubts_number()
    }

    /// When memory has to be compared with L2 before it is used; `None` where a feed tells.
    fn stale_at(&self, rules: &Rules) -> Option<Moment> {
        let bound = rules.max_staleness.filter(|_| rules.vouch.is_none())?;
        Some(self.checked_at.saturating_add(bound))
    }

    /// The token keys of the entries that can be used, sorted.
    pub(crate) fn keys(&self, now: Now) -> Vec<TokenKey> {
        let usable = |name: &TokenKey, entry: &Entry| {
            let lives = entry.local || !self.ended(now) || self.waits(name.as_ref());
            lives && entry.is_usable(now.wall) && !name.is_reserved()
        };
        let entries = self.entries.iter();
        let usable = entries.filter(|(name, entry)| usable(name, entry));
        let mut keys: Vec<_> = usable.map(|(name, _)| name.clone()).collect();
        keys.sort_unstable();
        keys
    }

    /// Everything that can be used.
    pub(crate) fn usable_entries(&self, now: Now) -> Vec<(TokenKey, Value)> {
        let usable =
            |(_, entry): &(&TokenKey, &Entry)| !self.ended(now) && entry.is_usable(now.wall);
        let usable = self.entries.iter().filter(usable);
        usable
            .map(|(name, entry)| (name.clone(), entry.value.clone()))
            .collect()
    }

    /// Everything that can be used and that L2 is to have.
    pub(crate) fn stored_entries(&self, now: Now) -> Vec<(TokenKey, Value)> {
        let local = |name: &TokenKey| {
            let found = self.entries.get(name.as_ref());
            found.is_some_and(|entry| entry.local)
        };
        let mut entries = self.usable_entries(now);
        entries.retain(|(name, _)| !local(name));
        entries
    }

    /// Upkeep that is due now.
    pub(crate) fn due(&self, now: Now, rules: &Rules) -> Due {
        let revalidate =
            !self.is_active() && self.revalidate_at(rules).is_some_and(|at| at <= now.moment);
        let touch = self.touch_at(rules).is_some_and(|at| at <= now.moment);
        // Use does not undo an end that has passed.
        let touch = touch && !self.ended(now);
        Due { touch, revalidate }
    }

    /// Hands a touch that was found due on to the flush, in the step that marks it as taken care of:
    /// one that was marked and not handed on would end a session that is in use. `false` where
    /// somebody has done so meanwhile.
    pub(crate) fn hand_on_touch(&mut self, now: Now, rules: &Rules) -> bool {
        let is_early = self.touch_at(rules).is_some_and(|at| now.moment < at);
        if is_early || self.ended(now) {
            return false;
        }
        self.touched_at = now.moment;
        // Users of L1 stay signed in while L2 cannot be told that they were here.
        let idle_end = rules
            .sliding
            .map(|sliding| now.moment.saturating_add(sliding));
        self.end = [self.hard_end, idle_end].into_iter().flatten().min();
        self.pending().touch = true;
        true
    }

    /// It was told of, and is as it was: another instance has touched it, most likely. Were it touched here
    /// as well, each touch would have all others compare, and bring theirs. When it ends is not known by that.
    pub(crate) fn touched_elsewhere(&mut self, moment: Moment) {
        self.touched_at = self.touched_at.max(moment);
    }

    fn revalidate_at(&self, rules: &Rules) -> Option<Moment> {
        let silent = self.complete && rules.vouch.is_none();
        let interval = rules.revalidate_every.filter(|_| silent)?;
        Some(self.checked_at.saturating_add(interval))
    }

    /// A tenth of the sliding lifetime is the most by which it can end early.
    fn touch_at(&self, rules: &Rules) -> Option<Moment> {
        let sliding = rules.sliding.filter(|_| self.version > 0)?;
        Some(self.touched_at.saturating_add(sliding / 10))
    }

    /// Works out anew until when a hit needs no second look. Called after every change.
    pub(crate) fn settle(&mut self, rules: &Rules) {
        if !self.is_active() {
            self.pending = None;
        }
        if std::mem::take(&mut self.relinked) {
            self.links = Links::of(&self.entries, &rules.users);
        }
        let dirty = self
            .pending
            .as_ref()
            .is_some_and(|pending| pending.is_dirty());
        let limits = [
            self.fresh_until,
            self.end,
            self.stale_at(rules),
            self.revalidate_at(rules),
            self.touch_at(rules),
        ];
        self.settled_until = match self.complete && !dirty && !self.is_doubted() {
            true => limits.into_iter().flatten().min().unwrap_or(Moment::MAX),
            false => Moment::default(),
        };
    }

    /// Begins anew when the number of the namespace has changed: all of this is of the past. Returns
    /// how many changes are dropped.
    pub(crate) fn follow_prefix(&mut self, known: &Prefix) -> usize {
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

    /// Lays changes over the entries and, where room for them was reserved, queues them for L2.
    pub(crate) fn change(
        &mut self,
        changes: impl IntoIterator<Item = (TokenKey, Option<Value>)>,
        mut reserved: Option<Permit>,
        now: Now,
    ) {
        if self.ended(now) && !self.is_active() {
            self.forget_entries();
            // L2 may have forgotten it since, and begun to count anew.
            if self.has_outlived_generation(now) {
                self.generation = None;
            }
            self.forget_life();
        }
        self.prune(now.wall);
        for (name, value) in changes {
            self.lay(name.clone(), value.clone(), reserved.is_none());
            if let Some(reserved) = &mut reserved {
                let change = PendingChange::new(&name, value, now, reserved);
                self.pending().changes.insert(name, change);
            }
        }
    }

    /// Whether values of these sizes fit in. A partition is read as a whole: one that is too large for that would
    /// be read in vain, again and again.
    pub(crate) fn has_room_for<'a>(
        &mut self,
        values: impl IntoIterator<Item = (&'a TokenKey, usize)>,
        now: Now,
    ) -> Result<(), Error> {
        if self.ended(now) {
            // A change begins anew.
            return Ok(());
        }
        self.prune(now.wall);
        let mut size = self.bytes + self.entries.len() * EACH;
        let mut grows = false;
        for (name, bytes) in values {
            let known = self.entries.get(name.as_ref());
            let known = known.map(|entry| entry.value.footprint());
            grows |= known.is_none_or(|known| known < bytes);
            size += bytes + known.map_or(name.footprint() + EACH, |_| 0);
            size -= known.unwrap_or(0);
        }
        match grows && size > MAX_PARTITION {
            true => Err(Error::TooLarge {
                size,
                limit: MAX_PARTITION,
            }),
            false => Ok(()),
        }
    }

    pub(crate) fn lay(&mut self, name: TokenKey, value: Option<Value>, local: bool) {
        let own = name.footprint();
        self.relinked |= Links::is_link(&name);
        let replaced = match value {
            Some(value) => {
                self.bytes += own + value.footprint();
                let end = value.expires_at();
                let end = end.map(|at| at.saturating_add(EXPIRED_KEPT));
                self.prune_at = [self.prune_at, end].into_iter().flatten().min();
                self.entries.insert(name, Entry::new(value, local))
            }
            None => self.entries.remove(name.as_ref()),
        };
        self.bytes -= replaced.map_or(0, |entry| own + entry.value.footprint());
    }

    /// Forgets what L2 knows as well.
    pub(crate) fn forget_loaded_entries(&mut self) {
        self.relinked |= !self.links.is_empty();
        self.retain(|entry| entry.local);
    }

    pub(crate) fn is_to_be_pruned(&self, now: Timestamp) -> bool {
        self.prune_at.is_some_and(|at| at <= now)
    }

    /// Frees what has expired, now and then: each time all entries are looked at.
    pub(crate) fn prune(&mut self, now: Timestamp) {
        if self.is_to_be_pruned(now) {
            self.retain(|entry| entry.is_usable(now));
            let next = now.saturating_add(EXPIRED_KEPT);
            self.prune_at = self.prune_at.map(|at| at.max(next));
        }
    }

    fn retain(&mut self, keep: impl Fn(&Entry) -> bool) {
        self.entries.retain(keep);
        self.bytes = 0;
        self.prune_at = None;
        for (name, entry) in self.entries.iter() {
            self.bytes += name.footprint() + entry.value.footprint();
            let end = entry.value.expires_at();
            let end = end.map(|at| at.saturating_add(EXPIRED_KEPT));
            self.prune_at = [self.prune_at, end].into_iter().flatten().min();
        }
    }

    pub(crate) fn forget_entries(&mut self) {
        self.entries = ByName::default();
        self.links = Links::default();
        self.unopenable = Unopened::default();
        self.rebuff = None;
        self.bytes = 0;
        self.prune_at = None;
    }

    pub(crate) fn ended(&self, now: Now) -> bool {
        self.ended_by(now.moment)
    }

    pub(crate) fn ended_by(&self, moment: Moment) -> bool {
        self.end.is_some_and(|end| end <= moment)
    }

    pub(crate) fn fresh(&self, now: Now) -> bool {
        self.fresh_until.is_none_or(|until| now.moment < until)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether nothing here is of use any more.
    pub(crate) fn is_over(&self, now: Now) -> bool {
        let used = |(_, entry): (&TokenKey, &Entry)| entry.is_usable(now.wall);
        !self.is_active() && (self.ended(now) || !self.entries.iter().any(used))
    }

    /// Memory of the partition in all, in bytes.
    pub(crate) fn footprint(&self, key: &PartitionKey) -> u32 {
        // The key stands here and in L1's index.
        let listed = self.listed.as_ref().map_or(0, |_| FOOTPRINT);
        let own = INDEX_FOOTPRINT + std::mem::size_of::<Partition>() + 2 * key.footprint() + listed;
        let bytes = own + self.entries.footprint() + self.links.footprint() + self.bytes;
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}
