//! Signing out all users at once, by the namespace's number.
//!
//! The number is part of every partition's name in L2. A raise makes all former partitions unreachable, and
//! they expire. The number is an [epoch](crate::store) that has no end and always exists. Where L2 has none,
//! because it is new, has lost data or has evicted it, an instance that knows a number writes that back, and
//! an instance that knows none begins with the time, a number under which there are no records. So a lost
//! number may sign out all users, and never brings a session back.
//!
//! Work in progress carries the number under which it began, and has no effect under another.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::core::Engine;
use crate::engine::error::L2Error;
use crate::engine::namespace::{Lookup, Number};
use crate::engine::runtime::step::step;
use crate::engine::sync::once;
use crate::engine::trust::FeedState;
use crate::error::StoreErrorKind;
use crate::store::{Names, PartitionId, Raise, Revision};
use crate::time::Moment;

/// How often the number is looked up where the store has no feed.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The same while the feed may have missed a raise, and while it cannot have.
const LOOK_EVERY_LOST: Duration = Duration::from_secs(1);
const LOOK_EVERY_ALIVE: Duration = Duration::from_secs(60);

impl Engine {
    /// Whether L2 has lost everything, and not this partition alone, since there had been `losses` losses. On
    /// return its marker exists again.
    pub(crate) async fn l2_has_lost_everything(&self, losses: u32) -> Result<bool, L2Error> {
        self.look_up_number().await?;
        Ok(self.rules.losses.count() != losses)
    }

    /// The namespace's number. L2 is asked if it is not known, once for all that need it: after a start that is every
    /// request.
    pub(crate) async fn number(self: &Arc<Self>) -> Result<Number, L2Error> {
        if let Some(number) = self.l2.number.settled() {
            return Ok(number);
        }
        let answer = self.join_lookup();
        answer
            .outcome()
            .await
            .unwrap_or_else(|| Err(L2Error::lost()))
    }

    /// Joins the question for the number, unless it may have changed since that was asked.
    fn join_lookup(self: &Arc<Self>) -> once::Receiver<Result<Number, L2Error>> {
        let doubts = self.l2.number.doubts();
        let mut lookup = self.l2.number.0.lookup.lock();
        if let Some(lookup) = &*lookup
            && lookup.doubts == doubts
            && !lookup.answer.is_over()
        {
            return lookup.answer.clone();
        }
        let (asks, answer) = once::channel();
        *lookup = Some(Lookup {
            doubts,
            answer: answer.clone(),
        });
        let engine = self.clone();
        self.runtime.spawn(async move {
            asks.send(engine.look_up_number().await);
        });
        answer
    }

    /// Asks L2 for the number. Where L2 has a lower one or none, the number known here is written to it.
    pub(crate) async fn look_up_number(&self) -> Result<Number, L2Error> {
        let epoch = self.namespace_epoch();
        let (hints, doubts) = (self.rules.trust.number_hints(), self.l2.number.doubts());
        let known = self.l2.number.known();
        let mine = || Number::at(self.clock.now());
        let begin = known.unwrap_or_else(|| *self.l2.number.0.mine.get_or_init(mine));
        let revision = self.marker(&epoch).await?;
        let mut number = match Number::new(revision.generation) {
            Some(stored) => {
                self.rules.losses.saw_marker(revision);
                stored
            }
            None => {
                let begun = self.raise_number(&epoch, Raise::Begin(begin.get()));
                let begun = begun.await?;
                let marker = self.marker(&epoch).await?;
                self.rules.losses.replaced_marker(marker);
                begun
            }
        };
        if known > Some(number) {
            // L2 has lost the number, and another instance has begun a lower one, under which users may have
            // been signed out since: neither goes on.
            tracing::warn!("L2 has lost the number of the namespace: everybody is signed out");
            let next = Raise::Beyond(begin.get() + 1);
            number = self.raise_number(&epoch, next).await?;
            self.learn_number(number, self.now().moment);
        } else if number == begin {
            // Not a raise: the number was known, or begins here.
            self.learn_number(number, Moment::default());
        } else {
            // One task asks; the others find the answer.
            let _asks = self.l2.number.0.asks.lock().await;
            if self.l2.number.known() < Some(number) {
                let age = self.l2.load_one(&epoch).await?.cleared_for;
                self.learn_number(number, self.now().ago(age.unwrap_or_default()));
            }
        }
        self.rules.trust.number_is_known(hints);
        self.l2.number.settle(doubts);
        Ok(number)
    }

