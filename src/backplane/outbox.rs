//! What waits to be sent.

use std::collections::VecDeque;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::Invalidation;
use super::wire::{Body, MAX_BATCH};

/// Invalidations that wait at most: some 60 bytes each, 4 MiB. Past it all of them are dropped,
/// and the others are told that they missed something: they then ask L2 about what they use, which
/// by then is cheaper than hearing of each change.
pub(super) const CAPACITY: usize = 65_536;
/// Batches on their way at a time.
pub(super) const TURN: usize = 8;

/// A bounded queue that nobody waits for.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    /// The driver is the only one to wait.
    ready: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Invalidation>,
    everything_changed: Option<u64>,
    overflowed: bool,
    closing: bool,
}

/// What is to be sent now.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Something was dropped before this.
    pub(super) skipped: bool,
    pub(super) bodies: Vec<Body>,
}

impl Outbox {
    /// Queues a batch; how many invalidations were dropped.
    pub(super) fn push(&self, batch: impl IntoIterator<Item = Invalidation>) -> usize {
        let mut state = self.lock();
        if state.closing {
            return 0;
        }
        let mut dropped = 0;
        for invalidation in batch {
            if state.waiting.len() >= CAPACITY {
                dropped += state.waiting.len();
                state.waiting = VecDeque::new();
                state.overflowed = true;
            }
            state.waiting.push_back(invalidation);
        }
        drop(state);
        self.ready.notify_one();
        dropped
    }

    pub(super) fn push_everything(&self, generation: u64) {
        let mut state = self.lock();
        if state.closing {
            return;
        }
        state.everything_changed = state.everything_changed.max(Some(generation));
        drop(state);
        self.ready.notify_one();
    }

    /// Takes nothing more from now on.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.ready.notify_one();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.lock().closing
    }

    /// Whether nothing is to be sent now.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().waiting.is_empty()
    }

    /// Waits until something is to be sent, or the outbox was closed.
    pub(super) async fn ready(&self) {
        while self.lock().is_idle() {
            self.ready.notified().await;
        }
    }

    /// Waits until the outbox is closed.
    pub(super) async fn closed(&self) {
        while !self.is_closing() {
            self.ready.notified().await;
        }
    }

    pub(super) fn take(&self) -> Turn {
        let mut state = self.lock();
        let skipped = std::mem::take(&mut state.overflowed);
        let mut bodies = Vec::new();
        if let Some(generation) = state.everything_changed.take() {
            bodies.push(Body::EverythingChanged(generation));
        }
        while !state.waiting.is_empty() && bodies.len() < TURN {
            let count = state.waiting.len().min(MAX_BATCH);
            bodies.push(Body::Invalidated(state.waiting.drain(..count).collect()));
        }
        Turn { skipped, bodies }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty()
            && self.everything_changed.is_none()
            && !self.overflowed
            && !self.closing
    }
}
