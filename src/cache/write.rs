//! Changes: laid over memory at once, then written to L2 in groups.
//!
//! A partition with something to write stands in the queue at most once. A few groups are on
//! their way at a time, a partition in at most one of them, so its changes arrive in order. What
//! fails is tried again with growing pauses until L2 takes it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Timeout, timeout};

use super::Engine;
use super::breaker::jittered;
use super::budget::Permit;
use super::l2::L2Error;
use super::partition::{InFlight, Partition, Pin, State};
use crate::codec::{self, Value};
use crate::error::{Error, StoreError, StoreErrorKind};
use crate::key::{PartitionKey, TokenKey};
use crate::policy::{FailurePolicy, OnFailure};
use crate::store::{Change, Commit, CommitId, EntryId, Outcome, PartitionId, Put, TOMBSTONE};

/// Partitions in one group: a round-trip of about a megabyte.
const MAX_GROUP: usize = 128;
/// Groups on their way at a time: one is encoded while L2 works on the other.
const MAX_GROUPS: usize = 2;
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1);
/// The interval between sweeps of expired partitions out of L1.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Resolves when the changes that waited are written, or could not be.
pub(crate) type CommitWait = Timeout<oneshot::Receiver<Result<(), L2Error>>>;

/// A wake-up carries the engine, so that it lives until the queue is empty even when the last
/// handle is gone.
type Wakeup = Arc<Engine>;

/// Partitions that have something to write.
pub(super) struct Queue {
    ready: Mutex<VecDeque<Arc<Partition>>>,
    /// Those whose last attempt failed.
    stalled: Mutex<Vec<Arc<Partition>>>,
    retrying: AtomicBool,
    failures: AtomicU32,
    wake: mpsc::Sender<Wakeup>,
    groups: Arc<Semaphore>,
    closed: AtomicBool,
    next_commit: AtomicU64,
}

impl Queue {
    pub(super) fn new() -> (Self, mpsc::Receiver<Wakeup>) {
        let (wake, wakeups) = mpsc::channel(1);
        let queue = Self {
            ready: Mutex::default(),
            stalled: Mutex::default(),
            retrying: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            wake,
            groups: Arc::new(Semaphore::new(MAX_GROUPS)),
            closed: AtomicBool::new(false),
            // Unique among instances by its random start, within one by counting.
            next_commit: AtomicU64::new(getrandom::u64().unwrap_or_default()),
        };
        (queue, wakeups)
    }

    fn push(&self, partition: Arc<Partition>) {
        lock(&self.ready).push_back(partition);
    }

    fn take_group(&self) -> Vec<Arc<Partition>> {
        let mut ready = lock(&self.ready);
        let count = ready.len().min(MAX_GROUP);
        ready.drain(..count).collect()
    }

