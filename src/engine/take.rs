//! Taking a session value: of any number of callers, on any instance, one gets it.
//!
//! L2 decides. The commit that marks the value as taken expects the version that was read, and the caller gets the
//! value once L2 has acknowledged it. The mark has the expiry of the value: it keeps a repeated write of the value,
//! whose first reply was lost, from bringing it back.

use std::slice;
use std::sync::Arc;
use std::time::Duration;

use crate::codec::Value;
use crate::engine::core::Engine;
use crate::engine::error::L2Error;
use crate::engine::load::fetch::{Hold, MAX_READS};
use crate::engine::namespace::Number;
use crate::engine::partition::acks::CommitReply;
use crate::engine::partition::change::CommitBase;
use crate::engine::partition::life::Life;
use crate::engine::partition::observed::Observed;
use crate::error::{Error, StoreErrorKind};
use crate::key::{PartitionKey, TokenKey};
use crate::lookup::Lookup;
use crate::mutation::{self, Mutation};
use crate::policy::FailurePolicy;
use crate::random::{SLIGHTLY, jittered};
use crate::secret::Secret;
use crate::store::{Commit, Expected, Outcome};

/// Attempts at one commit whose reply is lost.
const MAX_ATTEMPTS: u32 = 3;
const FIRST_BACKOFF: Duration = Duration::from_millis(20);

/// The partition was signed out after the handle first used it.
struct SignedOut;

/// An entry as L2 has it.
struct Source {
    value: Lookup<Value>,
    version: u64,
    /// This process has changed the entry, and L2 does not have the change.
    waits: bool,
    under: Option<Number>,
    generation: u64,
    life: Option<Life>,
    base: CommitBase,
    observed: Observed,
}

impl Value {
    /// What stands in the place of a session value that was taken.
    fn taken(&self) -> Self {
        Self::secret("".into(), self.expires_at())
    }

    /// The JSON text of a session value, unless it was taken.
    pub(crate) fn session_value(&self) -> Option<&Secret> {
        self.as_secret().filter(|text| !text.is_empty())
    }
}

impl Engine {
    /// Takes a session value. It goes on if the caller stops waiting: then the value is gone.
    pub(crate) async fn take(
        self: &Arc<Self>,
        key: &PartitionKey,
        name: &TokenKey,
        policy: FailurePolicy,
        observed: &mut Option<Observed>,
    ) -> Result<Lookup<Secret>, Error> {
        if self.queue.is_closed() {
            return Err(Error::ShutDown);
        }
        if let Some(taken) = self.take_here(key, name, policy) {
            return Ok(taken);
        }
        let degrades = policy == FailurePolicy::Degrade;
        if degrades && observed.is_some_and(|observed| observed.gave_up_on_l2(self.now())) {
            return Ok(Lookup::Unavailable);
        }
        let (key, name, mut seen) = (key.clone(), name.clone(), *observed);
        let takes = |engine: Arc<Self>| async move {
            let taken = engine.take_from_l2(&key, &name, &mut seen).await;
            (taken, seen)
        };
        let deadline = self.deadline() + self.l2.timeouts.operation;
        let taken = match self.detached(deadline, takes).await {
            Ok((taken, seen)) => {
                *observed = seen;
                taken
            }
            Err(failure) => Err(failure),
        };
        match taken {
            Ok(taken) => taken.map_err(|SignedOut| Error::SignedOut),
            Err(failure) => {
                self.degrade(policy, failure)?;
                if let Some(observed) = observed {
                    observed.note_l2_failure(self.now());
                }
                Ok(Lookup::Unavailable)
            }
        }
    }

    /// Takes a value that only this process has. Under [`FailurePolicy::Bypass`] there are no others to be had.
    fn take_here(
        self: &Arc<Self>,
        key: &PartitionKey,
        name: &TokenKey,
        policy: FailurePolicy,
    ) -> Option<Lookup<Secret>> {
        // If its user is known to be signed out, this ends the session.
        self.find(key);
        let now = self.now();
        let local = policy == FailurePolicy::Bypass;
        let taken = self.partitions.with_known(key, |state| {
            let entry = state.entries.get(name.as_ref())?;
            let text = entry.value.session_value();
            let text = text.filter(|_| entry.is_unexpired(now.wall)).cloned();
            if !entry.local {
                // L2 decides about it, and is not to be asked.
                return local.then(|| text.map_or(Lookup::Absent, |_| Lookup::Unavailable));
            }
            state.apply(name.clone(), None, true);
            Some(text.map_or(Lookup::Absent, Lookup::Hit))
        });
        let taken = taken.flatten();
        match local {
            true => Some(taken.unwrap_or(Lookup::Absent)),
            false => taken,
        }
    }

