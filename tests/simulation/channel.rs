//! The backplane as one instance reaches it: messages are lost, repeated, late and out of order,
//! and links break.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::sleep;
use tower_token_cache::backplane::{
    Backplane, BackplaneError, BackplaneFuture, Link, LinkReceiver, LinkSender,
};

use super::world::World;

/// Instances whose first heartbeats nobody has heard are out of the gap protocol's reach: they are
/// spared for so many milliseconds.
pub const SPARED: u64 = 4000;

/// All links there are.
#[derive(Clone, Default)]
pub struct Air(Arc<Mutex<Vec<Arc<Mailbox>>>>);

struct Mailbox {
    instance: usize,
    /// By time of arrival, then in the order of sending.
    messages: Mutex<BTreeMap<(u64, u64), Bytes>>,
    arrived: Notify,
}

pub struct SimChannel {
    pub world: World,
    pub air: Air,
    pub instance: usize,
}

impl SimChannel {
    fn is_cut(&self) -> bool {
        let state = self.world.lock();
        let own = &state.instances[self.instance];
        own.cut || own.ended.is_some()
    }
}

impl Backplane for SimChannel {
    fn join<'a>(&'a self, _: &'a str) -> BackplaneFuture<'a, Result<Link, BackplaneError>> {
        Box::pin(async move {
            sleep(Duration::from_millis(1)).await;
            if self.is_cut() {
                return Err(BackplaneError::new("cut"));
            }
            let mailbox = Arc::new(Mailbox {
                instance: self.instance,
                messages: Mutex::default(),
                arrived: Notify::new(),
            });
            self.air.0.lock().expect("whole").push(mailbox.clone());
            let own = || SimChannel {
                world: self.world.clone(),
                air: self.air.clone(),
                instance: self.instance,
            };
            let broken = self.world.lock().instances[self.instance].redraw.clone();
            let receiver = Receiver(own(), mailbox, broken);
            Ok(Link::new(Sender(own()), receiver))
        })
    }
}

struct Sender(SimChannel);

impl LinkSender for Sender {
    fn send<'a>(
        &'a mut self,
        messages: &'a [Bytes],
    ) -> BackplaneFuture<'a, Result<(), BackplaneError>> {
        Box::pin(async move {
            if self.0.is_cut() {
                return Err(BackplaneError::new("cut"));
            }
            let mailboxes = self.0.air.0.lock().expect("whole").clone();
            let mut state = self.0.world.lock();
            let (now, channel) = (state.now, state.channel);
            let spared = now < state.instances[self.0.instance].started + SPARED;
            for message in messages {
                for mailbox in &mailboxes {
                    if !spared && state.rng.percent(channel.loses) {
                        continue;
                    }
                    let copies = 1 + u64::from(state.rng.percent(channel.repeats));
                    for _ in 0..copies {
                        state.sent += 1;
                        let due = now + state.rng.between(0, channel.longest);
                        let place = (due, state.sent);
                        let mut waiting = mailbox.messages.lock().expect("whole");
                        waiting.insert(place, message.clone());
                    }
                    mailbox.arrived.notify_one();
                }
            }
            Ok(())
        })
    }
}

struct Receiver(SimChannel, Arc<Mailbox>, Arc<Notify>);

impl LinkReceiver for Receiver {
    fn receive(&mut self) -> BackplaneFuture<'_, Result<Bytes, BackplaneError>> {
        Box::pin(async move {
            loop {
                if self.0.is_cut() {
                    return Err(BackplaneError::new("cut"));
                }
                let now = self.0.world.lock().now;
                let wait = {
                    let mut messages = self.1.messages.lock().expect("whole");
                    match messages.first_entry() {
                        Some(first) if first.key().0 <= now => return Ok(first.remove()),
                        Some(first) => first.key().0 - now,
                        None => 3_600_000,
                    }
                };
                tokio::select! {
                    biased;
                    () = self.2.notified() => {}
                    () = self.1.arrived.notified() => {}
                    () = sleep(Duration::from_millis(wait)) => {}
                }
            }
        })
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let mut mailboxes = self.0.air.0.lock().expect("whole");
        mailboxes.retain(|mailbox| !Arc::ptr_eq(mailbox, &self.1));
    }
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the mailbox of i{}", self.instance)
    }
}
