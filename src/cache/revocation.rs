//! Signing everybody out at once, by the namespace's number.
//!
//! The number is part of every partition's name in L2: raising it leaves all that was there behind,
//! unreachable, to expire. It is an [epoch](crate::store) without end that always exists. Where L2
//! has none, because it is new, has lost data or has evicted it, an instance that knows a number
//! writes that back, and one that knows none begins with the time: a number under which there are
//! no records. So a lost number may sign everybody out, and brings nobody back.
//!
//! Whatever is under way carries the number under which it began, and has no effect under another.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::coherence::Hearing;
use super::detached::step;
use super::l2::L2Error;
use super::{Engine, TokenCache};
use crate::error::{Error, StoreErrorKind};
use crate::key::PartitionKey;
use crate::random;
use crate::store::{Names, PartitionId, Raise, Revision};
use crate::time::Timestamp;

/// How often the number is looked up where nothing tells of it.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The same while the feed may have missed it, and while it cannot have.
const LOOK_EVERY_LOST: Duration = Duration::from_secs(1);
const LOOK_EVERY_ALIVE: Duration = Duration::from_secs(60);

/// A number that an epoch can begin with: milliseconds since the Unix epoch, and then ten random bits,
/// so that two that are begun in one moment differ. Below 2^53 until the year 2248.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Number(NonZeroU64);

/// How many there are of one millisecond.
const RANDOM: u64 = 1 << 10;
/// Leaves room to count on.
const LATEST: u64 = 1 << 52;

impl Number {
    pub(super) const FIRST: Self = Self(NonZeroU64::MIN);

    pub(super) fn at(now: Timestamp) -> Self {
        let random = random::number().unwrap_or_default() & (RANDOM - 1);
        let number = now.as_millis().saturating_mul(RANDOM).min(LATEST) | random;
        Self(NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN))
    }

    /// When it began, as its maker's clock says, which may be ahead or behind.
    #[cfg(feature = "cookie")]
    pub(super) fn began(self) -> Timestamp {
        Timestamp::from_millis(self.get() / RANDOM)
    }

    pub(super) fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    pub(super) fn get(self) -> u64 {
        self.0.get()
    }
}

/// The number as far as it is known. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Prefix(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    /// 0 is unknown.
    number: AtomicU64,
    /// L2 was asked, and nothing was heard since that makes it worth another question.
    asked: AtomicBool,
    /// What this process begins with where it has to: the same however often it asks.
    mine: OnceLock<Number>,
    /// What the store calls it.
    digest: OnceLock<[u8; 32]>,
    /// Held to ask how old a number is.
    asks: tokio::sync::Mutex<()>,
    /// When everybody was signed out last, by this process's clock; 0 when nobody was that it knows of.
    raised_at: AtomicU64,
}

impl Prefix {
    /// One that begins with the first number before L2 was asked, for partitions that are brought
    /// by requests and named before anything can be awaited.
    pub(super) fn assumed() -> Self {
        let prefix = Self::default();
        let first = Number::FIRST.get();
        prefix.0.number.store(first, Ordering::Release);
        prefix
    }

    pub(super) fn known(&self) -> Option<Number> {
        Number::new(self.0.number.load(Ordering::Acquire))
    }

    pub(super) fn settled(&self) -> Option<Number> {
        self.known()
            .filter(|_| self.0.asked.load(Ordering::Acquire))
    }

    /// When the number was raised, by this process's clock: what was done before that, by somebody who did
    /// not know any, is from before everybody was signed out.
    pub(super) fn raised_at(&self) -> Timestamp {
        Timestamp::from_millis(self.0.raised_at.load(Ordering::Acquire))
    }

    /// Whether this one is later than what was known, and supersedes it.
    fn learn(&self, number: Number, raised_at: Timestamp) -> bool {
        if self.known() < Some(number) {
            // Before anybody goes by the number.
            let at = raised_at.as_millis();
            self.0.raised_at.fetch_max(at, Ordering::AcqRel);
        }
        let known = self.0.number.fetch_max(number.get(), Ordering::AcqRel);
        self.0.asked.store(true, Ordering::Release);
        known > 0 && known < number.get()
    }
}

impl TokenCache {
    /// Signs out every user of this [namespace](crate::Builder::namespace), on all instances: for
    /// an emergency. On return L2 has confirmed it; other instances are told by the store's feed, or learn
    /// of it within ten seconds where there is none. What was under way when it was called has no effect.
    ///
    /// It is one number in L2, kept without end. An L2 that loses it (by eviction, or restored from
    /// a backup) gets it back from an instance that knows it; where there is none, everybody is
    /// signed out.
    ///
    /// It goes on if the caller does not wait for it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it is not known whether L2 has it: repeat it.
    pub async fn revoke_all(&self) -> Result<(), Error> {
        let engine = &self.0;
        let revokes = |engine: Arc<Engine>| async move { engine.revoke().await };
        let revoked = engine.detached(engine.deadline(), revokes).await;
        let revoked = revoked.and_then(|revoked| revoked);
        revoked.map_err(|failure| Error::Unavailable(failure.error))
    }
}

