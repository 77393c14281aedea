//! One group of partitions: what each has to write, and what L2 answered.
//!
//! A few groups are under way at a time, and a partition is in at most one of them, so that its changes
//! arrive in order.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::task::JoinSet;

use crate::engine::core::Engine;
use crate::engine::error::L2Error;
use crate::engine::namespace::Number;
use crate::engine::partition::change::{CommitBase, InFlight};
use crate::engine::partition::pending::PendingSignOut;
use crate::engine::partition::state::{Partition, State};
use crate::mutation::{self, Mutation};
use crate::store::{Commit, Outcome, PartitionId, TOMBSTONE};

/// Bytes of values in one round-trip: some milliseconds of work for a store.
const MAX_BYTES: usize = 2 << 20;

impl Engine {
    pub(crate) async fn write_group(self: Arc<Self>, group: Vec<Arc<Partition>>) {
        let mut works = Vec::with_capacity(group.len());
        for partition in group {
            let (under, work) = self.partitions.with(&partition.key, |_, state| {
                (state.number, self.take_work(state))
            });
            works.push(PartitionWork {
                engine: self.clone(),
                partition,
                under,
                kind: work,
                failure: Some(L2Error::lost()),
            });
        }
        let mut commits = Vec::new();
        let mut touches = Vec::new();
        let mut others = Vec::new();
        for work in works {
            match work.kind {
                WorkKind::Commit { .. } => commits.push(work),
                WorkKind::Touch => touches.push(work),
                _ => others.push(work),
            }
        }
        // Each of these makes round-trips of its own, and none waits for another.
        let mut alone = JoinSet::new();
        for work in others {
            alone.spawn_on(work.run_alone(), &self.runtime);
        }
        let id = |work: &PartitionWork| Some(self.l2.id(&work.partition.key, work.under?));
        let commits = self.l2.by_shard(commits, id).into_iter();
        join_all(commits.map(|works| self.commit_group(works))).await;
        let touches = self.l2.by_shard(touches, id).into_iter();
        join_all(touches.map(|works| self.touch_group(works))).await;
        while alone.join_next().await.is_some() {}
    }

    /// Decides what a partition sends next, and takes it from the pending work: a sign-out before all else; then
    /// changes, after a load where the generation is not known; a touch only if there is nothing else.
    fn take_work(&self, state: &mut State) -> WorkKind {
        state.pending().queued = false;
        if state.pending().sending {
            return WorkKind::Nothing;
        }
        let now = self.now().moment;
        let oldest = now.saturating_sub(TOMBSTONE / 2);
        let given_up = state.drop_older_than(oldest);
        if given_up > 0 {
            self.counters.abandoned_changes.add(given_up as u64);
            tracing::error!(
                changes = given_up,
                "changes waited for too long and are given up"
            );
        }
        // A partition has no name in L2 while the namespace's number is unknown.
        let is_named = state.number.is_some();
        let generation = state.generation.filter(|_| is_named);
        let life = state.life_at(now);
        let base = CommitBase {
            version: state.version,
            commit: state.commit,
            era: self.rules.trust.era(),
            asked_at: now,
        };
        let pending = state.pending();
        pending.notify_written();
        let touch = std::mem::take(&mut pending.touch);
        let kind = match (pending.sign_out, generation) {
            (Some(sign_out), _) => WorkKind::SignOut(sign_out),
            (None, Some(generation)) if pending.is_dirty() => WorkKind::Commit {
                commit: pending.next_commit(base, life, || self.queue.next_id()),
                generation,
            },
            (None, None) if pending.is_dirty() => WorkKind::Load,
            _ if touch && is_named => WorkKind::Touch,
            _ => WorkKind::Nothing,
        };
        pending.sending = !matches!(kind, WorkKind::Nothing);
        if !matches!(kind, WorkKind::Nothing | WorkKind::Load) {
            // The feed announces it to this process, too, which then compares memory with L2 in the background.
            state.expect_own_hint();
        }
        kind
    }

    /// Sends commits in as few round-trips as their size allows.
    async fn commit_group(&self, works: Vec<PartitionWork>) {
        let works = self.move_before_writes(works).await;
        let mut all = works;
        let mut works = all.as_mut_slice();
        while !works.is_empty() {
            let mut commits = Vec::with_capacity(works.len());
            let mut bytes = 0;
            for work in works.iter() {
                let commit = self.encode(work);
                bytes += commit.as_ref().map_or(0, Commit::bytes);
                if bytes > MAX_BYTES && !commits.is_empty() {
                    break;
                }
                commits.extend(commit);
            }
            let (sent, rest) = works.split_at_mut(commits.len().max(1));
            sent.iter_mut().for_each(PartitionWork::encoded);
            let answers = match self.l2.commit(&commits).await {
                Ok(answers) => answers,
                Err(failure) => {
                    for work in sent.iter_mut() {
                        work.failure = Some(failure.clone());
                    }
                    Vec::new()
                }
            };
            for (work, answer) in sent.iter_mut().zip(answers) {
                if let Ok(Outcome::Lost) = answer {
                    work.failure = self.settle_lost(work).await.err();
                    continue;
                }
                let settled = answer.map(|outcome| self.settle(work, outcome));
                work.failure = settled.err().map(L2Error::from);
            }
            works = rest;
        }
    }

