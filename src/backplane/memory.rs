//! A backplane for the caches of one process.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::broadcast;

use super::{Backplane, BackplaneError, BackplaneFuture, Link, LinkReceiver, LinkSender};

/// Messages that a cache may be behind before it has to join anew, with a gap.
const CAPACITY: usize = 1024;

/// A backplane in memory, for the caches of one process and for tests. Clones are one backplane.
#[derive(Clone, Default)]
pub struct MemoryBackplane {
    channels: Arc<Mutex<HashMap<String, broadcast::Sender<Bytes>>>>,
}

impl MemoryBackplane {
    /// A backplane that nobody is on.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Backplane for MemoryBackplane {
    fn join<'a>(&'a self, channel: &'a str) -> BackplaneFuture<'a, Result<Link, BackplaneError>> {
        let mut channels = self.channels.lock();
        let sender = channels
            .entry(channel.into())
            .or_insert_with(|| broadcast::Sender::new(CAPACITY));
        let link = Link::new(Sender(sender.clone()), Receiver(sender.subscribe()));
        Box::pin(async { Ok(link) })
    }
}

impl fmt::Debug for MemoryBackplane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBackplane").finish_non_exhaustive()
    }
}

struct Sender(broadcast::Sender<Bytes>);

impl LinkSender for Sender {
    fn send<'a>(
        &'a mut self,
        messages: &'a [Bytes],
    ) -> BackplaneFuture<'a, Result<(), BackplaneError>> {
        for message in messages {
            // Without receivers there is nobody to tell.
            let _ = self.0.send(message.clone());
        }
        Box::pin(async { Ok(()) })
    }
}

struct Receiver(broadcast::Receiver<Bytes>);

impl LinkReceiver for Receiver {
    fn receive(&mut self) -> BackplaneFuture<'_, Result<Bytes, BackplaneError>> {
        Box::pin(async {
            let message = self.0.recv().await;
            message.map_err(|error| BackplaneError::new("it is too far behind").with_source(error))
        })
    }
}
