//! What the engine has not yet taken.

use std::collections::VecDeque;

use super::{Event, Invalidation};

/// Invalidations that wait at most, as in the outbox.
const CAPACITY: usize = 65_536;
/// Invalidations in one event.
const BATCH: usize = 1024;

/// Bounded: consecutive invalidations are one event, and a gap that begins before the last one
/// was seen to end is one with it.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    events: VecDeque<Event>,
    /// In all events.
    invalidations: usize,
}

impl Inbox {
    pub(super) fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if let Some(Event::Invalidated(batch)) = &event {
            self.invalidations -= batch.len();
        }
        event
    }

    /// Adds a batch, or drops it and all that wait: `false` says that there is a gap.
    #[must_use]
    pub(super) fn push_batch(&mut self, mut batch: Vec<Invalidation>) -> bool {
        if self.invalidations + batch.len() > CAPACITY {
            self.invalidations = 0;
            for event in std::mem::take(&mut self.events) {
                if !matches!(event, Event::Invalidated(_)) {
                    self.push(event);
                }
            }
            return false;
        }
        self.invalidations += batch.len();
        match self.events.back_mut() {
            Some(Event::Invalidated(last)) if last.len() + batch.len() <= BATCH => {
                last.append(&mut batch);
            }
            _ => self.events.push_back(Event::Invalidated(batch)),
        }
        true
    }

    /// Adds any other event.
    pub(super) fn push(&mut self, event: Event) {
        match &event {
            Event::Alive { .. } => {
                // Lost, Alive, Lost, Alive: from the first Lost to the last Alive, as nobody has
                // looked in between.
                let mut last = self.events.iter().rev();
                let repeated = matches!(last.next(), Some(Event::Lost { .. }))
                    && matches!(last.next(), Some(Event::Alive { .. }))
                    && matches!(last.next(), Some(Event::Lost { .. }));
                if repeated {
                    self.events.truncate(self.events.len() - 2);
                }
            }
            Event::EverythingChanged { generation } => {
                let generation = *generation;
                let mut waits = self.events.iter().filter_map(|event| match event {
                    Event::EverythingChanged { generation } => Some(*generation),
                    _ => None,
                });
                if waits.any(|waiting| waiting >= generation) {
                    return;
                }
                self.events
                    .retain(|event| !matches!(event, Event::EverythingChanged { .. }));
            }
            _ => {}
        }
        self.events.push_back(event);
    }
}
