//! Single keys that the store loses: by eviction, or by hand.

use super::model::BOUND;
use super::names::{PARTITIONS, names};
use super::users::USERS;
use super::verdict::Read;
use super::world::State;

/// What is lost in a run: of one kind, because two at once are a loss of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    Nothing,
    /// The namespace's number.
    Marker,
    /// Sessions, and what is left of those that were signed out.
    Session,
    /// Users' epochs.
    User,
}

/// Clocks differ by two seconds at most, and are late by moments.
pub const CLOCKS: u64 = 3000;

impl State {
    /// The store loses one key of this kind.
    pub fn lose_key(&mut self, kind: Lost) {
        match kind {
            Lost::Nothing => {}
            Lost::Marker => {
                self.server.store.forget(names().namespace().0);
                self.model.marker_lost = true;
                self.note(format_args!("the store loses the marker"));
            }
            Lost::Session => {
                let number = self.rng.below(PARTITIONS);
                self.server.store.forget(&self.server.ids[number]);
                self.note(format_args!("the store loses p{number}"));
                self.observe_lost_session(number);
            }
            Lost::User => {
                let user = self.rng.below(USERS);
                self.server.store.forget(names().user(user));
                self.note(format_args!("the store loses u{user}"));
                self.lose_user(user);
            }
        }
    }

    fn observe_lost_session(&mut self, number: usize) {
        let now = self.now;
        let partition = &mut self.model.partitions[number];
        if partition.revision == (0, 0) {
            return;
        }
        partition.revision = (0, 0);
        partition.tainted = true;
        partition.lost = Some(now);
        self.empty(number);
    }

    fn empty(&mut self, number: usize) {
        let now = self.now;
        let partition = &mut self.model.partitions[number];
        partition.forget_past();
        for cell in &mut partition.cells {
            cell.push((now, None));
        }
    }

    /// The store has another number of the namespace: everybody is signed out.
    pub fn observe_number(&mut self, by: usize, number: u64) {
        if number == self.server.number {
            return;
        }
        self.note(format_args!("i{by} begins another number: {number}"));
        self.server.rename(number);
        self.model.renamed = Some((by, self.now));
        for number in 0..PARTITIONS {
            self.empty(number);
            let partition = &mut self.model.partitions[number];
            partition.revision = (0, 0);
            partition.latest = 0;
            partition.tainted = true;
            partition.clears.push(self.now);
        }
    }

    /// Whether what was before a number is written under it.
    pub fn problem_with_number(&self, new: usize) -> Option<String> {
        let (by, at) = self.model.renamed?;
        let value = &self.model.values[new];
        let number = self.server.number;
        if value.number.is_some_and(|under| under != number) {
            return Some(format!("v{new} was signed out with everybody, and is back"));
        }
        let before = value.ready.is_some_and(|ready| ready + CLOCKS < at);
        (before && value.by != by).then(|| format!("v{new} is from before the number"))
    }

    /// What was signed out is not served because its tombstone is lost.
    pub fn problem_with_lost(&self, read: &Read, number: usize) -> Option<String> {
        let partition = &self.model.partitions[read.partition];
        let value = &self.model.values[number];
        let (lost, ready, applied) = (partition.lost?, value.ready?, value.applied?);
        let signed_out = partition.sign_outs.iter().any(|one| {
            let known = |at: u64| at < lost && at + BOUND < read.start;
            one.start > ready && one.start > applied && one.acknowledged.is_some_and(known)
        });
        (read.clean && signed_out).then(|| format!("v{number} was signed out, and that was lost"))
    }

    /// What was in a session that is lost does not come back, signed out or not.
    pub fn problem_with_recovery(&self, number: usize, new: usize, by: usize) -> Option<String> {
        let lost = self.model.partitions[number].lost?;
        let value = &self.model.values[new];
        // A commit without an answer is repeated, and begins a session anew.
        let unanswered = self.disturbed_since(by, value.written.saturating_sub(BOUND));
        let back = value.applied.is_some_and(|at| at < lost) && !unanswered;
        back.then(|| format!("v{new} was lost with p{number}, and is back through i{by}"))
    }
}
