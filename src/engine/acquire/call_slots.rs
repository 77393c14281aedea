//! Call slots: how many calls to the provider run at once, and which is next.
//!
//! A call has a slot while it runs, and none while its flight waits for anything else, nor once its acquire
//! function waits for another acquisition: if it kept its slot, that one could wait for it. Slots are granted to
//! partitions in round-robin order. A partition has at most its share of the slots, however many calls it
//! asks for. A call that takes longer than [`QUICK`] no longer counts against the others, until there are
//! [`SLOW_CALLS`] times as many of these as slots: a provider that hangs stops only its own users.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::key::{PartitionKey, PartitionKind};
use crate::race::{Either, race};

/// A healthy provider answers within a few hundred milliseconds.
const QUICK: Duration = Duration::from_secs(1);
/// Slow calls that do not count, as a multiple of the call slots.
const SLOW_CALLS: usize = 7;
/// Refreshes ahead of time have one in this many of the call slots, and so has one partition.
const PART: usize = 4;

pub(crate) struct CallSlots {
    all: Limit,
    ahead: Limit,
    share: usize,
    state: Mutex<SlotTable>,
}

/// A place in the queue, and then a call slot. Given back on drop.
pub(crate) struct CallSlot<'a> {
    call_slots: &'a CallSlots,
    partition: PartitionKey,
    ticket: u64,
    granted: oneshot::Receiver<()>,
}

#[derive(Clone, Copy)]
struct Limit {
    call_slots: usize,
    slow: usize,
}

/// Calls in progress.
#[derive(Clone, Copy, Default)]
struct Calls {
    all: usize,
    slow: usize,
}

/// Calls that a request waits for go first.
#[derive(Clone, Copy)]
enum Class {
    Awaited,
    Ahead,
}

#[derive(Default)]
struct SlotTable {
    all: Calls,
    ahead: Calls,
    running: HashMap<u64, Call>,
    queues: HashMap<PartitionKey, Queue>,
    /// By class: the partitions that may be granted a slot, in round-robin order.
    turns: [BTreeMap<u64, PartitionKey>; 2],
    /// Numbers tickets and turns.
    count: u64,
}

#[derive(Clone, Copy)]
struct Call {
    is_ahead: bool,
    is_slow: bool,
}

/// The calls of one partition: how many have a slot, and which wait for one.
#[derive(Default)]
struct Queue {
    held: usize,
    waiting: [BTreeMap<u64, oneshot::Sender<()>>; 2],
    turns: [Option<u64>; 2],
}

impl Limit {
    fn new(call_slots: usize) -> Self {
        Self {
            call_slots,
            slow: call_slots.saturating_mul(SLOW_CALLS),
        }
    }

    fn has_room(self, calls: Calls) -> bool {
        calls.all - calls.slow.min(self.slow) < self.call_slots
    }
}

impl CallSlots {
    pub(crate) fn new(call_slots: usize) -> Self {
        let part = (call_slots / PART).max(1);
        Self {
            all: Limit::new(call_slots),
            ahead: Limit::new(part),
            share: part,
            state: Mutex::default(),
        }
    }

