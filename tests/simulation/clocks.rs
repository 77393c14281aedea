//! Clocks that are set, machines that sleep and processes that are stopped, and what that excuses.

use std::time::Duration;

use tower_token_cache::Timestamp;

use super::verdict::Read;
use super::world::{BASE, Instance, SILENCE, State, World};

const HOUR: i64 = 3_600_000;

impl World {
    /// Waits until an instance is awake, and has had a look at its clocks.
    pub async fn awake(&self, instance: usize) {
        loop {
            let rest = self.lock().sleeps_for(instance);
            if rest == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(rest)).await;
            drop(self.lock());
            tokio::task::yield_now().await;
        }
    }
}

impl Instance {
    /// Until when its machine sleeps, or has slept last.
    pub fn asleep_until(&self) -> u64 {
        self.sleeps.last().map_or(0, |(_, until)| *until)
    }
}

impl State {
    pub fn pass(&mut self, now: u64) {
        let before = std::mem::replace(&mut self.now, now);
        if before == now {
            return;
        }
        self.server
            .clock
            .advance(Duration::from_millis(now - before));
        for (number, instance) in self.instances.iter().enumerate() {
            let until = instance.asleep_until();
            let asleep = before < until && instance.stands_still;
            let since = match asleep {
                true => until.min(now),
                false => before,
            };
            instance.clock.advance(Duration::from_millis(now - since));
            if asleep && now >= until {
                instance.clock.set(self.wall_of(number));
            }
        }
    }

    fn wall_of(&self, instance: usize) -> Timestamp {
        Timestamp::from_millis(self.clock_of(instance))
    }

    /// The wall clock of an instance.
    pub fn clock_of(&self, instance: usize) -> u64 {
        let instance = &self.instances[instance];
        let time = BASE + self.now + instance.skew;
        time.saturating_add_signed(instance.ahead.unwrap_or(0))
    }

    /// Somebody sets the clock of an instance, an hour ahead or back, or right.
    pub fn step_clock(&mut self, instance: usize) {
        let place = self.rng.below(2);
        let own = &mut self.instances[instance];
        let before = own.ahead.unwrap_or(0);
        let mut others = [-HOUR, 0, HOUR].into_iter().filter(|one| *one != before);
        let ahead = others.nth(place).expect("there are two others");
        own.ahead = Some(ahead);
        if ahead > before {
            own.set_ahead = Some(self.now);
        }
        self.instances[instance].clock.set(self.wall_of(instance));
        self.note(format_args!("the clock of i{instance} is {ahead} ms ahead"));
    }

    /// The machine of an instance sleeps, or its process is stopped: then its clocks run on.
    pub fn sleep(&mut self, instance: usize) {
        let length = self.rng.between(1500, 20_000);
        let until = self.now + length;
        let stands_still = self.rng.percent(70);
        // Afterwards its line may need some time.
        let late = [0, 4000][self.rng.below(2)];
        let own = &mut self.instances[instance];
        own.sleeps.push((until - length, until));
        own.stands_still = stands_still;
        own.disturbed = own.disturbed.max(Some(until));
        own.silent_until = own.silent_until.max(until + SILENCE);
        own.held_up_until = own.held_up_until.max(until + late);
        own.redraw.notify_waiters();
        self.hears_nothing(instance, until + late);
        self.note(format_args!("i{instance} sleeps for {length} ms"));
    }

    /// How long it still sleeps.
    pub fn sleeps_for(&self, instance: usize) -> u64 {
        let until = self.instances[instance].asleep_until();
        until.saturating_sub(self.now)
    }

    /// Whether an instance has had a clock by which what expires may have expired, or lives on.
    pub fn misjudges_expiry(&self, instance: usize) -> bool {
        self.instances[instance].ahead.is_some()
    }

    /// Whether L2 has nothing since this expired by its clock, or did not take it: the expiry of
    /// tokens follows each wall clock, and that of the instance was set back.
    pub fn outlives(&self, read: &Read, number: usize) -> bool {
        let value = &self.model.values[number];
        let Some(end) = value.expires.filter(|end| *end <= self.now) else {
            return false;
        };
        let partition = &self.model.partitions[read.partition];
        let cells = &partition.cells[read.entry];
        let over = match cells.iter().rposition(|(_, one)| *one == Some(number)) {
            // What L2 lost before may have expired when it was written again.
            Some(at) => match &cells[at + 1..] {
                [(gone, None)] => *gone >= end || partition.tainted,
                after => partition.tainted && matches!(after, [.., (_, None)]),
            },
            None => value.by == read.by,
        };
        // A clear of the millisecond in which L2 took it came before that: it has ended by its lifetime.
        let taken = value.applied.map_or(value.written, |at| at + 1);
        // What L2 had not heard of when this began is the end of the session before.
        let is_before = partition.sign_outs.iter().any(|one| {
            let heard = one.acknowledged.is_some_and(|at| at < value.written);
            one.by == value.by && one.start < value.written && !heard
        });
        let ended = partition.cleared_since(taken) && !(value.applied.is_none() && is_before);
        over && !ended
    }

    /// Whether it waited for L2 while the clock was set ahead: that counts as time that has passed, so
    /// that it may be from before whatever was signed out meanwhile.
    pub fn is_aged(&self, number: usize) -> bool {
        let value = &self.model.values[number];
        let set_ahead = self.instances[value.by].set_ahead;
        set_ahead.is_some_and(|at| at >= value.written) && self.is_blind(number)
    }
}
