//! The change feed of a store in memory.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::broadcast::{Receiver, Sender};
use tokio::time::{Instant, timeout_at};

use crate::store::{Feed, FeedEvent, PartitionId};

/// Changes that a listener may be behind; one that is further behind is told that anything may have
/// changed.
const ROOM: usize = 1024;
/// How often a quiet feed proves that it is complete.
const PROOF: Duration = Duration::from_millis(500);

/// Those who want to know what changes.
/// They are told of one partition, or of all.
pub(super) struct Listeners(Sender<Option<PartitionId>>);

impl Default for Listeners {
    fn default() -> Self {
        Self(Sender::new(ROOM))
    }
}

impl Listeners {
    pub(super) fn tell(&self, partition: Option<&PartitionId>) {
        if self.0.receiver_count() > 0 {
            // The last listener may just have left.
            let _ = self.0.send(partition.cloned());
        }
    }

    pub(super) fn feed(&self, namespace: &str) -> Feed {
        let listener = Listener {
            changes: self.0.subscribe(),
            namespace: namespace.into(),
            proof_at: Instant::now(),
            next: Some(FeedEvent::Everything),
        };
        Box::pin(stream::unfold(listener, async |mut listener| {
            Some((listener.event().await, listener))
        }))
    }
}

struct Listener {
    changes: Receiver<Option<PartitionId>>,
    namespace: Arc<str>,
    proof_at: Instant,
    /// What is told before anything else.
    next: Option<FeedEvent>,
}

impl Listener {
    async fn event(&mut self) -> FeedEvent {
        if let Some(next) = self.next.take() {
            return next;
        }
        loop {
            let mut changed = Vec::new();
            match timeout_at(self.proof_at, self.changes.recv()).await {
                Ok(Ok(Some(partition))) => self.note(&partition, &mut changed),
                Ok(Ok(None) | Err(RecvError::Lagged(_))) => return FeedEvent::Everything,
                // The store has gone: what it had does not change any more.
                Ok(Err(RecvError::Closed)) => tokio::time::sleep_until(self.proof_at).await,
                Err(_) => {}
            }
            // What is acknowledged by now is in the channel.
            let now = Instant::now();
            let missed = self.drain(&mut changed);
            let proven = (now >= self.proof_at).then(|| {
                self.proof_at = now + PROOF;
                FeedEvent::CompleteUntil(now.into_std())
            });
            if missed {
                self.next = proven;
                return FeedEvent::Everything;
            }
            if !changed.is_empty() {
                self.next = proven;
                return FeedEvent::Changed(changed);
            }
            if let Some(proven) = proven {
                return proven;
            }
        }
    }

    /// Takes what is in the channel; whether something was missed.
    fn drain(&mut self, changed: &mut Vec<[u8; 32]>) -> bool {
        loop {
            match self.changes.try_recv() {
                Ok(Some(partition)) => self.note(&partition, changed),
                Ok(None) | Err(TryRecvError::Lagged(_)) => return true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return false,
            }
        }
    }

    fn note(&self, partition: &PartitionId, changed: &mut Vec<[u8; 32]>) {
        if *partition.namespace == *self.namespace {
            changed.push(*partition.digest());
        }
    }
}