    /// Queues a call of this partition for a slot.
    pub(crate) fn enter(&self, partition: &PartitionKey, is_ahead: bool) -> CallSlot<'_> {
        let (grant, granted) = oneshot::channel();
        let mut state = self.state.lock();
        let ticket = state.next();
        let queue = state.queues.entry(partition.clone()).or_default();
        let class = if is_ahead {
            Class::Ahead
        } else {
            Class::Awaited
        };
        queue.waiting[class as usize].insert(ticket, grant);
        self.reschedule(&mut state, partition);
        self.grant(&mut state);
        CallSlot {
            call_slots: self,
            partition: partition.clone(),
            ticket,
            granted,
        }
    }

    /// A request has come to wait for a call that was ahead of time.
    pub(crate) fn promote(&self, partition: &PartitionKey, ticket: u64) {
        let mut state = self.state.lock();
        let Some(queue) = state.queues.get_mut(partition) else {
            return;
        };
        if let Some(grant) = queue.waiting[Class::Ahead as usize].remove(&ticket) {
            queue.waiting[Class::Awaited as usize].insert(ticket, grant);
            self.reschedule(&mut state, partition);
            self.grant(&mut state);
        }
    }

    /// Takes back the slot, or the place in the queue. May be repeated.
    pub(crate) fn leave(&self, partition: &PartitionKey, ticket: u64) {
        let mut state = self.state.lock();
        let call = state.running.remove(&ticket);
        if let Some(call) = call {
            state.all.end(call);
            if call.is_ahead {
                state.ahead.end(call);
            }
        }
        if let Some(queue) = state.queues.get_mut(partition) {
            match call {
                Some(_) => queue.held -= 1,
                None => queue.waiting.iter_mut().for_each(|waiting| {
                    waiting.remove(&ticket);
                }),
            }
        }
        self.reschedule(&mut state, partition);
        self.grant(&mut state);
    }

    fn is_slow(&self, ticket: u64) {
        let mut state = self.state.lock();
        let Some(call) = state.running.get_mut(&ticket) else {
            return;
        };
        call.is_slow = true;
        let is_ahead = call.is_ahead;
        state.all.slow += 1;
        if is_ahead {
            state.ahead.slow += 1;
        }
        self.grant(&mut state);
    }

    /// Puts this partition into the round-robin order, or takes it out, after a change of its queue.
    fn reschedule(&self, state: &mut SlotTable, partition: &PartitionKey) {
        let Some(queue) = state.queues.get_mut(partition) else {
            return;
        };
        // Only the application itself asks for its own tokens, for as many tenants as it has: it may have all
        // slots.
        let all = partition.kind() == PartitionKind::Application;
        let has_share_left = all || queue.held < self.share;
        for ((waiting, turn), turns) in queue
            .waiting
            .iter()
            .zip(&mut queue.turns)
            .zip(&mut state.turns)
        {
            match (has_share_left && !waiting.is_empty(), *turn) {
                (true, None) => {
                    state.count += 1;
                    *turn = Some(state.count);
                    turns.insert(state.count, partition.clone());
                }
                (false, Some(number)) => {
                    *turn = None;
                    turns.remove(&number);
                }
                _ => {}
            }
        }
        if queue.held == 0 && queue.waiting.iter().all(BTreeMap::is_empty) {
            state.queues.remove(partition);
        }
    }

    fn grant(&self, state: &mut SlotTable) {
        for class in [Class::Awaited, Class::Ahead] {
            while self.has_room(state, class)
                && let Some((_, partition)) = state.turns[class as usize].pop_first()
            {
                state.grant(class, &partition);
                self.reschedule(state, &partition);
            }
        }
    }

    fn has_room(&self, state: &SlotTable, class: Class) -> bool {
        let among_all = self.all.has_room(state.all);
        match class {
            Class::Awaited => among_all,
            Class::Ahead => among_all && self.ahead.has_room(state.ahead),
        }
    }
}

impl SlotTable {
    fn next(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    /// Grants a slot to the next call of this partition.
    fn grant(&mut self, class: Class, partition: &PartitionKey) {
        let Some(queue) = self.queues.get_mut(partition) else {
            return;
        };
        queue.turns[class as usize] = None;
        let Some((ticket, grant)) = queue.waiting[class as usize].pop_first() else {
            return;
        };
        queue.held += 1;
        let call = Call {
            is_ahead: matches!(class, Class::Ahead),
            is_slow: false,
        };
        self.all.all += 1;
        if call.is_ahead {
            self.ahead.all += 1;
        }
        self.running.insert(ticket, call);
        // The receiver is there: when a `CallSlot` is dropped, its ticket is removed.
        let _ = grant.send(());
    }
}

impl Calls {
    fn end(&mut self, call: Call) {
        self.all -= 1;
        self.slow -= usize::from(call.is_slow);
    }
}

impl CallSlot<'_> {
    pub(crate) fn ticket(&self) -> u64 {
        self.ticket
    }

    /// Waits until the slot is granted.
    pub(crate) async fn granted(&mut self) {
        // This cannot fail: the sender lives as long as `self`.
        let _ = (&mut self.granted).await;
    }

    /// Runs the call in this slot.
    pub(crate) async fn run<F: Future + Unpin>(self, mut call: F) -> F::Output {
        match race(&mut call, sleep(QUICK)).await {
            Either::First(answer) => answer,
            Either::Second(()) => {
                self.call_slots.is_slow(self.ticket);
                call.await
            }
        }
    }
}

