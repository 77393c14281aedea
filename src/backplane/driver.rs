//! The task that joins the channel, sends and receives, and joins it again.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::channel::Shared;
use super::outbox::{CAPACITY, TURN};
use super::wire::{Body, InstanceId, MAX_BATCH, Message};
use super::{Backplane, BackplaneError, KeepAlive, LinkReceiver, LinkSender};
use crate::race::{Either, race};
use crate::random;

/// The pause before a link is made again, doubling up to the longest. The jitter keeps instances
/// apart that lost it together. With one that works one way only, the others still hear from us
/// often enough.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Turns that a heartbeat gives precedence to, which is all that can wait when it is due: who
/// hears it after an outage has heard what was kept during it.
const MAX_TURNS: usize = CAPACITY / MAX_BATCH / TURN;

pub(super) struct Driver {
    backplane: Arc<dyn Backplane>,
    channel: String,
    id: InstanceId,
    keep_alive: KeepAlive,
    shared: Arc<Shared>,
}

/// What was numbered and may not have been sent. It outlives the link.
#[derive(Default)]
struct Unsent {
    messages: Vec<Bytes>,
    /// The number of the last message.
    sequence: u64,
}

impl Driver {
    pub(super) fn new(
        backplane: Arc<dyn Backplane>,
        channel: String,
        id: InstanceId,
        keep_alive: KeepAlive,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            backplane,
            channel,
            id,
            keep_alive,
            shared,
        }
    }

    /// Runs until the channel is closed.
    pub(super) async fn run(self) {
        let mut unsent = Unsent::default();
        let mut attempts = 0;
        while !self.shared.outbox.is_closing() {
            match self.visit(&mut unsent, &mut attempts).await {
                Ok(()) => return,
                // Once per outage where an operator looks.
                Err(error) if attempts == 0 => {
                    let error = &error as &dyn Error;
                    tracing::warn!(error, "the link to the backplane failed");
                }
                Err(error) => {
                    let error = &error as &dyn Error;
                    tracing::debug!(error, "the link to the backplane failed again");
                }
            }
            let pause = (FIRST_PAUSE * 2_u32.pow(attempts)).min(LONGEST_PAUSE);
            let pause = random::jittered(pause, random::WIDELY);
            attempts = (attempts + 1).min(8);
            race(self.shared.outbox.closed(), sleep(pause)).await;
        }
    }

    /// Joins, and stays until the link fails or the channel is closed.
    async fn visit(&self, unsent: &mut Unsent, attempts: &mut u32) -> Result<(), BackplaneError> {
        let joining = timeout(
            self.keep_alive.timeout(),
            self.backplane.join(&self.channel),
        );
        let mut link = match race(self.shared.outbox.closed(), joining).await {
            Either::First(()) => return Ok(()),
            Either::Second(Ok(link)) => link?,
            Either::Second(Err(_)) => return Err(BackplaneError::new("joining took too long")),
        };
        self.shared.counters.joined.add(1);
        // However this ends, also when the runtime does.
        let _left = Joined::new(&self.shared);
        let sending = self.send(&mut *link.sender, unsent);
        let receiving = self.receive(&mut *link.receiver, attempts);
        match race(receiving, sending).await {
            Either::First(error) => Err(error),
            Either::Second(sent) => sent,
        }
    }

    async fn receive(&self, receiver: &mut dyn LinkReceiver, attempts: &mut u32) -> BackplaneError {
        // Often enough that what is late is noticed in time.
        let mut check = interval(self.keep_alive.interval() / 4);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Time first: a flood of messages must not hide that our own do not come back.
            match race(check.tick(), receiver.receive()).await {
                Either::First(_) => {
                    let overdue = self.shared.with(|monitor, now| {
                        monitor.settle(now);
                        monitor.is_overdue(now)
                    });
                    if overdue {
                        return BackplaneError::new("our own heartbeats do not come back");
                    }
                }
                Either::Second(Ok(bytes)) => {
                    if self
                        .shared
                        .with(|monitor, now| monitor.receive(&bytes, now))
                    {
                        *attempts = 0;
                    }
                }
                Either::Second(Err(error)) => return error,
            }
        }
    }

    /// Sends what waits and the heartbeats, until the channel is closed.
    async fn send(
        &self,
        sender: &mut dyn LinkSender,
        unsent: &mut Unsent,
    ) -> Result<(), BackplaneError> {
        let outbox = &self.shared.outbox;
        let mut beat = interval(self.keep_alive.interval());
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Turns since a heartbeat was due.
        let mut owed = None;
        loop {
            if let Either::First(_) = race(beat.tick(), outbox.ready()).await {
                owed.get_or_insert(0);
            }
            if unsent.messages.is_empty() {
                self.number(unsent);
            }
            let mut messages = unsent.messages.clone();
            let closing = outbox.is_closing() && messages.is_empty();
            if closing {
                messages.push(self.message(unsent.sequence, Body::Goodbye));
            } else if owed.is_some_and(|turns| turns >= MAX_TURNS || outbox.is_empty()) {
                owed = None;
                let heartbeat = self.shared.with(|monitor, now| monitor.beat(now));
                messages.push(self.message(unsent.sequence, Body::Heartbeat(heartbeat)));
            }
            owed = owed.map(|turns| turns + 1);
            if !messages.is_empty() {
                // While it hangs no heartbeat is sent, so the link is given up in time.
                sender.send(&messages).await?;
                unsent.messages.clear();
            }
            if closing {
                return Ok(());
            }
        }
    }

    /// Takes what waits and numbers it.
    fn number(&self, unsent: &mut Unsent) {
        let turn = self.shared.outbox.take();
        unsent.sequence += u64::from(turn.skipped);
        for body in turn.bodies {
            unsent.sequence += 1;
            unsent.messages.push(self.message(unsent.sequence, body));
        }
    }

    fn message(&self, sequence: u64, body: Body) -> Bytes {
        let message = Message {
            sender: self.id,
            sequence,
            body,
        };
        message.encode()
    }
}

/// The time with a link.
struct Joined<'a>(&'a Shared);

impl<'a> Joined<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.with(|monitor, now| monitor.joined(now));
        Self(shared)
    }
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        self.0.with(|monitor, now| monitor.left(now));
    }
}