    async fn take_from_l2(
        self: &Arc<Self>,
        key: &PartitionKey,
        name: &TokenKey,
        observed: &mut Option<Observed>,
    ) -> Result<Result<Lookup<Secret>, SignedOut>, L2Error> {
        let _held = Hold::new(self, key);
        for _ in 0..MAX_READS {
            let source = self.read_source(key, name).await?;
            let seen = *observed.get_or_insert(source.observed);
            let ended = self
                .partitions
                .with(key, |_, state| state.signed_out_since(&seen));
            // Where L1 does not keep the partition, only what was read from L2 shows the sign-out.
            if ended || seen.is_before(&source.observed) {
                return Ok(Err(SignedOut));
            }
            let value = match &source.value {
                Lookup::Hit(value) => value,
                other => return Ok(Ok(other.as_ref().filter_map(|_| None))),
            };
            let Some(text) = value.session_value() else {
                return Ok(Ok(Lookup::Absent));
            };
            let Some(under) = source.under.filter(|_| !source.waits) else {
                continue;
            };
            let mark = value.taken();
            let commit = self.commit_of_take(key, name, &mark, &source, under);
            let id = commit.id;
            let reply = match self.commit_again(commit).await? {
                Outcome::Committed {
                    version,
                    previous,
                    life,
                    remaining,
                } => CommitReply {
                    version,
                    previous,
                    life: self.l2.life(life),
                    remaining,
                },
                Outcome::Stale { .. } => return Ok(Err(SignedOut)),
                // Another caller was faster, or L2 no longer has what was read.
                Outcome::Conflict | Outcome::Lost => continue,
            };
            self.counters.flushed_changes.add(1);
            let now = self.now();
            let applied = self.partitions.with_under(key, under, |_, state| {
                let ended = state.signed_out_since(&source.observed);
                if !ended {
                    state.follow(id, source.base, reply, now, &self.rules);
                    state.apply(name.clone(), Some(mark), false);
                    state.overlay_pending();
                }
                !ended
            });
            return Ok(match applied {
                Some(true) => Ok(Lookup::Hit(text.clone())),
                _ => Err(SignedOut),
            });
        }
        Err(L2Error::lost())
    }

    /// Reads the entry from L2, after the pending changes of the partition are written.
    async fn read_source(
        self: &Arc<Self>,
        key: &PartitionKey,
        name: &TokenKey,
    ) -> Result<Source, L2Error> {
        self.flush(key).await?;
        let era = self.rules.trust.era();
        let (mut source, versions) = self
            .fetch(key, |state, now| Source {
                value: state.answer_as_read(name.as_ref(), now),
                version: 0,
                waits: state.waits(name.as_ref()),
                under: state.number,
                generation: state.generation.unwrap_or(0),
                life: state.life_at(now.moment),
                base: CommitBase {
                    version: state.version,
                    commit: state.commit,
                    era,
                    asked_at: now.moment,
                },
                observed: state.observe(now),
            })
            .await?;
        let entry = self.l2.entry_id(name.as_ref());
        match versions.iter().find(|(id, _)| *id == entry) {
            Some((_, version)) => source.version = *version,
            // L2 does not have what memory has.
            None if source.value.is_hit() => source.waits = true,
            None => {}
        }
        Ok(source)
    }

    fn commit_of_take(
        &self,
        key: &PartitionKey,
        name: &TokenKey,
        mark: &Value,
        source: &Source,
        under: Number,
    ) -> Commit {
        let partition = self.l2.id(key, under);
        let writer = self.l2.codec.writer(&partition, source.generation);
        let kept = Some(mark).filter(|_| !mutation::is(Mutation::TakenWithoutMark));
        let change = writer.change(name.as_ref(), kept);
        let expected = Expected::new(change.entry, source.version);
        let expected = Some(expected).filter(|_| !mutation::is(Mutation::TakeWithoutCompareAndSet));
        let sealed = self.l2.codec.seals();
        let life = source.life.filter(|life| life.sealed == sealed);
        Commit {
            id: self.queue.next_id(),
            generation: source.generation,
            expected,
            life: life.map(|life| life.id),
            repeats: None,
            base: source.base.version,
            changes: vec![change],
            lifetime: self.lifetime_of(key),
            partition,
        }
    }

    /// Sends the commit, and again under its id where the reply was lost.
    async fn commit_again(&self, mut commit: Commit) -> Result<Outcome, L2Error> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let answers = self.l2.commit(slice::from_ref(&commit)).await;
            let answer = answers.and_then(|mut answers| {
                let answer = answers.pop().map(|answer| answer.map_err(L2Error::from));
                answer.unwrap_or_else(|| Err(L2Error::lost()))
            });
            let failure = match answer {
                Ok(outcome) => return Ok(outcome),
                Err(failure) => failure,
            };
            let answered = matches!(
                failure.error.kind(),
                StoreErrorKind::Refused | StoreErrorKind::CircuitOpen
            );
            if answered || attempt >= MAX_ATTEMPTS {
                return Err(failure);
            }
            commit.repeats = Some(commit.base);
            let pause = FIRST_BACKOFF * 2_u32.pow(attempt - 1);
            tokio::time::sleep(jittered(pause, SLIGHTLY)).await;
        }
    }
}
