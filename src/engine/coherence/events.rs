//! Handles the events of the change feed.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use crate::engine::coherence::gaps::Gaps;
use crate::engine::core::Engine;
use crate::engine::limits::RECHECK;
use crate::engine::partition::hints::Hint;
use crate::engine::partition::state::State;
use crate::engine::trust::{Era, FeedState, TRUST};
use crate::key::PartitionKey;
use crate::mutation::{self, Mutation};
use crate::store::{Feed, FeedEvent};

/// Changes that this process has written are compared this much later, together, in one question. Until then memory is served:
/// the store may have merged the announcement with that of another instance.
const OWN: Duration = Duration::from_millis(5);

/// How many times that comparison waits for a write that is still under way.
const PATIENCE: u32 = 100;

impl Engine {
    /// How long a change of another instance can go unnoticed now; `None` is without bound.
    pub(crate) fn staleness_bound(&self) -> Option<Duration> {
        let now = self.now().moment;
        match self.rules.trust.feed_state(now) {
            FeedState::None => self.rules.l1.max_staleness,
            FeedState::Alive => Some(self.rules.trust.unproven_for(now)),
            FeedState::Lost => Some(RECHECK).filter(|_| self.l2.shards.answer()),
        }
    }

    /// Whether the feed is proven alive; `None` where the store has none.
    pub(crate) fn is_feed_alive(&self) -> Option<bool> {
        match self.rules.trust.feed_state(self.now().moment) {
            FeedState::None => None,
            hearing => Some(hearing == FeedState::Alive),
        }
    }

    /// Handles the feed's events until the engine ends.
    pub(crate) fn spawn_feed(self: &Arc<Self>, mut feed: Feed) {
        let engine = Arc::downgrade(self);
        let listener = self.runtime.spawn(async move {
            let mut gaps = Gaps::default();
            while let Some(event) = feed.next().await {
                let Some(engine) = engine.upgrade() else {
                    return;
                };
                engine.handle_event(event, &mut gaps);
            }
        });
        *self.coherence.listener.lock() = Some(listener.abort_handle());
    }

    fn handle_event(self: &Arc<Self>, event: FeedEvent, gaps: &mut Gaps) {
        let trust = &self.rules.trust;
        let now = self.now().moment;
        match event {
            FeedEvent::Changed(digests) => self.take_invalidations(&digests),
            FeedEvent::Everything if gaps.add(now) => trust.lapse(now),
            FeedEvent::Everything => self.invalidate_everything(),
            FeedEvent::CompleteUntil(_) if gaps.are_many() && gaps.go_on(now) => {}
            FeedEvent::CompleteUntil(proven) => {
                if !gaps.go_on(now) && gaps.end() {
                    self.invalidate_everything();
                }
                let age = Instant::now().into_std().saturating_duration_since(proven);
                trust.believe_until(now.saturating_sub(age).saturating_add(TRUST));
            }
            FeedEvent::Lost => trust.lapse(now),
        }
    }

    fn invalidate_everything(self: &Arc<Self>) {
        self.rules.trust.begin_era();
        self.rules.users.hear_all();
        // The gap may have been an outage of L2, which may be over.
        self.l2.shards.probe_soon();
        self.ask_for_number();
    }

    /// The partitions of these digests may have changed.
    fn take_invalidations(self: &Arc<Self>, digests: &[[u8; 32]]) {
        self.counters.feed_told.add(digests.len() as u64);
        let now = self.now();
        let mut own = Vec::new();
        for digest in digests {
            self.rules.users.hear(digest);
            if self.is_namespace_epoch(digest) {
                self.rules.trust.hear_number();
                self.ask_for_number();
            }
            let Some(partition) = self.coherence.index.find(digest) else {
                continue;
            };
            self.counters.feed_hints.add(1);
            let key = &partition.key;
            // A foreign one invalidates.
            let hint = self.partitions.with_known(key, |state| state.hint(now));
            if hint == Some(Hint::Own) && !mutation::is(Mutation::OwnChangeNotCompared) {
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

    /// Compares a partition that this process has written with L2: another instance may have written it right
    /// after.
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
            // Unknown, so the partition is compared before it is used, if L2 can be asked by then.
            self.partitions
                .with_known(key, |state| state.era = Era::NONE);
        }
    }
}