impl Engine {
    /// The number of the namespace; L2 is asked where it is not known.
    pub(super) async fn number(&self) -> Result<Number, L2Error> {
        match self.l2.prefix.settled() {
            Some(number) => Ok(number),
            None => self.look_up_prefix().await,
        }
    }

    /// What the store knows a partition by now.
    pub(super) async fn id(&self, key: &PartitionKey) -> Result<PartitionId, L2Error> {
        Ok(self.l2.id(key, self.number().await?))
    }

    /// Asks L2 for the number, and tells it the one known here where it has a lower one or none.
    pub(super) async fn look_up_prefix(&self) -> Result<Number, L2Error> {
        let epoch = self.namespace_epoch();
        let hints = self.rules.vouch.number_hints();
        let known = self.l2.prefix.known();
        let mine = || Number::at(self.clock.now());
        let begin = known.unwrap_or_else(|| *self.l2.prefix.0.mine.get_or_init(mine));
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
            // It was lost, and somebody has begun a lower one, under which everybody may have been
            // signed out since: neither is to go on.
            tracing::warn!("L2 has lost the number of the namespace: everybody is signed out");
            let next = Raise::Beyond(begin.get() + 1);
            number = self.raise_number(&epoch, next).await?;
            self.learn_prefix(number, self.clock.now());
        } else if number == begin {
            // Nobody was signed out by one that is known, or begins here.
            self.learn_prefix(number, Timestamp::default());
        } else {
            // One asks for all who wait.
            let _asks = self.l2.prefix.0.asks.lock().await;
            if self.l2.prefix.known() < Some(number) {
                let age = self.l2.load_one(&epoch).await?.cleared_for;
                self.learn_prefix(
                    number,
                    self.clock.now().saturating_sub(age.unwrap_or_default()),
                );
            }
        }
        self.rules.vouch.number_is_known(hints);
        Ok(number)
    }

    /// Forgets everything if this number is a new one.
    fn learn_prefix(&self, number: Number, raised_at: Timestamp) {
        let learn = || self.l2.prefix.learn(number, raised_at);
        if self.hold_signed_out(number, learn) {
            tracing::warn!("everybody was signed out");
            let dropped = self.partitions.forget_all();
            self.counters.signed_out_changes.add(dropped as u64);
        }
    }

    /// Whether this is the partition of the number.
    pub(super) fn is_namespace_epoch(&self, digest: &[u8; 32]) -> bool {
        let digest_of_mine = || *self.namespace_epoch().digest();
        self.l2.prefix.0.digest.get_or_init(digest_of_mine) == digest
    }

    /// There may be a later number: L2 is asked before anything is read from it.
    pub(super) fn ask_for_number(self: &Arc<Self>) {
        self.l2.prefix.0.asked.store(false, Ordering::Release);
        let engine = self.clone();
        self.runtime.spawn(async move {
            // If this fails, whoever needs L2 next asks again.
            let _ = engine.look_up_prefix().await;
        });
    }

    async fn revoke(&self) -> Result<(), L2Error> {
        let known = self.l2.prefix.known().map_or(0, Number::get);
        let now = Number::at(self.clock.now()).get();
        let raise = Raise::Beyond(now.max(known + 1));
        let number = self.raise_number(&self.namespace_epoch(), raise).await?;
        self.learn_prefix(number, self.clock.now());
        Ok(())
    }

    /// The number in force, which is confirmed to be at least what was asked for.
    async fn raise_number(&self, epoch: &PartitionId, raise: Raise) -> Result<Number, L2Error> {
        let answer = self.l2.raise(epoch, raise, None).await?;
        let is_raised = matches!(raise, Raise::Begin(_)) || answer >= raise.number();
        let number = Number::new(answer).filter(|_| is_raised);
        number.ok_or_else(|| L2Error::of(StoreErrorKind::Refused))
    }

    /// The number's record in L2.
    async fn marker(&self, epoch: &PartitionId) -> Result<Revision, L2Error> {
        let answers = self.l2.revisions(std::slice::from_ref(epoch)).await?;
        let revision = answers.into_iter().next().ok_or_else(L2Error::lost)??;
        Ok(revision)
    }

    fn namespace_epoch(&self) -> PartitionId {
        Names::namespace_epoch(&self.l2.protection.namespace)
    }

    /// Looks for a new number now and then.
    pub(super) fn watch_prefix(self: &Arc<Self>) {
        let weak = Arc::downgrade(self);
        self.runtime.spawn(async move {
            loop {
                let Some(engine) = weak.upgrade() else { return };
                let pause = match engine.rules.vouch.hearing(engine.now().moment) {
                    Hearing::None => LOOK_EVERY,
                    Hearing::Lost => LOOK_EVERY_LOST,
                    Hearing::Alive if engine.l2.prefix.settled().is_none() => LOOK_EVERY_LOST,
                    Hearing::Alive => LOOK_EVERY_ALIVE,
                };
                drop(engine);
                tokio::time::sleep(pause).await;
                let Some(engine) = weak.upgrade() else { return };
                if engine.l2.prefix.known().is_some() && !engine.queue.is_closed() {
                    // While L2 is away nobody can have raised it.
                    let _ = step("prefix", engine.look_up_prefix()).await;
                }
            }
        });
    }
}
