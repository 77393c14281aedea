//! A backplane in memory that can be cut, and loses messages on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::{broadcast, watch};
use tower_token_cache::backplane::{
    Backplane, BackplaneError, BackplaneFuture, Link, LinkReceiver, LinkSender,
};

/// Clones are the same channel.
#[derive(Clone)]
pub struct Wire {
    messages: broadcast::Sender<Bytes>,
    cut: watch::Sender<bool>,
    deaf: Arc<AtomicBool>,
}

impl Wire {
    pub fn new() -> Self {
        Self {
            messages: broadcast::channel(1024).0,
            cut: watch::Sender::new(false),
            deaf: Arc::default(),
        }
    }

    /// Breaks all links, and makes no new ones.
    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    pub fn mend(&self) {
        self.cut.send_replace(false);
    }

    /// From now on messages are lost, heartbeats included, and nobody is told.
    pub fn set_losing(&self, losing: bool) {
        self.deaf.store(losing, Ordering::SeqCst);
    }
}

fn cut() -> BackplaneError {
    BackplaneError::new("cut")
}

struct End<T>(T, Wire);

impl Backplane for Wire {
    fn join<'a>(&'a self, _: &'a str) -> BackplaneFuture<'a, Result<Link, BackplaneError>> {
        Box::pin(async move {
            match *self.cut.borrow() {
                true => Err(cut()),
                false => {
                    let receiver = self.messages.subscribe();
                    Ok(Link::new(
                        End((), self.clone()),
                        End(receiver, self.clone()),
                    ))
                }
            }
        })
    }
}

impl LinkSender for End<()> {
    fn send<'a>(
        &'a mut self,
        messages: &'a [Bytes],
    ) -> BackplaneFuture<'a, Result<(), BackplaneError>> {
        Box::pin(async move {
            if *self.1.cut.borrow() {
                return Err(cut());
            }
            for message in messages {
                if !self.1.deaf.load(Ordering::SeqCst) {
                    // Nobody may be listening yet.
                    let _ = self.1.messages.send(message.clone());
                }
            }
            Ok(())
        })
    }
}

impl LinkReceiver for End<broadcast::Receiver<Bytes>> {
    fn receive(&mut self) -> BackplaneFuture<'_, Result<Bytes, BackplaneError>> {
        Box::pin(async move {
            let mut broken = self.1.cut.subscribe();
            tokio::select! {
                _ = broken.wait_for(|cut| *cut) => Err(cut()),
                message = self.0.recv() => message.map_err(|_| cut()),
            }
        })
    }
}
