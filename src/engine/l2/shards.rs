//! The parts of the store that fail apart. Each shard has a breaker for reads, one for writes, and a pace.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::engine::l2::breaker::{Breaker, BreakerState};
use crate::engine::l2::pace::Pace;
use crate::engine::sync::allowance::LastAnswer;
use crate::policy::L2Operation;
use crate::reasons::Reasons;

/// Shards that are kept at most: more than a cluster can sensibly have.
const MAX_SHARDS: usize = 1000;
/// Calls at a time that take or release a lease: 3,000 a second to a store 20 ms away.
const MAX_LEASES: usize = 64;
/// A shard that was not asked for this long says nothing about the store: a failover may have replaced it.
/// Longer than the longest interval between looks at the namespace's number.
const FORGOTTEN: Duration = Duration::from_secs(300);
/// A shard that was not asked for this long, while others were, has no users now: most likely its partitions
/// have moved to another one.
const IDLE: Duration = Duration::from_secs(10);

/// The shards that were asked so far, by number.
#[derive(Default)]
pub(crate) struct Shards(Mutex<HashMap<usize, Arc<Shard>>>);

/// A part of the store that fails as a whole.
pub(crate) struct Shard {
    reads: Way,
    writes: Way,
    /// The pace of reads.
    pub(crate) pace: Pace,
    /// Bounds the calls that take or release a lease, each of one. One that waits here is not
    /// open yet, and does not delay the answers of the others. Renewals have a deadline, and do not wait.
    pub(crate) leases: Semaphore,
    asked: Mutex<Instant>,
}

/// Reads or writes of a shard. A server that refuses writes may still answer reads.
#[derive(Default)]
pub(crate) struct Way {
    pub(crate) breaker: Breaker,
    pub(crate) last_answer: LastAnswer,
    /// The reasons that were logged already.
    pub(crate) reasons: Reasons,
}

impl Shard {
    fn new() -> Self {
        Self {
            reads: Way::default(),
            writes: Way::default(),
            pace: Pace::default(),
            leases: Semaphore::new(MAX_LEASES),
            asked: Mutex::new(Instant::now()),
        }
    }

    pub(crate) fn way(&self, operation: L2Operation) -> &Way {
        match reads(operation) {
            true => &self.reads,
            false => &self.writes,
        }
    }

    /// Whether it has answered anything since then.
    pub(crate) fn answers_since(&self, moment: Instant) -> bool {
        let mut ways = self.ways().into_iter();
        ways.any(|way| way.last_answer.is_after(moment))
    }

    /// Whether it has taken a change or given a lease since then.
    pub(crate) fn takes_changes_since(&self, moment: Instant) -> bool {
        self.writes.last_answer.is_after(moment)
    }

    /// `Some` if a request that memory can serve goes on without asking, because the shard is known not to
    /// answer; the bool says whether to probe it in the background. A request whose partition is
    /// `contradicted` asks until the breaker opens.
    pub(crate) fn short_circuits(&self, contradicted: bool) -> Option<bool> {
        let silent = || self.pace.short_circuits().filter(|_| !contradicted);
        self.reads.breaker.short_circuits().or_else(silent)
    }

    /// A read was answered. Without a write to make, nothing else would find out that writes are answered,
    /// too.
    pub(crate) fn answered(&self) {
        self.writes.breaker.relent();
    }

    /// Reads are answered again after an outage.
    pub(crate) fn recovered(&self) {
        self.writes.breaker.probe_soon();
    }

    fn ways(&self) -> [&Way; 2] {
        [&self.reads, &self.writes]
    }
}

pub(crate) fn reads(operation: L2Operation) -> bool {
    operation == L2Operation::Load
}

impl Shards {
    /// The shard of this number. Notes that it is about to be asked.
    pub(crate) fn get(&self, number: usize) -> Arc<Shard> {
        let mut shards = self.0.lock();
        if shards.len() >= MAX_SHARDS && !shards.contains_key(&number) {
            shards.clear();
        }
        let shard = shards.entry(number);
        let shard = shard.or_insert_with(|| Arc::new(Shard::new()));
        *shard.asked.lock() = Instant::now();
        shard.clone()
    }

    /// Whether more than one shard is known.
    pub(crate) fn are_several(&self) -> bool {
        self.0.lock().len() > 1
    }

    /// Whether no shard is known not to answer.
    pub(crate) fn answer(&self) -> bool {
        let shards = self.0.lock();
        shards
            .values()
            .all(|shard| shard.short_circuits(false).is_none())
    }

    /// The worst state of the shards in use.
    pub(crate) fn state(&self) -> BreakerState {
        let severity = |state: &BreakerState| match state {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        };
        let shards = self.current();
        let asked = |shard: &Arc<Shard>| *shard.asked.lock();
        let last = shards.iter().map(asked).max();
        let in_use = |shard: &&Arc<Shard>| last.is_some_and(|last| last < asked(shard) + IDLE);
        let ways = shards.iter().filter(in_use).flat_map(|shard| shard.ways());
        let states = ways.map(|way| way.breaker.state());
        states.max_by_key(severity).unwrap_or_default()
    }

    /// Whether no shard takes writes now.
    pub(crate) fn refuse_writes(&self) -> bool {
        let shards = self.current();
        !shards.is_empty() && shards.iter().all(|shard| shard.writes.breaker.is_open())
    }

    /// Whether every shard takes writes.
    pub(crate) fn take_writes(&self) -> bool {
        let closed = |shard: &Arc<Shard>| shard.writes.breaker.state() == BreakerState::Closed;
        self.current().iter().all(closed)
    }

    /// The store may be back.
    pub(crate) fn probe_soon(&self) {
        for shard in self.current() {
            shard.ways().iter().for_each(|way| way.breaker.probe_soon());
        }
    }

    /// Closes all breakers.
    pub(crate) fn reset(&self) {
        for shard in self.current() {
            shard.ways().iter().for_each(|way| way.breaker.reset());
        }
    }

    fn current(&self) -> Vec<Arc<Shard>> {
        let mut shards = self.0.lock();
        shards.retain(|_, shard| shard.asked.lock().elapsed() < FORGOTTEN);
        shards.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(way: &Way) {
        for _ in 0..5 {
            let attempt = way.breaker.attempt().expect("closed");
            attempt.failed();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_state_is_the_worst_of_the_shards_that_are_asked() {
        let shards = Shards::default();
        let [dead, alive] = [1, 2].map(|number| shards.get(number));
        assert_eq!(shards.state(), BreakerState::Closed);
        fail(dead.way(L2Operation::Load));
        assert_eq!(shards.state(), BreakerState::Open);
        assert!(dead.way(L2Operation::Commit).breaker.attempt().is_some());
        assert!(alive.way(L2Operation::Load).breaker.attempt().is_some());

        fail(dead.way(L2Operation::Commit));
        assert!(!shards.refuse_writes(), "one of two does");
        assert!(!shards.take_writes());
        tokio::time::advance(FORGOTTEN / 2).await;
        assert_ne!(shards.state(), BreakerState::Closed, "neither was asked");
        shards.get(2);
        assert_eq!(shards.state(), BreakerState::Closed, "the other one is");
        shards.get(1);
        assert_ne!(shards.state(), BreakerState::Closed, "both are");
    }
}
