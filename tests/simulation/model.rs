//! What is known to be true: every value that was ever written, and the history of the store.

use super::names::{ENTRIES, PARTITIONS, REFRESH, names};
use super::server::Cause;
use super::users::{USERS, User};
use super::world::{BASE, State};

/// After this time, in milliseconds, a change has reached every instance that can ask L2: three
/// seconds until a silent feed is believed no more, one in which nothing is compared twice, and what
/// messages, loads and timers may take.
pub const BOUND: u64 = 6000;

#[derive(Default)]
pub struct Model {
    pub values: Vec<Value>,
    pub partitions: [Partition; PARTITIONS],
    /// Removals, by whom, of what, and when they began.
    pub removals: Vec<(usize, usize, usize, u64)>,
    pub users: [User; USERS],
    /// The store has lost the namespace's number.
    pub marker_lost: bool,
    /// Who began the number that there is, and when, if it is not the first.
    pub renamed: Option<(usize, u64)>,
}

/// A token that was written or issued. Its text is its number.
pub struct Value {
    pub partition: usize,
    pub entry: usize,
    pub by: usize,
    /// In milliseconds of the run.
    pub expires: Option<u64>,
    /// When the handle that wrote it first used the partition, or the provider was asked.
    pub began: u64,
    /// When the write began.
    pub written: u64,
    /// When the write had returned.
    pub ready: Option<u64>,
    /// The store failed its instance about when it was written.
    pub blind: bool,
    pub grant: Option<Grant>,
    /// It was written to another partition.
    pub moved: bool,
    pub applied: Option<u64>,
    /// The generation, and the number of the namespace, in which the store got it.
    pub generation: Option<u64>,
    pub number: Option<u64>,
}

/// Where a value came from that the provider gave.
#[derive(Clone, Copy)]
pub struct Grant {
    /// The refresh token that it was given for.
    pub prior: Option<usize>,
    pub asked: u64,
}

#[derive(Default)]
pub struct Partition {
    /// What each entry was in the store, from when on.
    pub cells: [Vec<(u64, Option<usize>)>; ENTRIES],
    /// What was replaced or removed in this generation.
    past: Vec<usize>,
    pub revision: (u64, u64),
    /// When it was signed out in the store.
    pub clears: Vec<u64>,
    pub sign_outs: Vec<SignOut>,
    /// What was written before must never be in the store again.
    barrier: u64,
    /// The store has lost something of it: what it may hold is not known for certain.
    pub tainted: bool,
    /// The latest generation that there was.
    pub latest: u64,
    /// It has lost everything, then.
    wiped: Option<u64>,
    /// It has lost this key alone, then.
    pub lost: Option<u64>,
}

pub struct SignOut {
    pub by: usize,
    pub start: u64,
    pub acknowledged: Option<u64>,
    /// Its instance holds to it: a move may fail.
    pub made: bool,
    /// Where everything was moved to.
    pub moved_to: Option<usize>,
}

pub fn text(kind: char, value: usize) -> String {
    format!("~{kind}{value:06}~")
}

/// The number of the value whose text is in these bytes.
pub fn parse(bytes: &[u8]) -> Option<usize> {
    bytes.windows(9).find_map(|part| {
        let [b'~', b'a' | b'r', digits @ .., b'~'] = part else {
            return None;
        };
        std::str::from_utf8(digits).ok()?.parse().ok()
    })
}

impl Partition {
    pub fn forget_past(&mut self) {
        self.past.clear();
    }

    pub fn current(&self, entry: usize) -> Option<usize> {
        self.cells[entry].last().and_then(|(_, value)| *value)
    }

    /// What the entry was at any time in between.
    pub fn between(&self, entry: usize, from: u64, to: u64) -> Vec<Option<usize>> {
        let cells = &self.cells[entry];
        let first = cells.iter().rposition(|(at, _)| *at <= from);
        let mut found = match first {
            None => vec![None],
            Some(_) => Vec::new(),
        };
        let rest = cells[first.unwrap_or(0)..].iter();
        found.extend(
            rest.take_while(|(at, _)| *at <= to)
                .map(|(_, value)| *value),
        );
        found
    }

    pub fn cleared_since(&self, time: u64) -> bool {
        self.clears.iter().any(|at| *at >= time)
    }
}

impl State {
    pub fn new_value(&mut self, value: Value) -> usize {
        self.model.values.push(value);
        self.model.values.len() - 1
    }

    fn found(&self, number: usize) -> ([Option<usize>; ENTRIES], (u64, u64)) {
        let content = self.server.content(number);
        let mut found = [None; ENTRIES];
        for stored in &content.entries {
            if let Some(entry) = names().entry(&stored.entry) {
                found[entry] = parse(&stored.value);
            }
        }
        (found, (content.generation, content.version))
    }

