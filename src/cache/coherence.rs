//! Keeping memory in step with L2: what its change feed tells, and for how long that is believed. The
//! contract is in [`crate::store::FeedEvent`].
//!
//! What is told is a hint: it makes the engine compare by version, and nothing is taken over from it. A hit
//! believes memory until a deadline that only a proof moves. So a runtime that is blocked or dropped, a
//! process that is frozen, and a panic in the task below end the trust by themselves.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::Engine;
use super::in_use::{InUse, Use};
use super::index::Index;
use super::partition::{Hint, Partition, RECHECK, State};
use crate::key::PartitionKey;
use crate::sabotage::{self, Sabotage};
use crate::store::{Feed, FeedEvent, PartitionId};
use crate::time::{Moment, Now};

/// How long a proof of the feed is good. A feed that is alive gives one every half second.
pub(super) const TRUST: Duration = Duration::from_secs(3);

/// What this process has written itself is compared so much later: with others', in one question.
const OWN: Duration = Duration::from_millis(5);
/// How often that waits for a write that is still under way.
const PATIENCE: u32 = 100;

/// The epoch before a feed begins.
const UNTOLD: u32 = 0;

/// No epoch that there will ever be.
pub(super) const STALE: u32 = u32::MAX;

/// What the feed vouches for. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Vouch(Option<Arc<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// Grows whenever anything may have changed: what memory has from another epoch has to be compared with
    /// L2 before it is used. 0 until the feed begins.
    epoch: AtomicU32,
    /// The moment until which everything that was told is all there is.
    until: AtomicU64,
    /// How often the namespace's number may have changed, and how many of these L2 was asked since.
    number_hints: AtomicU32,
    number_answered: AtomicU32,
}

/// Whether changes of other instances are heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hearing {
    /// The store has no feed.
    None,
    /// For certain.
    Alive,
    /// Perhaps not.
    Lost,
}

impl Vouch {
    /// Of a store with a feed, which has not begun.
    pub(super) fn silent() -> Self {
        Self(Some(Arc::default()))
    }

    /// Whether the store has no feed.
    pub(super) fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// The epoch in which a read begins.
    pub(super) fn epoch(&self) -> u32 {
        let known = self.0.as_ref();
        known.map_or(UNTOLD, |known| known.epoch.load(Ordering::Acquire))
    }

    /// The epoch that memory has to be of to be believed now; [`STALE`] where nothing is.
    pub(super) fn at(&self, now: Moment) -> u32 {
        match &self.0 {
            Some(known) if !known.is_alive(now) || known.doubts_number() => STALE,
            Some(known) => known.epoch.load(Ordering::Acquire),
            None => UNTOLD,
        }
    }

    pub(super) fn hearing(&self, now: Moment) -> Hearing {
        match &self.0 {
            None => Hearing::None,
            Some(known) if known.is_alive(now) => Hearing::Alive,
            Some(_) => Hearing::Lost,
        }
    }

    /// Until when what was told is all there is.
    pub(super) fn until(&self) -> Moment {
        let known = self.0.as_ref();
        known.map_or(Moment::default(), |known| known.until())
    }

    /// Whether the namespace's number may have changed, so that everybody may have been signed out.
    pub(super) fn doubts_number(&self) -> bool {
        self.0.as_ref().is_some_and(|known| known.doubts_number())
    }

    /// To be taken before L2 is asked for the number.
    pub(super) fn number_hints(&self) -> u32 {
        let known = self.0.as_ref();
        known.map_or(0, |known| known.number_hints.load(Ordering::Acquire))
    }

    /// L2 was asked for the number after so many hints.
    pub(super) fn number_is_known(&self, hints: u32) {
        if let Some(known) = &self.0 {
            known.number_answered.fetch_max(hints, Ordering::AcqRel);
        }
    }

