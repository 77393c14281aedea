//! Keeping memory in step with other instances: what they announce, and what to do when they
//! cannot be heard. The contract is in [`crate::backplane`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::Engine;
use super::in_use::{InUse, Use};
use super::index::Index;
use super::partition::{Partition, RECHECK, State};
use crate::backplane::{Event, Events, Invalidation, Publisher};
use crate::key::PartitionKey;
use crate::sabotage::{self, Sabotage};
use crate::store::{PartitionId, Revision};

/// The epoch of a partition that another instance has changed: none that there will ever be.
pub(super) const STALE: u32 = u32::MAX;

/// What the backplane says now. Grows by one whenever it is lost and whenever it is back: what
/// memory was told in another epoch has to be compared with L2 before it is used.
#[derive(Clone, Debug, Default)]
pub(super) struct Epoch(Option<Arc<AtomicU32>>);

/// Whether changes of other instances are heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channel {
    /// There is no backplane.
    None,
    /// For certain.
    Alive,
    /// Perhaps not.
    Lost,
}

impl Epoch {
    /// With a backplane, which is lost until it says otherwise.
    pub(super) fn lost() -> Self {
        Self(Some(Arc::new(AtomicU32::new(1))))
    }

    pub(super) fn now(&self) -> u32 {
        let epoch = self.0.as_ref();
        epoch.map_or(0, |epoch| epoch.load(Ordering::Acquire))
    }

    pub(super) fn channel(&self) -> Channel {
        match &self.0 {
            None => Channel::None,
            Some(_) if self.now().is_multiple_of(2) => Channel::Alive,
            Some(_) => Channel::Lost,
        }
    }

    /// Whether `epoch` was one in which the channel was alive, and at most one gap has been since.
    pub(super) fn was_alive_in(&self, epoch: u32) -> bool {
        let since = self.now().wrapping_sub(epoch);
        self.0.is_some() && epoch.is_multiple_of(2) && since <= 2
    }

    /// Enters an epoch in which the channel is alive, or one in which it is lost.
    fn begin(&self, alive: bool) {
        self.advance(|now| match (now.is_multiple_of(2), alive) {
            (true, false) | (false, true) => 1,
            // Lost and back again, or the other way round.
            _ => 2,
        });
    }

    /// Enters another epoch of the same kind: something may have been missed in between.
    pub(super) fn skip(&self) {
        self.advance(|_| 2);
    }

    fn advance(&self, by: impl Fn(u32) -> u32) {
        let Some(epoch) = &self.0 else { return };
        // Wraps long before it is the epoch of what is stale.
        let next = |now| Some((now + by(now)) % (1 << 31));
        let _ = epoch.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
    }
}

/// The engine's end of the backplane.
pub(super) struct Coherence {
    publisher: Option<Publisher>,
    /// The partitions in memory by their digests.
    index: Arc<Index>,
    /// Flights that wait for another instance to bring a token.
    waiting: InUse<Notify>,
}

impl Coherence {
    pub(super) fn new(publisher: Option<Publisher>) -> Self {
        Self {
            publisher,
            index: Index::new(),
            waiting: InUse::default(),
        }
    }

    /// A partition is about to be read into memory: what is announced of it concerns us.
    pub(super) fn listen(&self, id: &PartitionId, partition: &Arc<Partition>, state: &mut State) {
        if self.publisher.is_some() {
            self.index.list(id.digest(), partition, state);
        }
    }

    /// Tells other instances what was committed here.
    pub(super) fn announce(&self, revisions: impl IntoIterator<Item = (PartitionId, Revision)>) {
        let Some(publisher) = &self.publisher else {
            return;
        };
        publisher.publish(revisions.into_iter().map(|(id, revision)| Invalidation {
            partition: *id.digest(),
            generation: revision.generation,
            version: revision.version,
            commit: revision.commit,
        }));
    }

    /// Tells other instances that everybody was signed out.
    pub(super) fn announce_everything(&self, generation: u64) {
        if let Some(publisher) = &self.publisher {
            publisher.publish_everything_changed(generation);
        }
    }

    /// Notified when another instance has changed this partition.
    pub(super) fn changes(&self, key: &PartitionKey) -> Use<Notify> {
        self.waiting.enter(key)
    }

    /// Whether the channel is provably alive; `None` without a backplane.
    pub(super) fn is_alive(&self) -> Option<bool> {
        self.publisher.as_ref().map(Publisher::is_alive)
    }

    /// Leaves the channel, after everything has been announced.
    pub(super) async fn close(&self) {
        if let Some(publisher) = &self.publisher {
            publisher.close().await;
        }
    }
}

impl fmt::Debug for Coherence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coherence").finish_non_exhaustive()
    }
}

impl Engine {
    /// How long a change of another instance can go unnoticed now; `None` is without bound.
    pub(crate) fn staleness_bound(&self) -> Option<Duration> {
        match self.rules.epoch.channel() {
            Channel::None => self.rules.max_staleness,
            Channel::Alive => self
                .coherence
                .publisher
                .as_ref()
                .map(Publisher::unheard_for),
            Channel::Lost => Some(RECHECK),
        }
    }

    /// Does what the backplane says until it or the engine ends.
    pub(super) fn follow(self: &Arc<Self>, mut events: Events) {
        let engine = Arc::downgrade(self);
        self.runtime.spawn(async move {
            while let Some(event) = events.next_until_left().await {
                let Some(engine) = engine.upgrade() else {
                    return;
                };
                engine.obey(event);
            }
        });
    }

    fn obey(self: &Arc<Self>, event: Event) {
        if sabotage::is(Sabotage::GapIgnored)
            && self.rules.epoch.channel() == Channel::Alive
            && !matches!(event, Event::Invalidated(_))
        {
            return;
        }
        match event {
            Event::Invalidated(batch) => {
                for invalidation in batch {
                    self.invalidate(&invalidation);
                }
            }
            Event::Lost { .. } => self.rules.epoch.begin(false),
            Event::Alive { .. } => {
                self.rules.epoch.begin(true);
                // Mostly the same servers: L2 may be back, too.
                self.l2.shards.hasten();
                let engine = self.clone();
                self.runtime.spawn(async move {
                    // It may have been raised during the gap. Whoever cannot ask now cannot read.
                    let _ = engine.look_up_prefix().await;
                });
            }
            Event::EverythingChanged { generation } => self.hear_of_number(generation),
        }
    }

    fn invalidate(&self, invalidation: &Invalidation) {
        self.rules.users.hear(&invalidation.partition);
        let Some(partition) = self.coherence.index.find(&invalidation.partition) else {
            return;
        };
        let key = &partition.key;
        let revision = Revision {
            generation: invalidation.generation,
            version: invalidation.version,
            commit: invalidation.commit,
        };
        let now = self.now();
        let dropped = self
            .partitions
            .with_known(key, |state| state.invalidated(revision, now));
        self.counters
            .signed_out_changes
            .add(dropped.unwrap_or(0) as u64);
        if let Some(waiting) = self.coherence.waiting.get(key) {
            waiting.notify_waiters();
        }
    }
}