    /// A partition has changed in the store.
    pub fn observe(&mut self, number: usize, cause: Cause) {
        let (found, revision) = self.found(number);
        let partition = &mut self.model.partitions[number];
        let before = std::mem::replace(&mut partition.revision, revision);
        let cells = &self.model.partitions[number].cells;
        let mut current = cells.iter().filter_map(|cell| cell.last()?.1);
        // A partition that has ended is forgotten, and begins anew.
        let over = current.all(|value| {
            let end = self.model.values[value].expires;
            end.is_some_and(|end| end <= self.now)
        });
        let empty = found.iter().all(Option::is_none);
        let tainted = self.model.partitions[number].tainted;
        if revision < before && !over && !empty && !tainted {
            self.violated(format!(
                "p{number} went from {before:?} back to {revision:?}"
            ));
        }
        let cleared = revision.0 > before.0;
        match cause {
            Cause::Clear(by, sent) if cleared => self.cleared(number, by, Some(sent)),
            Cause::MovedAway(by) if cleared => self.cleared(number, by, None),
            _ => {}
        }
        let partition = &mut self.model.partitions[number];
        partition.latest = partition.latest.max(revision.0);
        for (entry, value) in found.into_iter().enumerate() {
            let old = self.model.partitions[number].current(entry);
            if value == old {
                continue;
            }
            if let Some(value) = value {
                match cause {
                    Cause::MovedHere => self.moved(number, value),
                    Cause::Commit(by) => self.judge(number, entry, old, value, by),
                    _ => self.violated(format!("a sign-out wrote v{value} to p{number}")),
                }
                let number = self.server.number;
                let value = &mut self.model.values[value];
                value.applied.get_or_insert(self.now);
                value.generation.get_or_insert(revision.0);
                value.number.get_or_insert(number);
            }
            let partition = &mut self.model.partitions[number];
            partition.cells[entry].push((self.now, value));
            partition.past.extend(old.filter(|_| !cleared));
        }
    }

    /// A sign-out has reached the store, or a move that takes the partition away.
    fn cleared(&mut self, number: usize, by: usize, sent: Option<u64>) {
        let now = self.now;
        let partition = &mut self.model.partitions[number];
        partition.clears.push(now);
        partition.past.clear();
        let started = partition.sign_outs.iter();
        let meant = |one: &&SignOut| match sent {
            Some(sent) => one.by == by && one.made && one.start < sent,
            None => one.by == by,
        };
        let started = started.filter(meant).map(|one| one.start).max();
        partition.barrier = partition.barrier.max(started.unwrap_or(0));
    }

    fn moved(&mut self, number: usize, value: usize) {
        let now = self.now;
        let value = &mut self.model.values[value];
        value.partition = number;
        value.moved = true;
        (value.began, value.written, value.ready) = (now, now, Some(now));
    }

    /// Whether a value may take the place of what an entry was.
    fn judge(&mut self, number: usize, entry: usize, old: Option<usize>, new: usize, by: usize) {
        // What was moved may be written again where it was, once the store has lost the move.
        let value = &self.model.values[new];
        let strayed = value.moved && self.model.partitions[number].tainted;
        if value.partition != number {
            let partition = &self.model.partitions[number];
            let mut left = partition.sign_outs.iter();
            // Sent before it was moved away in memory, and late: it is still to be cleared.
            let is_late = left.any(|one| {
                let cleared = |at: u64| partition.cleared_since(at);
                (one.by, one.moved_to) == (by, Some(value.partition))
                    && !one.acknowledged.is_some_and(cleared)
            });
            match self.has_moved(by, number, 0) {
                true => return self.moved(number, new),
                false if is_late => return,
                false if strayed => {}
                false => {
                    self.violated(format!("v{new} came to p{number}, where it is not at home"));
                }
            }
        }
        let partition = &self.model.partitions[number];
        let value = &self.model.values[new];
        let age = value.ready.unwrap_or(self.now);
        let linked = self.problem_with_linked_commit(number, new);
        if let Some(problem) = linked.or_else(|| self.problem_with_number(new)) {
            return self.violated(format!("{problem} through i{by}"));
        }
        if partition.tainted {
            return self.judge_recovery(number, new, by);
        }
        // What an instance moves in memory is as old as its memory, and may have been here before.
        let mut moves = self.model.partitions.iter().flat_map(|one| &one.sign_outs);
        let moved = moves.any(|one| {
            one.by == by && one.moved_to == Some(number) && one.start >= partition.barrier
        });
        if moved && (age < partition.barrier || partition.past.contains(&new)) {
            return self.moved(number, new);
        }
        if age < partition.barrier {
            let barrier = partition.barrier;
            return self.violated(format!(
                "v{new} of {age} ms was brought back to p{number} by i{by}, signed out at {barrier} ms"
            ));
        }
        if partition.past.contains(&new) {
            return self.violated(format!(
                "v{new} was replaced in p{number}, and is back through i{by}"
            ));
        }
        let Some(old) = old else { return };
        let replaced = &self.model.values[old];
        let plain = value.grant.is_none() && replaced.grant.is_none();
        let plain = plain && !value.moved && !replaced.moved;
        if plain && replaced.by == value.by && replaced.written > age {
            return self.violated(format!("i{by} wrote v{new} over its own newer v{old}"));
        }
        if let Some(grant) = value.grant
            && entry == REFRESH
            && grant.prior != Some(old)
            && !self.disturbed_since(by, grant.asked.saturating_sub(4000))
        {
            self.violated(format!(
                "v{new}, given for {:?}, replaced v{old} in p{number}",
                grant.prior
            ));
        }
    }