    fn hear_number(&self) {
        if let Some(known) = &self.0 {
            known.number_hints.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Whether `epoch` was one of the feed, and anything may have changed since once at most.
    pub(super) fn was_told_in(&self, epoch: u32) -> bool {
        self.0.is_some() && epoch != UNTOLD && self.epoch().wrapping_sub(epoch) <= 1
    }

    /// Anything may have changed.
    pub(super) fn begin_epoch(&self) {
        let Some(known) = &self.0 else { return };
        // Wraps long before it is the epoch of what is stale.
        let next = |epoch: u32| Some((epoch % (1 << 31)) + 1);
        let _ = known
            .epoch
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
    }

    fn believe_until(&self, moment: Moment) {
        if let Some(known) = &self.0 {
            known.until.store(moment.as_millis(), Ordering::Release);
        }
    }

    /// Nothing more is vouched for.
    fn lapse(&self, now: Moment) {
        if let Some(known) = &self.0 {
            known.until.fetch_min(now.as_millis(), Ordering::AcqRel);
        }
    }

    /// How old the last proof is.
    fn unproven_for(&self, now: Moment) -> Duration {
        TRUST.saturating_sub(self.until().since(now))
    }
}

impl Known {
    fn until(&self) -> Moment {
        Moment::from_millis(self.until.load(Ordering::Acquire))
    }

    fn doubts_number(&self) -> bool {
        let hints = self.number_hints.load(Ordering::Acquire);
        hints != self.number_answered.load(Ordering::Acquire)
    }

    fn is_alive(&self, now: Moment) -> bool {
        now < self.until() || sabotage::is(Sabotage::FeedBelievedForEver)
    }
}

/// The engine's end of the feed.
pub(super) struct Coherence {
    has_feed: bool,
    /// The partitions in memory by their digests.
    index: Arc<Index>,
    /// Flights that wait for another instance to bring a token.
    waiting: InUse<Notify>,
    /// What listens.
    listener: Mutex<Option<AbortHandle>>,
}

impl Coherence {
    pub(super) fn new(has_feed: bool) -> Self {
        Self {
            has_feed,
            index: Index::new(),
            waiting: InUse::default(),
            listener: Mutex::default(),
        }
    }

    /// A partition is about to be read into memory: what is told of it concerns us.
    pub(super) fn listen(&self, id: &PartitionId, partition: &Arc<Partition>, state: &mut State) {
        if self.has_feed {
            self.index.list(id.digest(), partition, state);
        }
    }

    /// Notified when this partition may have been changed.
    pub(super) fn changes(&self, key: &PartitionKey) -> Use<Notify> {
        self.waiting.enter(key)
    }

    /// Listens no more.
    pub(super) fn close(&self) {
        if let Some(listener) = self.listener.lock().take() {
            listener.abort();
        }
    }
}

impl Drop for Coherence {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Coherence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coherence").finish_non_exhaustive()
    }
}

/// The times when anything may have changed. Where they follow each other, as by somebody who empties another
/// database of the server again and again, a feed is no help: memory is compared at intervals, as without one.
#[derive(Default)]
struct Gaps {
    last: Option<Moment>,
    /// How many came without a pause.
    row: u32,
}

/// As many gaps without a pause are heard of one by one.
const FEW: u32 = 5;

impl Gaps {
    /// One more. Whether it is too many.
    fn add(&mut self, now: Moment) -> bool {
        self.row = match self.go_on(now) {
            true => self.row.saturating_add(1),
            false => 0,
        };
        self.last = Some(now);
        self.are_many()
    }

    fn are_many(&self) -> bool {
        self.row > FEW
    }

    /// Whether the last was just now.
    fn go_on(&self, now: Moment) -> bool {
        self.last
            .is_some_and(|last| now < last.saturating_add(RECHECK))
    }

    /// There are no more. Whether some were passed over.
    fn end(&mut self) -> bool {
        let were_many = self.are_many();
        self.row = 0;
        were_many
    }
}

impl Engine {
    /// How long a change of another instance can go unnoticed now; `None` is without bound.
    pub(crate) fn staleness_bound(&self) -> Option<Duration> {
        let now = self.now().moment;
        match self.rules.vouch.hearing(now) {
            Hearing::None => self.rules.max_staleness,
            Hearing::Alive => Some(self.rules.vouch.unproven_for(now)),
            Hearing::Lost => Some(RECHECK).filter(|_| self.l2.shards.answer()),
        }
    }

    /// Whether the feed is provably alive; `None` where the store has none.
    pub(super) fn is_feed_alive(&self) -> Option<bool> {
        match self.rules.vouch.hearing(self.now().moment) {
            Hearing::None => None,
            hearing => Some(hearing == Hearing::Alive),
        }
    }

