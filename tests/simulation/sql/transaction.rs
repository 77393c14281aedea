//! A transaction as the server gets it, and what becomes of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;
use tower_token_cache::TokenStore;
use tower_token_cache::store::{PartitionId, Revision};

use super::Sql;
use crate::names::at_once;
use crate::world::{State, World};

/// A plan is not carried out later than this after what it was made for was read, as in `SqlStore`.
const VALID: u64 = 1000;
/// A transaction waits no longer for a lock.
const LONGEST_WAIT: u64 = 2000;
/// A commit is seen no later than this after its locks were taken.
const LONGEST_COMMIT: u64 = 3000;

/// A change of partitions, all or none.
pub struct Change<T> {
    of: Vec<PartitionId>,
    apply: Arc<dyn Fn(&mut State) -> T + Send + Sync>,
}

/// A transaction as the server gets it.
pub(super) struct Sent<T> {
    changes: Vec<Change<T>>,
    stamps: Vec<Vec<u64>>,
    not_after: u64,
    server: u64,
}

pub(super) enum Answer<T> {
    /// What has become of each change; `None` where something was written since it was read.
    Done(Vec<Option<T>>),
    /// A deadlock, or a lock that was not to be had: nothing was changed.
    Again,
    ReadOnly,
}

impl<T> Change<T> {
    pub fn new(
        of: Vec<PartitionId>,
        apply: impl Fn(&mut State) -> T + Send + Sync + 'static,
    ) -> Self {
        let apply = Arc::new(apply);
        Self { of, apply }
    }
}

impl<T> Clone for Change<T> {
    fn clone(&self) -> Self {
        Self {
            of: self.of.clone(),
            apply: self.apply.clone(),
        }
    }
}

impl Sql {
    fn stamps<T>(&self, change: &Change<T>) -> Vec<u64> {
        let stamp = |id| self.stamps.get(id).copied().unwrap_or(0);
        change.of.iter().map(stamp).collect()
    }

    fn is_locked<T>(&self, changes: &[Change<T>]) -> bool {
        let mut ids = changes.iter().flat_map(|change| &change.of);
        ids.any(|id| self.locked.contains(id))
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

impl State {
    pub(super) fn plan<T>(&mut self, changes: Vec<Change<T>>) -> Sent<T> {
        let not_after = self.now + VALID;
        let sql = self.sql();
        Sent {
            stamps: changes.iter().map(|change| sql.stamps(change)).collect(),
            changes,
            not_after,
            server: sql.server,
        }
    }

    /// Which changes are due now that the locks are taken: of what is as it was read, in time.
    fn due<T>(&mut self, sent: &Sent<T>) -> Vec<bool> {
        let in_time = self.now <= sent.not_after;
        let sql = self.sql();
        let each = sent.changes.iter().zip(&sent.stamps);
        each.map(|(change, stamps)| in_time && sql.stamps(change) == *stamps)
            .collect()
    }

    fn write<T>(&mut self, change: &Change<T>, numbers: Vec<u64>) -> T {
        let before = self.revisions(&change.of);
        let answer = (change.apply)(self);
        let after = self.revisions(&change.of);
        let written = change.of.iter().zip(numbers).zip(before).zip(after);
        // A commit that was made before is not told again.
        for (((id, number), _), _) in written.filter(|((_, before), after)| before != after) {
            let sql = self.sql();
            *sql.stamps.entry(id.clone()).or_default() += 1;
            sql.log.insert(number, *id.digest());
        }
        answer
    }

    fn revisions(&self, ids: &[PartitionId]) -> Vec<Revision> {
        let revisions = at_once(self.server.store.revisions(ids)).into_iter();
        revisions
            .map(|revision| revision.expect("memory never fails"))
            .collect()
    }
}

/// What the server does with a transaction. It drops `reply` where the connection is cut.
pub(super) async fn carry_out<T>(
    world: World,
    sent: Sent<T>,
    on_its_way: u64,
    reply: oneshot::Sender<Answer<T>>,
) {
    sleep(Duration::from_millis(on_its_way)).await;
    let begun = world.lock().now;
    while world.lock().sql().is_locked(&sent.changes) {
        if world.lock().now > begun + LONGEST_WAIT {
            let _ = reply.send(Answer::Again);
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    let (due, numbers, lasts) = {
        let mut state = world.lock();
        if state.sql().server != sent.server {
            return;
        }
        if state.refuses(false) {
            let _ = reply.send(Answer::ReadOnly);
            return;
        }
        let due = state.due(&sent);
        let sql = state.sql();
        if reply.is_closed() && sql.rng.percent(30) {
            // It has noticed that the client has gone.
            return;
        }
        if sql.rng.percent(sql.refuses) {
            if sql.rng.percent(50) {
                sql.next_number();
            }
            let _ = reply.send(Answer::Again);
            return;
        }
        let lasts = match sql.rng.percent(sql.delays) {
            true => sql.rng.between(50, LONGEST_COMMIT),
            false => 0,
        };
        let mut numbers = Vec::new();
        for (change, is_due) in sent.changes.iter().zip(&due) {
            let of = change.of.iter().filter(|_| *is_due);
            sql.locked.extend(of.clone().cloned());
            numbers.push(of.map(|_| sql.next_number()).collect::<Vec<_>>());
        }
        (due, numbers, lasts)
    };
    sleep(Duration::from_millis(lasts)).await;
    let mut state = world.lock();
    if state.sql().server != sent.server {
        return;
    }
    let mut done = Vec::new();
    for ((change, is_due), numbers) in sent.changes.iter().zip(due).zip(numbers) {
        done.push(is_due.then(|| state.write(change, numbers)));
        for id in change.of.iter().filter(|_| is_due) {
            state.sql().locked.remove(id);
        }
    }
    if reply.is_closed() {
        state.note(format_args!("that was late by {lasts} ms and more"));
    }
    let _ = reply.send(Answer::Done(done));
}