    fn next_id(&self) -> CommitId {
        CommitId(
            self.next_commit
                .fetch_add(1, Ordering::Relaxed)
                .to_be_bytes(),
        )
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Engine {
    /// Starts the background tasks, which end when the engine is dropped.
    pub(super) fn start(self: &Arc<Self>, mut wakeups: mpsc::Receiver<Wakeup>) {
        self.runtime.spawn(async move {
            while let Some(engine) = wakeups.recv().await {
                engine.write_queued().await;
            }
        });
        let weak = Arc::downgrade(self);
        self.runtime.spawn(async move {
            loop {
                tokio::time::sleep(SWEEP_EVERY).await;
                let Some(engine) = weak.upgrade() else { return };
                engine.partitions.sweep(engine.clock.now()).await;
            }
        });
    }

    /// Changes entries: `None` removes one. Visible to everybody in this process on return.
    pub(crate) async fn change(
        self: &Arc<Self>,
        key: &PartitionKey,
        changes: Vec<(TokenKey, Option<Value>)>,
        policy: FailurePolicy,
        pin: &mut Option<Pin>,
    ) -> Result<(), Error> {
        if self.queue.closed.load(Ordering::Acquire) {
            return Err(Error::ShutDown);
        }
        let local = policy == FailurePolicy::Bypass;
        if !local {
            self.know_generation(key, policy, pin).await?;
        }
        let (permits, crowded) = match local {
            true => (None, false),
            false => {
                let (permits, crowded) = self.reserve(&changes).await?;
                (Some(permits), crowded)
            }
        };
        let mut permits = permits.into_iter().flatten();
        let changes = changes
            .into_iter()
            .map(|(name, value)| (name, value, permits.next()))
            .collect();
        let now = self.clock.now();
        self.partitions.with(key, |_, state| {
            let pin = pin.get_or_insert_with(|| state.pin(now));
            if state.signed_out_since(pin) {
                self.counters.signed_out_changes.add(1);
                return Err(Error::SignedOut);
            }
            state.adopt(pin);
            state.change(changes, now);
            Ok(())
        })?;
        if crowded {
            self.finish(policy, self.commit(key).await)?;
        }
        Ok(())
    }

    /// Room for these changes. Where there is none now, waits for it, and says that the changes
    /// should be committed in line.
    async fn reserve(
        &self,
        changes: &[(TokenKey, Option<Value>)],
    ) -> Result<(Vec<Permit>, bool), Error> {
        let sizes = changes
            .iter()
            .map(|(name, value)| name.as_ref().len() + value.as_ref().map_or(64, Value::footprint));
        let mut permits = Vec::with_capacity(changes.len());
        let mut crowded = false;
        for size in sizes {
            let permit = match self.budget.try_reserve(size) {
                Some(permit) => permit,
                None => {
                    crowded = true;
                    timeout(self.l2.hard_timeout, self.budget.reserve(size))
                        .await
                        .ok()
                        .flatten()
                        .ok_or(Error::Overloaded)?
                }
            };
            permits.push(permit);
        }
        Ok((permits, crowded))
    }

    /// Signs the partition out, in memory at once. `pin` is of the time after it.
    pub(crate) fn sign_out(
        self: &Arc<Self>,
        key: &PartitionKey,
        pin: &mut Option<Pin>,
    ) -> Result<CommitWait, Error> {
        if self.queue.closed.load(Ordering::Acquire) {
            return Err(Error::ShutDown);
        }
        let now = self.clock.now();
        let dropped = self.partitions.with(key, |_, state| {
            let dropped = state.sign_out();
            *pin = Some(state.pin(now));
            dropped
        });
        self.counters.signed_out_changes.add(dropped as u64);
        Ok(self.commit(key))
    }

    /// Writes what waits of this partition now. Nobody waits longer than the hard timeout.
    pub(crate) fn commit(self: &Arc<Self>, key: &PartitionKey) -> CommitWait {
        let wait = self.partitions.with(key, |partition, state| {
            let wait = state.pending.wait();
            state.pending.tell_written();
            self.push(partition, state);
            wait
        });
        self.wake();
        timeout(self.l2.hard_timeout, wait)
    }

    /// What the end of a [`CommitWait`] means under a policy: written, or kept to be written.
    pub(crate) fn finish(
        &self,
        policy: FailurePolicy,
        ended: <CommitWait as Future>::Output,
    ) -> Result<crate::tokens::Durability, Error> {
        use crate::tokens::Durability;
        let failure = match ended {
            Ok(Ok(Ok(()))) => return Ok(Durability::Stored),
            Ok(Ok(Err(failure))) => failure,
            Ok(Err(_)) => L2Error::lost(),
            Err(_) => L2Error {
                error: StoreError::new(StoreErrorKind::Timeout),
                decision: OnFailure::Policy,
            },
        };
        self.degrade(policy, failure).map(|()| Durability::Pending)
    }

    /// Queues whatever waits of this partition.
    pub(crate) fn enqueue(self: &Arc<Self>, key: &PartitionKey) {
        self.partitions
            .with(key, |partition, state| self.push(partition, state));
        self.wake();
    }

    /// No more changes; what waits is written without further pauses.
    pub(super) fn close(self: &Arc<Self>) {
        self.queue.closed.store(true, Ordering::Release);
        self.l2.breaker.reset();
        self.resume();
    }

    fn push(&self, partition: &Arc<Partition>, state: &mut State) {
        if !state.pending.queued && !state.pending.sending {
            state.pending.queued = true;
            self.queue.push(partition.clone());
        }
    }

    fn wake(self: &Arc<Self>) {
        // Full: a wake-up is on its way already.
        let _ = self.queue.wake.try_send(self.clone());
    }

    async fn write_queued(self: Arc<Self>) {
        loop {
            let Ok(slot) = self.queue.groups.clone().acquire_owned().await else {
                return;
            };
            let group = self.queue.take_group();
            if group.is_empty() {
                return;
            }
            let engine = self.clone();
            self.runtime.spawn(async move {
                engine.write_group(group).await;
                drop(slot);
            });
        }
    }

    async fn write_group(self: Arc<Self>, group: Vec<Arc<Partition>>) {
        let mut works = Vec::with_capacity(group.len());
        for partition in group {
            let work = self
                .partitions
                .with(&partition.key, |_, state| self.take_work(state));
            works.push(Work {
                engine: self.clone(),
                partition,
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
        // Each of these is a round-trip of its own; none waits for another.
        let mut alone = JoinSet::new();
        for work in others {
            alone.spawn_on(work.run_alone(), &self.runtime);
        }
        self.commit_group(commits).await;
        self.touch_group(touches).await;
        while alone.join_next().await.is_some() {}
    }

    /// Decides what to do next for a partition, and takes it.
    fn take_work(&self, state: &mut State) -> WorkKind {
        state.pending.queued = false;
        if state.pending.sending {
            return WorkKind::Nothing;
        }
        state.pending.tell_written();
        let now = self.clock.now();
        let given_up = state.drop_older_than(now.saturating_sub(TOMBSTONE / 2));
        if given_up > 0 {
            self.counters.abandoned_changes.add(given_up as u64);
            tracing::error!(
                changes = given_up,
                "changes waited for too long and are given up"
            );
        }
        let pending = &mut state.pending;
        let touch = std::mem::take(&mut pending.touch);
        let kind = if let Some(expected) = pending.clear {
            WorkKind::Clear { expected }
        } else if pending.in_flight.is_none() && pending.changes.is_empty() {
            match touch {
                true => WorkKind::Touch,
                false => WorkKind::Nothing,
            }
        } else if let Some(generation) = state.view.generation {
            WorkKind::Commit {
                commit: pending.depart(|| self.queue.next_id()),
                generation,
            }
        } else {
            WorkKind::Load
        };
        pending.sending = !matches!(kind, WorkKind::Nothing);
        kind
    }

    async fn commit_group(&self, mut works: Vec<Work>) {
        if works.is_empty() {
            return;
        }
        let commits: Vec<Commit> = works.iter().filter_map(|work| self.encode(work)).collect();
        let answers = match self.l2.commit(&commits).await {
            Ok(answers) => answers
                .into_iter()
                .map(|answer| answer.map_err(with_policy))
                .collect(),
            Err(failure) => vec![Err(failure); works.len()],
        };
        for (work, answer) in works.iter_mut().zip(answers) {
            work.failure = answer.map(|outcome| self.settle(work, outcome)).err();
        }
    }

    fn encode(&self, work: &Work) -> Option<Commit> {
        let WorkKind::Commit { commit, generation } = &work.kind else {
            return None;
        };
        let changes = commit.changes.iter().map(|(name, change)| Change {
            entry: EntryId::of(name.as_ref()),
            put: change.value.as_ref().map(|value| Put {
                value: codec::encode(name.as_ref(), value),
                expires_at: value.expires_at(),
            }),
        });
        Some(Commit {
            partition: work.partition.id.clone(),
            id: commit.id,
            generation: *generation,
            changes: changes.collect(),
            lifetime: self.lifetime,
        })
    }

    fn settle(&self, work: &Work, outcome: Outcome) {
        let WorkKind::Commit { commit, .. } = &work.kind else {
            return;
        };
        let now = self.clock.now();
        self.partitions
            .with(&work.partition.key, |_, state| match outcome {
                Outcome::Committed { version, remaining } => {
                    let flushed = state.committed(commit.id, version, remaining, now, &self.rules);
                    self.counters.flushed_changes.add(flushed as u64);
                }
                Outcome::Stale { generation } => {
                    let dropped = state.refused(commit.id, generation, now);
                    self.counters.signed_out_changes.add(dropped as u64);
                }
            });
    }

    async fn touch_group(&self, mut works: Vec<Work>) {
        if works.is_empty() {
            return;
        }
        let ids: Vec<PartitionId> = works.iter().map(|work| work.partition.id.clone()).collect();
        // A touch that failed is not repeated: the next use of the partition brings another.
        let answers = self.l2.touch(&ids).await.unwrap_or_default();
        let now = self.clock.now();
        for (work, answer) in works.iter_mut().zip(answers) {
            if let Ok(remaining) = answer {
                self.partitions.with(&work.partition.key, |_, state| {
                    state.touched(remaining, now, &self.rules);
                });
            }
        }
        for work in &mut works {
            work.failure = None;
        }
    }

    /// Tries again what has failed, after a pause that grows while L2 is away.
    fn stall(self: &Arc<Self>, partition: Arc<Partition>) {
        lock(&self.queue.stalled).push(partition);
        if self.queue.retrying.swap(true, Ordering::AcqRel) {
            return;
        }
        let doublings = self.queue.failures.fetch_add(1, Ordering::Relaxed).min(8);
        let pause = jittered((FIRST_RETRY * 2_u32.pow(doublings)).min(LAST_RETRY));
        let weak = Arc::downgrade(self);
        self.runtime.spawn(async move {
            tokio::time::sleep(pause).await;
            if let Some(engine) = weak.upgrade() {
                engine.resume();
            }
        });
    }

    fn resume(self: &Arc<Self>) {
        self.queue.retrying.store(false, Ordering::Release);
        for partition in std::mem::take(&mut *lock(&self.queue.stalled)) {
            self.partitions.with(&partition.key, |partition, state| {
                self.push(partition, state)
            });
        }
        self.wake();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let abandoned = self.budget.pending();
        if abandoned > 0 && !self.queue.closed.load(Ordering::Acquire) {
            tracing::error!(
                abandoned,
                "the token cache was dropped before L2 had its changes"
            );
        }
    }
}

fn with_policy(error: StoreError) -> L2Error {
    L2Error {
        error,
        decision: OnFailure::Policy,
    }
}

/// One partition's turn. Whatever ends it, the partition is free for its next turn and those who
/// wait for it are told.
struct Work {
    engine: Arc<Engine>,
    partition: Arc<Partition>,
    kind: WorkKind,
    failure: Option<L2Error>,
}

enum WorkKind {
    Nothing,
    Commit {
        commit: InFlight,
        generation: u64,
    },
    Clear {
        expected: Option<u64>,
    },
    /// The generation is unknown: L2 could not be asked when the changes were made.
    Load,
    Touch,
}

impl Work {
    async fn run_alone(mut self) {
        let engine = self.engine.clone();
        self.failure = match self.kind {
            WorkKind::Clear { expected } => {
                match engine.l2.clear(&self.partition.id, expected).await {
                    Ok(generation) => {
                        let now = engine.clock.now();
                        engine.partitions.with(&self.partition.key, |_, state| {
                            state.cleared(generation, now);
                        });
                        None
                    }
                    Err(failure) => Some(failure),
                }
            }
            WorkKind::Load => engine.load(&self.partition.key).await.1.err(),
            _ => None,
        };
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if matches!(self.kind, WorkKind::Nothing) {
            return;
        }
        let engine = &self.engine;
        let failure = self.failure.take();
        let failed = failure.is_some();
        engine
            .partitions
            .with(&self.partition.key, |partition, state| {
                state.pending.sending = false;
                match failure {
                    Some(failure) => state.pending.tell_failed(failure),
                    None => {
                        state.pending.tell_written();
                        if state.pending.is_dirty() {
                            engine.push(partition, state);
                        }
                    }
                }
            });
        if failed {
            engine.stall(self.partition.clone());
        } else {
            engine.queue.failures.store(0, Ordering::Relaxed);
            engine.wake();
        }
    }
}
