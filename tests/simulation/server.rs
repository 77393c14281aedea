//! The store as it really is, which can lose what it has acknowledged.

use std::time::Duration;

use tower_token_cache::store::{
    Cleared, Commit, CommitId, Loaded, Origin, Outcome, PartitionId, Raise,
};
use tower_token_cache::{Clock, MemoryStore, StoreError, Timestamp, TokenStore};

use super::model::parse;
use super::names::{PARTITIONS, at_once, names, partitions_under};
use super::world::{BASE, State};

pub struct Server {
    pub store: MemoryStore,
    pub clock: Clock,
    /// What was done, from which a state of the past can be had.
    journal: Vec<(u64, Deed)>,
    /// Commits that it has lost.
    lost: Vec<CommitId>,
    /// The namespace's number, and what partitions are called under it.
    pub number: u64,
    pub ids: Vec<PartitionId>,
}

enum Deed {
    Commit(Commit),
    Clear(PartitionId, Option<u64>, CommitId),
    Touch(Vec<PartitionId>),
    Relocate(Origin, Commit),
}

/// Who has changed a partition, and how.
#[derive(Clone, Copy)]
pub enum Cause {
    Commit(usize),
    /// By whom, and when it was sent.
    Clear(usize, u64),
    MovedAway(usize),
    MovedHere,
}

impl Server {
    pub fn new() -> Self {
        let clock = Clock::manual(Timestamp::from_millis(BASE));
        let store = MemoryStore::with_max_bytes(1 << 24).with_clock(clock.clone());
        let (epoch, number) = names().namespace();
        at_once(store.raise(epoch, Raise::Begin(number), None)).expect("memory never fails");
        Self {
            store,
            clock,
            journal: Vec::new(),
            lost: Vec::new(),
            number,
            ids: names().partitions().to_vec(),
        }
    }

    /// There is another number now.
    pub fn rename(&mut self, number: u64) {
        self.number = number;
        self.ids = partitions_under(number);
    }

    pub fn partition(&self, id: &PartitionId) -> Option<usize> {
        self.ids.iter().position(|known| known == id)
    }

    pub fn content(&self, partition: usize) -> Loaded {
        at_once(self.store.load(std::slice::from_ref(&self.ids[partition])))
            .remove(0)
            .expect("memory never fails")
    }
}

impl State {
    pub fn commit(&mut self, by: usize, group: Vec<Commit>) -> Vec<Result<Outcome, StoreError>> {
        let answers = at_once(self.server.store.commit(&group));
        for (commit, answer) in group.into_iter().zip(&answers) {
            if let Some(number) = self.server.partition(&commit.partition) {
                let changes = commit.changes.iter().map(|change| {
                    let put = change.put.as_ref();
                    let value = put.map(|put| (parse(&put.value), put.expires_at));
                    (names().entry(&change.entry), value)
                });
                let changes: Vec<_> = changes.collect();
                self.note(format_args!(
                    "i{by} commits p{number} {changes:?} id {:?} under {} expecting {:?}: {answer:?}",
                    commit.id.0, commit.generation, commit.expected,
                ));
                if matches!(answer, Ok(Outcome::Committed { .. })) {
                    self.observe(number, Cause::Commit(by));
                }
            }
            self.server.journal.push((self.now, Deed::Commit(commit)));
        }
        answers
    }

    pub fn clear(
        &mut self,
        by: usize,
        sent: u64,
        partition: PartitionId,
        expected: Option<u64>,
        id: CommitId,
    ) -> Result<Cleared, StoreError> {
        let answer = at_once(self.server.store.clear(&partition, expected, id));
        if let Some(number) = self.server.partition(&partition) {
            self.note(format_args!(
                "i{by} clears p{number} expecting {expected:?}: {answer:?}"
            ));
            self.observe(number, Cause::Clear(by, sent));
        }
        self.server
            .journal
            .push((self.now, Deed::Clear(partition, expected, id)));
        answer
    }

    pub fn relocate(
        &mut self,
        by: usize,
        from: Origin,
        commit: Commit,
    ) -> Result<Outcome, StoreError> {
        let answer = at_once(self.server.store.relocate(&from, &commit));
        let (source, target) = (
            self.server.partition(&from.partition),
            self.server.partition(&commit.partition),
        );
        self.note(format_args!(
            "i{by} moves {source:?} to {target:?}: {answer:?}"
        ));
        if matches!(answer, Ok(Outcome::Committed { .. })) {
            for (number, cause) in [(target, Cause::MovedHere), (source, Cause::MovedAway(by))] {
                if let Some(number) = number {
                    self.observe(number, cause);
                }
            }
        }
        self.server
            .journal
            .push((self.now, Deed::Relocate(from, commit)));
        answer
    }

    pub fn raise(
        &mut self,
        by: usize,
        epoch: &PartitionId,
        raise: Raise,
        keep: Option<Duration>,
    ) -> Result<u64, StoreError> {
        let answer = at_once(self.server.store.raise(epoch, raise, keep));
        self.note(format_args!("i{by} raises an epoch: {raise:?} {answer:?}"));
        if let Ok(number) = answer
            && epoch == names().namespace().0
        {
            self.observe_number(by, number);
        }
        answer
    }

    pub fn touch(
        &mut self,
        group: Vec<PartitionId>,
    ) -> Vec<Result<tower_token_cache::store::Remaining, StoreError>> {
        let answers = at_once(self.server.store.touch(&group));
        self.server.journal.push((self.now, Deed::Touch(group)));
        answers
    }

    /// The store loses everything, or what was done in the last so many milliseconds.
    pub fn lose(&mut self, last: Option<u64>) {
        let since = last.map_or(0, |last| self.now.saturating_sub(last));
        let mut server = Server::new();
        server.lost = std::mem::take(&mut self.server.lost);
        let (mut at, mut lost) = (0, 0);
        for (time, deed) in std::mem::take(&mut self.server.journal) {
            if time >= since {
                lost += 1;
                if let Deed::Commit(commit) = deed {
                    server.lost.push(commit.id);
                }
                continue;
            }
            server.clock.advance(Duration::from_millis(time - at));
            at = time;
            match &deed {
                Deed::Commit(commit) => {
                    let _ = at_once(server.store.commit(std::slice::from_ref(commit)));
                }
                Deed::Clear(partition, expected, id) => {
                    let _ = at_once(server.store.clear(partition, *expected, *id));
                }
                Deed::Touch(group) => {
                    let _ = at_once(server.store.touch(group));
                }
                Deed::Relocate(from, commit) => {
                    let _ = at_once(server.store.relocate(from, commit));
                }
            }
            server.journal.push((time, deed));
        }
        server.clock.advance(Duration::from_millis(self.now - at));
        self.server = server;
        self.note(format_args!(
            "the store loses its last {lost} changes ({last:?} ms)"
        ));
        for number in 0..PARTITIONS {
            self.observe_loss(number, last.is_none());
        }
    }
}
