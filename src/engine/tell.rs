//! Telling the application's hook what happens.

use crate::engine::core::Engine;
use crate::event::{Event, EventKind, SessionEnd};
use crate::key::PartitionKey;

impl Engine {
    /// Tells the application, without waiting for it.
    pub(crate) fn tell(&self, partition: Option<&PartitionKey>, kind: EventKind) {
        if !self.events.are_on() {
            return;
        }
        let id = partition.zip(self.l2.number.known());
        let id = id.map(|(partition, number)| self.l2.id(partition, number));
        let event = Event {
            kind,
            partition: id.map(|id| id.encoded().into()),
            at: self.clock.now(),
        };
        if !self.events.send(event) {
            self.counters.dropped_events.add(1);
        }
    }

    /// L2 no longer has a partition that memory had.
    pub(crate) fn tell_of_end(&self, partition: &PartitionKey, end: Option<SessionEnd>) {
        if let Some(end) = end.filter(|_| !partition.is_list()) {
            self.tell(Some(partition), EventKind::SessionEnded(end));
        }
    }
}