    fn encode(&self, work: &PartitionWork) -> Option<Commit> {
        let WorkKind::Commit { commit, generation } = &work.kind else {
            return None;
        };
        let partition = self.l2.id(&work.partition.key, work.under?);
        let writer = self.l2.codec.writer(&partition, *generation);
        let changes = commit.changes.iter().chain(commit.again.iter());
        let changes =
            changes.map(|(name, change)| writer.change(name.as_ref(), change.value.as_ref()));
        let changes = changes.collect();
        let sealed = self.l2.codec.seals();
        let life = commit.life.filter(|life| life.sealed == sealed);
        let life = life.filter(|_| !mutation::is(Mutation::LifeIgnored));
        // Version 0 is that of a new partition, or it is unknown because L1 has evicted the partition.
        let known = Some(commit.base.version).filter(|at| *at > 0 || commit.life.is_none());
        Some(Commit {
            partition,
            id: commit.id,
            generation: *generation,
            expected: commit.expected,
            life: life.map(|life| life.id),
            repeats: known.filter(|_| commit.sent),
            base: commit.base.version,
            changes,
            lifetime: self.lifetime_of(&work.partition.key),
        })
    }

    async fn touch_group(&self, mut works: Vec<PartitionWork>) {
        if works.is_empty() {
            return;
        }
        let ids: Vec<PartitionId> = works
            .iter()
            .filter_map(|work| Some(self.l2.id(&work.partition.key, work.under?)))
            .collect();
        // A failed touch is not repeated: the next use of the partition brings another.
        let answers = self.l2.touch(&ids).await.unwrap_or_default();
        let now = self.now();
        for (work, answer) in works.iter_mut().zip(answers) {
            if let (Ok(remaining), Some(under)) = (answer, work.under) {
                self.partitions
                    .with_under(&work.partition.key, under, |_, state| {
                        state.touched(remaining, now, &self.rules);
                    });
            }
        }
        for work in &mut works {
            work.failure = None;
        }
    }
}

/// The work of one partition in a group. However it ends, its drop frees the partition for its next work, and
/// answers the waiting tasks.
pub(crate) struct PartitionWork {
    engine: Arc<Engine>,
    pub(crate) partition: Arc<Partition>,
    /// The namespace's number when the work was taken; known wherever it names the partition.
    pub(crate) under: Option<Number>,
    pub(crate) kind: WorkKind,
    pub(crate) failure: Option<L2Error>,
}

pub(crate) enum WorkKind {
    Nothing,
    Commit {
        commit: InFlight,
        generation: u64,
    },
    SignOut(PendingSignOut),
    /// The generation is unknown, because L2 could not be asked when the changes were made. It is loaded
    /// first.
    Load,
    Touch,
}

impl PartitionWork {
    /// Whether its changes are from before a sign-out that has led to this generation.
    pub(crate) fn is_before(&self, now: u64) -> bool {
        matches!(self.kind, WorkKind::Commit { generation, .. } if generation < now)
    }

    /// The commit is encoded. From here on only the pending work holds the changes, until L2 has them: so
    /// their room in the budget is free before a waiting task learns that they are written.
    fn encoded(&mut self) {
        if let WorkKind::Commit { commit, .. } = &mut self.kind {
            (commit.changes, commit.again) = Default::default();
        }
    }

    async fn run_alone(mut self) {
        let engine = self.engine.clone();
        self.failure = match self.kind {
            WorkKind::SignOut(sign_out) => engine
                .end_generation(&self.partition.key, self.under, sign_out)
                .await
                .err(),
            WorkKind::Load => engine.load(&self.partition.key).await.1.err(),
            _ => None,
        };
    }
}

impl Drop for PartitionWork {
    fn drop(&mut self) {
        if matches!(self.kind, WorkKind::Nothing) {
            return;
        }
        let engine = &self.engine;
        let failure = self.failure.take();
        let failed = failure.is_some();
        let (mut stalled, mut wakes) = (false, false);
        engine
            .partitions
            .with(&self.partition.key, |partition, state| {
                state.pending().sending = false;
                match failure {
                    Some(failure) => {
                        // Memory shows what acquisitions wait for from here on.
                        let goes_on = state.pending().sending_failed(&failure);
                        state.overlay_pending();
                        if goes_on {
                            engine.push(partition, state);
                            wakes = true;
                        } else {
                            stalled = !std::mem::replace(&mut state.pending().stalled, true);
                        }
                    }
                    None => {
                        let pending = state.pending();
                        pending.notify_written();
                        if pending.is_dirty() || pending.touch {
                            engine.push(partition, state);
                        }
                    }
                }
            });
        match self.kind {
            _ if stalled => engine.schedule_retry(self.partition.clone()),
            _ if wakes => engine.wake(),
            _ if failed => {}
            // A touch ends without a failure even while L2 is away, so it says nothing about L2.
            WorkKind::Touch => engine.wake(),
            _ => engine.reset_backoff(),
        }
    }
}