    /// Takes over the number. A raise drops everything in memory.
    fn learn_number(&self, number: Number, raised_at: Moment) {
        let learn = || self.l2.number.learn(number, raised_at);
        if self.hold_signed_out(number, learn) {
            tracing::warn!("everybody was signed out");
            let dropped = self.partitions.forget_all();
            self.counters.signed_out_changes.add(dropped as u64);
        }
    }

    /// Whether this is the digest of the number's record.
    pub(crate) fn is_namespace_epoch(&self, digest: &[u8; 32]) -> bool {
        let digest_of_mine = || *self.namespace_epoch().digest();
        self.l2.number.0.digest.get_or_init(digest_of_mine) == digest
    }

    /// There may be a later number: L2 is asked for it before anything else is read.
    pub(crate) fn ask_for_number(self: &Arc<Self>) {
        self.l2.number.doubt();
        let engine = self.clone();
        self.runtime.spawn(async move {
            // If this fails, the next use of L2 asks again.
            let _ = engine.look_up_number().await;
        });
    }

    pub(crate) async fn revoke(&self) -> Result<(), L2Error> {
        let doubts = self.l2.number.doubts();
        let known = self.l2.number.known().map_or(0, Number::get);
        let now = Number::at(self.clock.now()).get();
        let raise = Raise::Beyond(now.max(known + 1));
        let number = self.raise_number(&self.namespace_epoch(), raise).await?;
        self.learn_number(number, self.now().moment);
        self.l2.number.settle(doubts);
        Ok(())
    }

    /// Raises the number, and returns the one in force: after `Beyond`, at least what was asked for.
    async fn raise_number(&self, epoch: &PartitionId, raise: Raise) -> Result<Number, L2Error> {
        let answer = self.l2.raise(epoch, raise, None).await?;
        let is_raised = matches!(raise, Raise::Begin(_)) || answer >= raise.number();
        let number = Number::new(answer).filter(|_| is_raised);
        number.ok_or_else(|| L2Error::of(StoreErrorKind::Refused))
    }

    /// The revision of the number's record in L2.
    async fn marker(&self, epoch: &PartitionId) -> Result<Revision, L2Error> {
        let answers = self.l2.revisions(std::slice::from_ref(epoch)).await?;
        let revision = answers.into_iter().next().ok_or_else(L2Error::lost)??;
        Ok(revision)
    }

    /// The record of the namespace's number.
    pub(crate) fn namespace_epoch(&self) -> PartitionId {
        Names::namespace_epoch(&self.l2.codec.namespace)
    }

    /// Looks for a new number at intervals.
    pub(crate) fn watch_number(self: &Arc<Self>) {
        let weak = Arc::downgrade(self);
        self.runtime.spawn(async move {
            let mut looked = Instant::now();
            loop {
                // The feed can be lost at any time, and no event may say so.
                tokio::time::sleep(LOOK_EVERY_LOST).await;
                let Some(engine) = weak.upgrade() else { return };
                if looked.elapsed() < engine.look_every() {
                    continue;
                }
                looked = Instant::now();
                if engine.l2.number.known().is_some() && !engine.queue.is_closed() {
                    // A failure is ignored: nothing can raise the number while L2 is away.
                    let _ = step("number", engine.look_up_number()).await;
                }
            }
        });
    }

    fn look_every(&self) -> Duration {
        match self.rules.trust.feed_state(self.now().moment) {
            FeedState::None => LOOK_EVERY,
            FeedState::Lost => LOOK_EVERY_LOST,
            FeedState::Alive if self.l2.number.settled().is_none() => LOOK_EVERY_LOST,
            FeedState::Alive => LOOK_EVERY_ALIVE,
        }
    }
}
