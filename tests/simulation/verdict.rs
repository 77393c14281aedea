//! Whether what an instance says can be true.

use super::client::HARD;
use super::keys::CLOCKS;
use super::model::BOUND;
use super::names::{PARTITIONS, REFRESH};
use super::world::{BASE, State};

/// A read that has ended.
pub struct Read {
    pub by: usize,
    pub partition: usize,
    pub entry: usize,
    pub start: u64,
    /// The wall clock of its instance when it began, or when it ended if that is earlier.
    pub clock: u64,
    /// The store answered all that was asked meanwhile.
    pub clean: bool,
    /// And so promptly, and the second before, that what was out of date was compared with it.
    pub compared: bool,
    pub answer: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Hit(usize),
    Absent,
    Unavailable,
}

impl State {
    pub fn judge_read(&mut self, read: &Read) {
        let Read {
            by,
            partition,
            entry,
            ..
        } = *read;
        self.note(format_args!(
            "i{by} reads p{partition} e{entry} since {}: {:?} {}",
            read.start, read.answer, read.clean
        ));
        let problem = match read.answer {
            Answer::Hit(value) => self.problem_with_hit(read, value),
            Answer::Absent => self.problem_with_absent(read),
            Answer::Unavailable => read
                .clean
                .then_some("is unavailable, but L2 is well".into()),
        };
        if let Some(problem) = problem {
            self.violated(format!("i{by} reads p{partition} e{entry}: {problem}"));
        }
    }

    fn problem_with_hit(&self, read: &Read, number: usize) -> Option<String> {
        let value = &self.model.values[number];
        if self.expiry(number).is_some_and(|at| at <= read.clock) {
            return Some(format!("v{number} has expired"));
        }
        if value.entry != read.entry {
            return Some(format!("v{number} is another entry's"));
        }
        let over = self.problem_with_linked_hit(read, number);
        let over = over.or_else(|| self.problem_with_lost(read, number));
        if over.is_some() {
            return over;
        }
        let partition = &self.model.partitions[read.partition];
        if partition.tainted {
            return None;
        }
        let ready = value.ready.unwrap_or(u64::MAX);
        // What came with a move in memory is as old as it was there.
        let moved = self.has_moved(read.by, read.partition, 0);
        let ended = partition.sign_outs.iter().any(|one| {
            one.by == read.by
                && one.start > ready
                && one.start < read.start
                && one.moved_to.is_none()
                && (value.by == read.by || one.acknowledged.is_some())
        });
        if ended && !moved {
            return Some(format!("v{number} is from before its own sign-out"));
        }
        let from = read.start.saturating_sub(BOUND);
        let own = value.by == read.by && value.applied.is_none();
        if let Some(grant) = value.grant
            && own
            && !self.outlives(read, number)
            && !self.disturbed_since(read.by, grant.asked.saturating_sub(500))
        {
            return Some(format!("v{number} was acquired, and is not in L2"));
        }
        let mut later = self.model.values.iter().enumerate();
        let overwritten = value.grant.is_none()
            && later.any(|(other, one)| {
                other > number
                    && one.by == read.by
                    && one.partition == read.partition
                    && one.entry == read.entry
                    && one.grant.is_none()
                    && one.began > ready
                    && one.ready.is_some_and(|at| at < read.start)
            });
        if own {
            return (overwritten && !moved).then(|| format!("v{number} was overwritten here"));
        }
        // It came with a move in memory of which L2 has not heard.
        let came = moved && value.partition != read.partition;
        if came {
            return None;
        }
        let known = partition.between(read.entry, from, self.now);
        let known = known.contains(&Some(number)) || self.outlives(read, number);
        (read.clean && read.compared && !known).then(|| format!("v{number} is stale, or never was"))
    }

    fn problem_with_absent(&self, read: &Read) -> Option<String> {
        let partition = &self.model.partitions[read.partition];
        if partition.tainted || self.may_be_over(read.partition) {
            return None;
        }
        let from = read.start.saturating_sub(BOUND);
        let lives = |value: &Option<usize>| {
            let end = value.map(|value| self.model.values[value].expires);
            let misjudged = self.misjudges_expiry(read.by);
            end.is_some_and(|end| end.is_none_or(|end| !misjudged && end > self.now + CLOCKS))
        };
        let known = partition.between(read.entry, from, self.now);
        if !known.iter().all(lives) {
            return None;
        }
        let removed = |at: u64| at >= from || self.disturbed_since(read.by, at);
        let mut sign_outs = partition.sign_outs.iter();
        let mut removals = self.model.removals.iter();
        let own = sign_outs.any(|one| one.by == read.by && removed(one.start))
            || removals.any(|(by, number, entry, at)| {
                (*by, *number, *entry) == (read.by, read.partition, read.entry) && removed(*at)
            });
        // What it wrote and could not tell L2, or has no answer to, has expired.
        let unanswered = |at: Option<u64>| at.is_none_or(|at| self.disturbed_since(read.by, at));
        let moved = self.has_moved(read.by, read.partition, 0);
        let expired = self.model.values.iter().any(|one| {
            let own = (one.by, one.partition) == (read.by, read.partition);
            (own || moved)
                && one.entry == read.entry
                && unanswered(one.applied)
                && one
                    .expires
                    .is_some_and(|end| end <= self.now + CLOCKS || self.misjudges_expiry(read.by))
        });
        let own = own || expired;
        (!own).then(|| format!("is absent, but L2 has {known:?}"))
    }

