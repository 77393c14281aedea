//! Instances on a channel in memory that fails on demand.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use super::{SECOND, invalidated, invalidation};
use crate::backplane::wire::Message;
use crate::backplane::*;

/// One instance's way to a channel in memory.
#[derive(Clone, Default)]
pub(super) struct Faulty {
    pub(super) inner: MemoryBackplane,
    pub(super) keep_alive: KeepAlive,
    pub(super) faults: Arc<Faults>,
}

#[derive(Default)]
pub(super) struct Faults {
    /// What is sent gets lost.
    pub(super) mute: AtomicBool,
    /// What is received gets lost.
    pub(super) deaf: AtomicBool,
    /// Joining fails.
    pub(super) refused: AtomicBool,
    /// Joining and sending never end.
    pub(super) hung: AtomicBool,
    /// The link fails with the next message.
    pub(super) broken: AtomicBool,
    /// The next messages that are no heartbeats get lost.
    pub(super) lose: AtomicUsize,
    /// Each message is received this much later.
    pub(super) delay: Mutex<Duration>,
    pub(super) twice: AtomicBool,
    /// Messages that are no heartbeats are kept, and come after the next.
    pub(super) swap: AtomicBool,
}

impl Faults {
    pub(super) fn set(&self, fault: impl Fn(&Self) -> &AtomicBool, on: bool) {
        fault(self).store(on, Ordering::SeqCst);
    }
}

fn on(fault: &AtomicBool) -> bool {
    fault.load(Ordering::SeqCst)
}

impl Backplane for Faulty {
    fn join<'a>(&'a self, channel: &'a str) -> BackplaneFuture<'a, Result<Link, BackplaneError>> {
        Box::pin(async move {
            if on(&self.faults.hung) {
                std::future::pending::<()>().await;
            }
            if on(&self.faults.refused) {
                return Err(BackplaneError::new("refused"));
            }
            let link = self.inner.join(channel).await?;
            let sender = FaultySender(link.sender, self.faults.clone());
            let receiver = FaultyReceiver {
                inner: link.receiver,
                faults: self.faults.clone(),
                ready: VecDeque::new(),
                kept: None,
                late: None,
            };
            Ok(Link::new(sender, receiver))
        })
    }

    fn keep_alive(&self) -> KeepAlive {
        self.keep_alive
    }
}

struct FaultySender(Box<dyn LinkSender>, Arc<Faults>);

impl LinkSender for FaultySender {
    fn send<'a>(
        &'a mut self,
        messages: &'a [Bytes],
    ) -> BackplaneFuture<'a, Result<(), BackplaneError>> {
        Box::pin(async move {
            if on(&self.1.hung) {
                std::future::pending::<()>().await;
            }
            if on(&self.1.mute) {
                return Ok(());
            }
            self.0.send(messages).await
        })
    }
}

struct FaultyReceiver {
    inner: Box<dyn LinkReceiver>,
    faults: Arc<Faults>,
    ready: VecDeque<Bytes>,
    kept: Option<Bytes>,
    late: Option<(Instant, Bytes)>,
}

impl LinkReceiver for FaultyReceiver {
    fn receive(&mut self) -> BackplaneFuture<'_, Result<Bytes, BackplaneError>> {
        Box::pin(async move {
            loop {
                if let Some((due, _)) = &self.late {
                    tokio::time::sleep_until(*due).await;
                    self.ready
                        .extend(self.late.take().map(|(_, message)| message));
                }
                if let Some(message) = self.ready.pop_front() {
                    return Ok(message);
                }
                let message = self.inner.receive().await?;
                if on(&self.faults.broken) {
                    return Err(BackplaneError::new("broken"));
                }
                let numbered = Message::decode(&message).is_ok_and(|m| m.body.is_numbered());
                let lose = |left: usize| left.checked_sub(1);
                let order = Ordering::SeqCst;
                if on(&self.faults.deaf)
                    || numbered && self.faults.lose.fetch_update(order, order, lose).is_ok()
                {
                    continue;
                }
                let delay = *self.faults.delay.lock().unwrap();
                if !delay.is_zero() {
                    self.late = Some((Instant::now() + delay, message));
                    continue;
                }
                if numbered && on(&self.faults.swap) && self.kept.is_none() {
                    self.kept = Some(message);
                    continue;
                }
                self.ready.push_back(message.clone());
                if on(&self.faults.twice) {
                    self.ready.push_back(message);
                }
                if numbered {
                    self.ready.extend(self.kept.take());
                }
            }
        })
    }
}

/// An instance on the channel.
pub(super) struct Instance {
    pub(super) publisher: Publisher,
    pub(super) events: Events,
    pub(super) faults: Arc<Faults>,
}

impl Instance {
    pub(super) fn on(backplane: &MemoryBackplane) -> Self {
        Self::with(backplane, KeepAlive::default())
    }

    pub(super) fn with(backplane: &MemoryBackplane, keep_alive: KeepAlive) -> Self {
        let inner = backplane.clone();
        let faulty = Faulty {
            inner,
            keep_alive,
            ..Faulty::default()
        };
        let faults = faulty.faults.clone();
        let runtime = tokio::runtime::Handle::current();
        let (publisher, events) = open(Arc::new(faulty), "ns", &runtime).unwrap();
        Self {
            publisher,
            events,
            faults,
        }
    }

    pub(super) async fn next(&mut self) -> Event {
        let next = timeout(120 * SECOND, self.events.next());
        next.await.expect("an event")
    }

    pub(super) async fn alive(&mut self) -> Instant {
        match self.next().await {
            Event::Alive { since } => since,
            event => panic!("{event:?}"),
        }
    }

    pub(super) async fn lost(&mut self) -> Instant {
        match self.next().await {
            Event::Lost { since } => since,
            event => panic!("{event:?}"),
        }
    }

    pub(super) async fn quiet(&mut self, time: Duration) {
        let event = timeout(time, self.events.next()).await;
        assert!(event.is_err(), "{event:?}");
    }

    pub(super) fn publish(&self, number: u64) {
        self.publisher.publish([invalidation(number)]);
    }

    pub(super) async fn hears(&mut self, number: u64) {
        assert_eq!(self.next().await, invalidated(number));
    }
}
