//! Signing everybody out at once, by the prefix generation.
//!
//! The generation is part of every partition's name in L2: raising it leaves all that was there
//! behind, unreachable, to expire. It is itself the generation of a partition without end, so that
//! stores need nothing more for it, and it only grows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::coherence::Channel;
use super::detached::step;
use super::l2::L2Error;
use super::{Engine, TokenCache};
use crate::error::{Error, StoreErrorKind};
use crate::key::PartitionKey;
use crate::store::{Change, Commit, Lifetime, Names, Outcome, PartitionId, Put};

/// How often the generation is looked up where nobody announces it.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The same while the backplane may have lost an announcement, and while it cannot have.
const LOOK_EVERY_LOST: Duration = Duration::from_secs(1);
const LOOK_EVERY_ALIVE: Duration = Duration::from_secs(60);

/// The prefix generation as far as it is known. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Prefix(Arc<AtomicU64>); // one more than the generation; 0 is unknown

impl Prefix {
    pub(super) fn known(&self) -> Option<u64> {
        self.0.load(Ordering::Acquire).checked_sub(1)
    }

    /// Whether this one is later than what was known, and supersedes it.
    fn learn(&self, generation: u64) -> bool {
        let known = self.0.fetch_max(generation + 1, Ordering::AcqRel);
        known > 0 && known <= generation
    }
}

impl TokenCache {
    /// Signs out every user of this [namespace](crate::Builder::namespace), on all instances: for
    /// an emergency. On return L2 has it; other instances learn of it from the backplane, or
    /// within ten seconds without one.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it is not known whether L2 has it: repeat it.
    pub async fn revoke_all(&self) -> Result<(), Error> {
        let engine = &self.0;
        let revokes = |engine: Arc<Engine>| async move { engine.revoke_all().await };
        let revoked = engine.detached(engine.deadline(), revokes).await;
        let revoked = revoked.and_then(|revoked| revoked);
        revoked.map_err(|failure| Error::Unavailable(failure.error))
    }
}

impl Engine {
    async fn revoke_all(&self) -> Result<(), L2Error> {
        let generation = self.raise_prefix().await?;
        self.learn_prefix(generation);
        self.coherence.announce_everything(generation);
        Ok(())
    }

    /// What the store knows a partition by, once the prefix generation is known.
    pub(super) async fn id(&self, key: &PartitionKey) -> Result<PartitionId, L2Error> {
        if self.l2.prefix.known().is_none() {
            self.look_up_prefix().await?;
        }
        Ok(self.l2.id(key))
    }

    /// Whether [`id`](Self::id) has nothing to ask.
    pub(super) fn knows_ids(&self) -> bool {
        self.l2.prefix.known().is_some()
    }

    /// Asks L2 for the prefix generation.
    pub(super) async fn look_up_prefix(&self) -> Result<(), L2Error> {
        let answers = self.l2.revisions(&[self.prefix_id()]).await?;
        let revision = answers.into_iter().next().ok_or_else(L2Error::lost)??;
        self.rules.losses.saw_marker(revision);
        self.learn_prefix(revision.generation);
        Ok(())
    }

    /// Forgets everything if this generation is a new one.
    pub(super) fn learn_prefix(&self, generation: u64) {
        if self.l2.prefix.learn(generation) {
            tracing::warn!("everybody was signed out");
            let dropped = self.partitions.forget_all();
            self.counters.signed_out_changes.add(dropped as u64);
        }
    }

    async fn raise_prefix(&self) -> Result<u64, L2Error> {
        let partition = self.prefix_id();
        let id = self.queue.next_id();
        let generation = self.l2.clear(&partition, None, id).await?.generation;
        // A tombstone ends; this must not.
        let marker = Commit {
            partition,
            id: self.queue.next_id(),
            generation,
            expected: None,
            life: None,
            repeats: None,
            changes: vec![Change {
                entry: self.l2.entry_id("\u{1}everything"),
                put: Some(Put {
                    value: Default::default(),
                    expires_at: None,
                }),
            }],
            lifetime: Lifetime::default(),
        };
        let answers = self.l2.commit(&[marker]).await?;
        match answers.into_iter().next() {
            Some(Ok(Outcome::Committed { .. } | Outcome::Stale { .. })) => Ok(generation),
            Some(Err(error)) => Err(error.into()),
            _ => Err(L2Error::of(StoreErrorKind::Refused)),
        }
    }

    pub(super) fn prefix_id(&self) -> PartitionId {
        // By the same name with encryption and without, so that both see one generation.
        let namespace = &self.l2.protection.namespace;
        Names::default().partition(namespace, &PartitionKey::everything())
    }

    /// Looks for a new prefix generation now and then.
    pub(super) fn watch_prefix(self: &Arc<Self>) {
        let weak = Arc::downgrade(self);
        self.runtime.spawn(async move {
            loop {
                let Some(engine) = weak.upgrade() else { return };
                let pause = match engine.rules.epoch.channel() {
                    Channel::None => LOOK_EVERY,
                    Channel::Lost => LOOK_EVERY_LOST,
                    Channel::Alive => LOOK_EVERY_ALIVE,
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
