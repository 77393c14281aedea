//! Moving a partition's tokens to another, as when a session gets a new id at sign-in.

use std::sync::Arc;

use super::Engine;
use super::l2::L2Error;
use super::load::MAX_READS;
use super::pin::Pin;
use super::revocation::Number;
use crate::codec::Value;
use crate::error::Error;
use crate::key::{PartitionKey, TokenKey};
use crate::policy::FailurePolicy;
use crate::store::{Commit, CommitId, Origin, Outcome, PartitionId, Revision};

/// A partition to be moved.
struct Whole {
    under: Option<Number>,
    generation: u64,
    version: u64,
    entries: Vec<(TokenKey, Value)>,
    pin: Pin,
}

impl Engine {
    /// Moves everything from one partition to another, in one step of the store; `from` is signed
    /// out. While L2 cannot be asked it is done in memory, and both halves are replayed.
    ///
    /// A caller that goes away leaves it to end: once L2 has moved the tokens, memory has to know.
    pub(crate) async fn relocate(
        self: &Arc<Self>,
        from: &PartitionKey,
        to: &PartitionKey,
        policy: FailurePolicy,
        pin: &mut Option<Pin>,
    ) -> Result<(), Error> {
        let (from, to, mut seen) = (from.clone(), to.clone(), *pin);
        let moves = |engine: Arc<Self>| async move {
            let moved = engine.relocate_here(&from, &to, policy, &mut seen).await;
            (moved, seen)
        };
        match self.detached(self.deadline(), moves).await {
            Ok((moved, seen)) => {
                *pin = seen;
                moved
            }
            Err(failure) => Err(Error::Unavailable(failure.error)),
        }
    }

    async fn relocate_here(
        self: &Arc<Self>,
        from: &PartitionKey,
        to: &PartitionKey,
        policy: FailurePolicy,
        pin: &mut Option<Pin>,
    ) -> Result<(), Error> {
        if self.queue.is_closed() {
            return Err(Error::ShutDown);
        }
        if from == to {
            return Ok(());
        }
        // The same throughout: where the store takes two steps, a repeated one goes on.
        let id = self.queue.next_id();
        for _ in 0..MAX_READS {
            let (source, target) = match self.read_both(from, to).await {
                Ok(both) => both,
                Err(failure) => {
                    self.degrade(policy, failure)?;
                    return self.relocate_in_memory(from, to, policy, pin).await;
                }
            };
            let seen = *pin.get_or_insert(source.pin);
            let ended = self
                .partitions
                .with(from, |_, state| state.signed_out_since(&seen));
            if ended {
                return Err(Error::SignedOut);
            }
            let (Some(under), true) = (source.under, source.under == target.under) else {
                continue;
            };
            let origin = Origin {
                partition: self.l2.id(from, under),
                generation: source.generation,
                version: source.version,
            };
            let target_id = self.l2.id(to, under);
            let commit = self.commit_of(id, target_id, target.generation, &source.entries);
            let outcome = match self.l2.relocate(&origin, &commit).await {
                Ok(outcome) => outcome,
                Err(failure) => {
                    self.doubt(from, origin.partition, source.generation);
                    self.doubt(to, commit.partition, target.generation);
                    return Err(Error::Unavailable(failure.error));
                }
            };
            match outcome {
                Outcome::Committed { version, .. } => {
                    let ended = Revision {
                        generation: source.generation + 1,
                        ..Revision::default()
                    };
                    let begun = Revision {
                        generation: target.generation,
                        version,
                        commit: Some(id),
                    };
                    let moved = [(origin.partition, ended), (commit.partition, begun)];
                    self.coherence.announce(moved);
                    let now = self.now();
                    let dropped = self.partitions.with_under(from, under, |_, state| {
                        let dropped = state.sign_out(id, now.wall);
                        state.cleared(source.generation + 1, now);
                        dropped
                    });
                    // Everybody was signed out meanwhile.
                    let dropped = dropped.ok_or(Error::SignedOut)?;
                    self.counters.signed_out_changes.add(dropped as u64);
                    // What it had is not what it has; whoever reads it next asks L2 if this fails.
                    self.partitions.with(to, |_, state| state.distrust());
                    self.relist(from, to, &source.entries);
                    let _ = self.load(to).await;
                    return Ok(());
                }
                // One of them has changed: read again.
                Outcome::Stale { .. } | Outcome::Conflict | Outcome::Lost => {}
            }
        }
        Err(Error::unavailable())
    }

    /// Perhaps L2 has another state of this partition: nobody is to use what memory has unasked.
    fn doubt(&self, key: &PartitionKey, id: PartitionId, generation: u64) {
        self.partitions.with(key, |_, state| state.distrust());
        let perhaps = Revision {
            generation,
            version: u64::MAX,
            commit: None,
        };
        self.coherence.announce([(id, perhaps)]);
    }

    async fn read_both(
        self: &Arc<Self>,
        from: &PartitionKey,
        to: &PartitionKey,
    ) -> Result<(Whole, Whole), L2Error> {
        Ok((self.read_whole(from).await?, self.read_whole(to).await?))
    }

    /// The partition as it is in L2, after what waits has been written.
    async fn read_whole(self: &Arc<Self>, key: &PartitionKey) -> Result<Whole, L2Error> {
        self.flush(key).await?;
        let (whole, _) = self
            .fetch(key, |state, now| Whole {
                under: state.prefix,
                generation: state.generation.unwrap_or(0),
                // One that has ended is as good as absent.
                version: if state.ended(now) { 0 } else { state.version },
                entries: state.usable_entries(now),
                pin: state.pin(now),
            })
            .await?;
        Ok(whole)
    }

    fn commit_of(
        &self,
        id: CommitId,
        partition: PartitionId,
        generation: u64,
        entries: &[(TokenKey, Value)],
    ) -> Commit {
        let writer = self.l2.protection.writer(&partition, generation);
        let changes = entries.iter();
        let changes = changes.map(|(name, value)| writer.change(name.as_ref(), Some(value)));
        let changes = changes.collect();
        Commit {
            partition,
            id,
            generation,
            expected: None,
            life: None,
            repeats: None,
            changes,
            lifetime: self.lifetime,
        }
    }

    async fn relocate_in_memory(
        self: &Arc<Self>,
        from: &PartitionKey,
        to: &PartitionKey,
        policy: FailurePolicy,
        pin: &mut Option<Pin>,
    ) -> Result<(), Error> {
        let now = self.now();
        let entries = self
            .partitions
            .with(from, |_, state| state.usable_entries(now));
        let changes = entries
            .into_iter()
            .map(|(name, value)| (name, Some(value)))
            .collect();
        self.change(to, changes, policy, &mut None).await?;
        self.enqueue(to);
        // It is on its way; nobody waits for a store that is away.
        drop(self.sign_out(from, pin)?);
        Ok(())
    }
}