impl Drop for CallSlot<'_> {
    fn drop(&mut self) {
        self.call_slots.leave(&self.partition, self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

    /// The output, if there is one without waiting.
    fn polled<T>(future: &mut Boxed<'_, T>) -> Option<T> {
        match future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    fn session(number: usize) -> PartitionKey {
        PartitionKey::session(number.to_string()).expect("a key")
    }

    async fn placed(mut place: CallSlot<'_>) -> CallSlot<'_> {
        place.granted().await;
        place
    }

    fn enter(call_slots: &CallSlots, number: usize) -> Boxed<'_, CallSlot<'_>> {
        Box::pin(placed(call_slots.enter(&session(number), false)))
    }

    fn held(call_slots: &CallSlots, number: usize) -> CallSlot<'_> {
        polled(&mut enter(call_slots, number)).expect("a place")
    }

    impl CallSlots {
        fn is_unused(&self) -> bool {
            let state = self.state.lock();
            state.queues.is_empty()
                && state.running.is_empty()
                && state.turns.iter().all(BTreeMap::is_empty)
                && (state.all.all, state.all.slow) == (0, 0)
                && (state.ahead.all, state.ahead.slow) == (0, 0)
        }
    }

    #[test]
    fn partitions_take_turns_and_none_has_more_than_its_share() {
        let call_slots = CallSlots::new(8);
        let mut greedy: Vec<_> = (0..100).map(|_| enter(&call_slots, 0)).collect();
        let mut taken: Vec<_> = greedy.iter_mut().filter_map(polled).collect();
        assert_eq!(taken.len(), 2, "a quarter");
        let others: Vec<_> = (1..=6).map(|number| held(&call_slots, number)).collect();
        let (mut late, mut later) = (enter(&call_slots, 7), enter(&call_slots, 8));
        assert!(polled(&mut late).is_none());
        assert!(polled(&mut later).is_none());
        taken.pop();
        let late = polled(&mut late).expect("the next turn");
        taken.pop();
        let later = polled(&mut later).expect("one place each before another one");
        drop((late, later, others, greedy));
        assert!(call_slots.is_unused());
    }

    #[test]
    fn an_application_may_have_all_places() {
        let call_slots = CallSlots::new(8);
        let application = PartitionKey::application("app", "").expect("a key");
        let enter = |_| -> Boxed<'_, _> { Box::pin(placed(call_slots.enter(&application, false))) };
        let held: Vec<_> = (0..8).map(|it| polled(&mut enter(it))).collect();
        assert!(held.iter().all(Option::is_some));
        drop(held);
        assert!(call_slots.is_unused());
    }

    #[test]
    fn a_place_is_given_back_whenever_its_future_is_dropped() {
        let call_slots = CallSlots::new(1);
        let first = held(&call_slots, 0);
        // One that was never polled, one that waits, and one that was granted a slot and was not polled
        // since.
        drop(enter(&call_slots, 1));
        let mut waiting = enter(&call_slots, 2);
        assert!(polled(&mut waiting).is_none());
        drop(waiting);
        let mut granted = enter(&call_slots, 3);
        assert!(polled(&mut granted).is_none());
        drop(first);
        drop(granted);
        assert!(call_slots.is_unused());
    }

    #[test]
    fn ahead_of_time_has_a_quarter_and_goes_last() {
        let call_slots = CallSlots::new(4);
        let ahead =
            |number| -> Boxed<'_, _> { Box::pin(placed(call_slots.enter(&session(number), true))) };
        let first = polled(&mut ahead(0)).expect("a place");
        let (mut second, third) = (ahead(1), call_slots.enter(&session(2), true));
        let ticket = third.ticket();
        let mut third: Boxed<'_, _> = Box::pin(placed(third));
        assert!(polled(&mut second).is_none());
        assert!(polled(&mut third).is_none());
        let awaited: Vec<_> = (3..6).map(|number| held(&call_slots, number)).collect();
        let mut fourth = enter(&call_slots, 6);
        assert!(polled(&mut fourth).is_none());
        drop(first);
        let fourth = polled(&mut fourth).expect("those that are waited for go first");
        drop(awaited);
        let second = polled(&mut second).expect("there is room again");
        assert!(polled(&mut third).is_none());
        call_slots.promote(&session(2), ticket);
        let third = polled(&mut third).expect("it is waited for now");
        drop((second, third, fourth));
        assert!(call_slots.is_unused());
    }

    #[tokio::test(start_paused = true)]
    async fn slow_calls_count_again_when_there_are_too_many() {
        let call_slots = CallSlots::new(1);
        let mut calls = Vec::new();
        for number in 0..=SLOW_CALLS {
            let place = held(&call_slots, number);
            let mut call: Boxed<'_, ()> = Box::pin(place.run(std::future::pending()));
            assert!(polled(&mut call).is_none());
            assert!(
                polled(&mut enter(&call_slots, 100)).is_none(),
                "it is quick yet"
            );
            tokio::time::advance(QUICK * 2).await;
            assert!(polled(&mut call).is_none());
            calls.push(call);
        }
        let mut late = enter(&call_slots, 100);
        assert!(polled(&mut late).is_none());
        calls.pop();
        let late = polled(&mut late).expect("one has ended");
        drop((late, calls));
        assert!(call_slots.is_unused());
    }
}