    /// What the store has lost may be written again by whoever has it, but not what was signed out
    /// before, where that could be known.
    fn judge_recovery(&mut self, number: usize, new: usize, by: usize) {
        if let Some(problem) = self.problem_with_recovery(number, new, by) {
            return self.violated(problem);
        }
        let partition = &self.model.partitions[number];
        let Some(wiped) = partition.wiped else { return };
        let age = self.model.values[new].ready.unwrap_or(self.now);
        let gaps = &self.instances[by].gaps;
        let known = |one: &SignOut| {
            let Some(at) = one.acknowledged else {
                return false;
            };
            // A gap in which both happened looks like one of the loss.
            let hidden = gaps
                .iter()
                .any(|(from, to)| *from <= at + 1000 && *to + 1000 >= wiped);
            one.start > age && at + BOUND < wiped && !hidden
        };
        // What L2 never had is not recovered, but replayed: the loss of the tombstone lets it in.
        let recovered = self.model.values[new].applied.is_some();
        if recovered && partition.sign_outs.iter().any(known) {
            self.violated(format!(
                "v{new} of p{number} was signed out, lost, and brought back by i{by}"
            ));
        }
    }

    /// The store has lost data.
    pub fn observe_loss(&mut self, number: usize, everything: bool) {
        let (found, revision) = self.found(number);
        let now = self.now;
        let partition = &mut self.model.partitions[number];
        if partition.revision == revision {
            return;
        }
        partition.revision = revision;
        // An earlier loss may have been of the sign-out itself.
        let first = !std::mem::replace(&mut partition.tainted, true);
        partition.wiped = (first && everything).then_some(now);
        partition.past.clear();
        for (entry, value) in found.into_iter().enumerate() {
            if partition.current(entry) != value {
                partition.cells[entry].push((now, value));
            }
        }
    }

    /// A sign-out begins; its place in the list.
    pub fn begin_sign_out(&mut self, by: usize, number: usize, moved_to: Option<usize>) -> usize {
        let sign_outs = &mut self.model.partitions[number].sign_outs;
        sign_outs.push(SignOut {
            by,
            start: self.now,
            acknowledged: None,
            made: moved_to.is_none(),
            moved_to,
        });
        sign_outs.len() - 1
    }

    /// Whether this instance has moved something to this partition, and was not done with it before.
    pub fn has_moved(&self, by: usize, to: usize, since: u64) -> bool {
        let mut moves = self.model.partitions.iter().flat_map(|one| &one.sign_outs);
        moves.any(|one| {
            let going = one.acknowledged.is_none_or(|at| at >= since);
            one.by == by && one.moved_to == Some(to) && going
        })
    }

    /// A sign-out was acknowledged: from now on it is final.
    pub fn end_sign_out(&mut self, number: usize, place: usize) {
        let now = self.now;
        let (found, _) = self.found(number);
        let partition = &mut self.model.partitions[number];
        partition.sign_outs[place].acknowledged = Some(now);
        if partition.tainted {
            return;
        }
        let start = partition.sign_outs[place].start;
        partition.barrier = partition.barrier.max(start);
        for value in found.into_iter().flatten() {
            let value_of = &self.model.values[value];
            let before = value_of.ready.is_some_and(|at| at < start);
            if before {
                self.violated(format!("v{value} is in p{number}, which was signed out"));
            }
        }
    }

    /// A value's expiry, on the wall clock that nobody has.
    pub fn expiry(&self, value: usize) -> Option<u64> {
        self.model.values[value].expires.map(|at| BASE + at)
    }
}