    /// Everything is well and quiet: an instance has to say what the store has.
    pub fn judge_last_read(&mut self, read: &Read) {
        self.judge_read(read);
        let current = self.model.partitions[read.partition].current(read.entry);
        let expected = current.filter(|value| {
            let end = self.model.values[*value].expires;
            end.is_none_or(|end| BASE + end > read.clock)
        });
        let doubtful = current.is_some_and(|value| {
            let end = self.model.values[value].expires;
            let misjudged = self.misjudges_expiry(read.by);
            end.is_some_and(|end| misjudged || end.abs_diff(self.now) <= CLOCKS)
        });
        let partition = &self.model.partitions[read.partition];
        // What has begun under a generation of the past, after the store has lost the sign-out, is of
        // the past for whoever remembers that.
        let forgotten = partition.tainted && partition.revision.0 < partition.latest;
        let doubtful = doubtful || (forgotten && read.answer == Answer::Absent);
        let outlives = matches!(read.answer, Answer::Hit(value) if self.outlives(read, value));
        let doubtful = doubtful || outlives;
        let over = self.expected_of_linked(read.partition);
        let unknown = over.is_none() && self.may_be_over(read.partition);
        let doubtful = doubtful || unknown;
        let answer = over.unwrap_or(expected.map_or(Answer::Absent, Answer::Hit));
        if answer != read.answer && !doubtful {
            self.violated(format!(
                "i{} ends with {:?} for p{} e{}, and L2 with {current:?}",
                read.by, read.answer, read.partition, read.entry
            ));
        }
    }

    /// A commit was acknowledged: L2 has this, or what replaced it.
    pub fn judge_commit(&mut self, number: usize) {
        if let Some(problem) = self.missing(number) {
            self.violated(format!("v{number} was committed, and {problem}"));
        }
    }

    /// Everything is well and quiet: nothing is missing.
    pub fn judge_end(&mut self) {
        for number in 0..self.model.values.len() {
            let value = &self.model.values[number];
            let lives = self.instances[value.by].ended.is_none();
            if value.ready.is_some()
                && value.grant.is_none()
                && lives
                && let Some(problem) = self.missing(number)
            {
                self.violated(format!("v{number} was kept, and {problem}"));
            }
        }
        for number in 0..PARTITIONS {
            let current = self.model.partitions[number].current(REFRESH);
            if let Some(current) = current
                && !self.model.partitions[number].tainted
                && let Some(problem) = self.problem_with_last_refresh_token(current)
            {
                self.violated(format!(
                    "p{number} ends with refresh token v{current}: {problem}"
                ));
            }
        }
    }

    /// Whether it was written while nobody could tell what was signed out before, or went with
    /// something that was: in doubt the sign-out wins.
    pub fn is_blind(&self, number: usize) -> bool {
        let value = &self.model.values[number];
        let with = |one: &super::model::Value| {
            (one.by, one.partition) == (value.by, value.partition) && one.written <= value.written
        };
        let mut others = self.model.values.iter();
        value.blind || others.any(|one| with(one) && one.blind && one.applied.is_none())
    }

    /// Why a value should have reached L2, if it should have and has not.
    fn missing(&self, number: usize) -> Option<String> {
        let value = &self.model.values[number];
        let partition = &self.model.partitions[value.partition];
        if value.applied.is_some() || partition.tainted || self.may_be_over(value.partition) {
            return None;
        }
        let misjudged = self.misjudges_expiry(value.by);
        if value
            .expires
            .is_some_and(|end| misjudged || end <= self.now + CLOCKS)
        {
            return None;
        }
        let same = |by: usize, partition: usize, entry: usize| {
            (by, partition, entry) == (value.by, value.partition, value.entry)
        };
        let replaced = self.model.values.iter().enumerate().any(|(other, one)| {
            other != number
                && same(one.by, one.partition, one.entry)
                && one.ready.is_none_or(|at| at >= value.written)
        });
        let removed = self
            .model
            .removals
            .iter()
            .any(|(by, partition, entry, at)| {
                // It may have waited for L2 before it took effect.
                same(*by, *partition, *entry) && *at + 2 * HARD >= value.began
            });
        // Something else has this name in what the instance has moved here, over what it had.
        let mut others = self.model.values.iter();
        let moved_over = others
            .any(|one| (one.moved || one.partition != value.partition) && one.entry == value.entry)
            && self.has_moved(value.by, value.partition, value.written);
        let mut sign_outs = partition.sign_outs.iter();
        let ended = sign_outs.any(|one| one.by == value.by && one.start >= value.began)
            || partition.cleared_since(value.began.saturating_sub(BOUND))
            || (self.is_blind(number) && !partition.clears.is_empty())
            || self.is_aged(number);
        (!replaced && !moved_over && !removed && !ended).then(|| "is not in L2".into())
    }
}

impl State {
    /// An instance says that it has written everything.
    pub fn judge_shutdown(&mut self, by: usize) {
        for number in 0..self.model.values.len() {
            let value = &self.model.values[number];
            if value.by == by
                && value.ready.is_some()
                && value.grant.is_none()
                && let Some(problem) = self.missing(number)
            {
                self.violated(format!("i{by} has shut down, and v{number} {problem}"));
            }
        }
    }
}