    /// Does what the feed says until the engine ends.
    pub(super) fn follow(self: &Arc<Self>, mut feed: Feed) {
        let engine = Arc::downgrade(self);
        let listener = self.runtime.spawn(async move {
            let mut gaps = Gaps::default();
            while let Some(event) = feed.next().await {
                let Some(engine) = engine.upgrade() else {
                    return;
                };
                engine.obey(event, &mut gaps);
            }
        });
        *self.coherence.listener.lock() = Some(listener.abort_handle());
    }

    fn obey(self: &Arc<Self>, event: FeedEvent, gaps: &mut Gaps) {
        let vouch = &self.rules.vouch;
        let now = self.now().moment;
        match event {
            FeedEvent::Changed(digests) => self.take_hints(&digests),
            FeedEvent::Everything if gaps.add(now) => vouch.lapse(now),
            FeedEvent::Everything => self.hear_everything(),
            FeedEvent::CompleteUntil(_) if gaps.are_many() && gaps.go_on(now) => {}
            FeedEvent::CompleteUntil(proven) => {
                if !gaps.go_on(now) && gaps.end() {
                    self.hear_everything();
                }
                let age = Instant::now().into_std().saturating_duration_since(proven);
                vouch.believe_until(now.saturating_sub(age).saturating_add(TRUST));
            }
            FeedEvent::Lost => vouch.lapse(now),
        }
    }

    fn hear_everything(self: &Arc<Self>) {
        self.rules.vouch.begin_epoch();
        self.rules.users.hear_all();
        // L2 may be back.
        self.l2.shards.hasten();
        self.ask_for_number();
    }

    /// These may have changed.
    fn take_hints(self: &Arc<Self>, digests: &[[u8; 32]]) {
        self.counters.feed_told.add(digests.len() as u64);
        let now = self.now();
        let mut own = Vec::new();
        for digest in digests {
            self.rules.users.hear(digest);
            if self.is_namespace_epoch(digest) {
                self.rules.vouch.hear_number();
                self.ask_for_number();
            }
            let Some(partition) = self.coherence.index.find(digest) else {
                continue;
            };
            self.counters.feed_hints.add(1);
            let key = &partition.key;
            let hint = self.partitions.with_known(key, |state| state.hint(now));
            if hint == Some(Hint::Own) && !sabotage::is(Sabotage::OwnChangeNotCompared) {
                own.push(key.clone());
            }
            if let Some(waiting) = self.coherence.waiting.get(key) {
                waiting.notify_waiters();
            }
        }
        if !own.is_empty() {
            let engine = Arc::downgrade(self);
            self.runtime.spawn(async move {
                sleep(OWN).await;
                if let Some(engine) = engine.upgrade() {
                    join_all(own.iter().map(|key| engine.compare_own(key))).await;
                }
            });
        }
    }

    /// Compares what this process has written with what L2 has: somebody else may have written right after.
    async fn compare_own(self: &Arc<Self>, key: &PartitionKey) {
        self.counters.feed_compares.add(1);
        for _ in 0..PATIENCE {
            let writes = self.partitions.with_known(key, |state| state.is_writing());
            match writes {
                Some(true) => sleep(OWN).await,
                Some(false) => break,
                None => return,
            }
        }
        self.partitions.with_known(key, State::forget_own_hint);
        let is_known = match self.confirm(key).await {
            Ok(false) => self.load(key).await.1.is_ok(),
            confirmed => confirmed.is_ok(),
        };
        if !is_known {
            // It is compared before it is used, if L2 can be asked by then.
            self.partitions
                .with_known(key, |state| state.epoch = UNTOLD);
        }
    }
}

impl State {
    /// The partition may have been changed.
    pub(super) fn hint(&mut self, now: Now) -> Hint {
        let is_recent = self.is_writing() || now.moment < self.touched_at.saturating_add(RECHECK);
        let due = std::mem::take(&mut self.own_due);
        if !is_recent || due == 0 {
            match sabotage::is(Sabotage::HintAdopted) {
                true => self.version += 1,
                false => self.doubt(),
            }
            return Hint::Foreign;
        }
        self.own_due = due - 1;
        match std::mem::replace(&mut self.own_hint, true) {
            true => Hint::Known,
            false => Hint::Own,
        }
    }

    fn forget_own_hint(&mut self) {
        self.own_hint = false;
    }

    /// This process sends what changes it, which is told once. Where it is sent again it may be told once
    /// less than that.
    pub(super) fn expect_own_hint(&mut self) {
        self.own_due = self.own_due.saturating_add(1);
    }
}
