//! The engine's side of a backplane.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::driver::Driver;
use super::monitor::Monitor;
use super::outbox::Outbox;
use super::wire::InstanceId;
use super::{Backplane, Event, Invalidation};
use crate::error::ConfigError;
use crate::random;
use crate::telemetry::Counter;

/// What the two halves and the driver share.
pub(super) struct Shared {
    pub(super) outbox: Outbox,
    monitor: Mutex<Monitor>,
    /// Events wait to be taken, or there will be no more.
    arrived: Notify,
    /// The driver has ended.
    ended: AtomicBool,
    pub(super) counters: Counters,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) published: Counter,
    pub(super) dropped: Counter,
    pub(super) joined: Counter,
}

/// What a channel has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelStats {
    /// Invalidations taken to be sent.
    pub published: u64,
    /// Invalidations dropped because too many waited. The others were told of a gap.
    pub dropped: u64,
    /// Messages received, heartbeats and own ones included.
    pub received: u64,
    /// Messages that were not ours, truncated, too long or of an unknown version: ignored.
    pub foreign: u64,
    /// Gaps, after the first time the channel was alive.
    pub gaps: u64,
    /// Links made.
    pub joined: u64,
}

/// Sends invalidations. Cheap to clone; the channel is left when the last clone is dropped.
#[derive(Clone)]
pub struct Publisher(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    /// Closed when the driver has ended.
    done: watch::Receiver<()>,
}

/// Receives what others have changed, and whether that can be relied on. Dropping it leaves the
/// channel.
pub struct Events(Arc<Shared>);

/// Opens the channel `{namespace}:invalidate` of this backplane. It is joined, and kept, in the
/// background, on this runtime.
///
/// # Errors
/// [`ConfigError`] for a [`KeepAlive`](super::KeepAlive) that does not hold together, or a system
/// without random numbers.
pub fn open(
    backplane: Arc<dyn Backplane>,
    namespace: &str,
    runtime: &tokio::runtime::Handle,
) -> Result<(Publisher, Events), ConfigError> {
    let keep_alive = backplane.keep_alive().validate()?;
    // Two instances of one id would take each other's messages for their own.
    let id = random::id().map_err(|error| {
        ConfigError::new("backplane", "needs random numbers").with_source(error)
    })?;
    let id = InstanceId(id);
    let shared = Arc::new(Shared {
        outbox: Outbox::default(),
        monitor: Mutex::new(Monitor::new(id, keep_alive, Instant::now())),
        arrived: Notify::new(),
        ended: AtomicBool::new(false),
        counters: Counters::default(),
    });
    let (ended, done) = watch::channel(());
    let channel = format!("{namespace}:invalidate");
    let driver = Driver::new(backplane, channel, id, keep_alive, shared.clone());
    let over = shared.clone();
    runtime.spawn(async move {
        driver.run().await;
        drop(ended);
        over.ended.store(true, Ordering::Release);
        over.arrived.notify_one();
    });
    let handle = Handle {
        shared: shared.clone(),
        done,
    };
    Ok((Publisher(Arc::new(handle)), Events(shared)))
}

impl Shared {
    /// Asks or tells the monitor something, and passes on what follows from it.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Monitor, Instant) -> T) -> T {
        let mut monitor = self.lock();
        let was_alive = monitor.is_alive();
        let output = act(&mut monitor, Instant::now());
        let is_alive = monitor.is_alive();
        drop(monitor);
        self.arrived.notify_one();
        match (was_alive, is_alive) {
            (true, false) => tracing::warn!("the backplane is lost: L2 is asked until it is back"),
            (false, true) => tracing::info!("the backplane is alive"),
            _ => {}
        }
        output
    }

    fn lock(&self) -> MutexGuard<'_, Monitor> {
        self.monitor.lock()
    }
}

impl Publisher {
    /// Tells the others. It never waits: what cannot be sent now is queued, up to 65,536
    /// invalidations. Past that the queue is dropped and the others are told of a gap instead.
    pub fn publish(&self, batch: impl IntoIterator<Item = Invalidation>) {
        let counters = &self.0.shared.counters;
        let batch = batch.into_iter().inspect(|_| counters.published.add(1));
        let dropped = self.0.shared.outbox.push(batch);
        counters.dropped.add(dropped as u64);
    }

    /// Tells the others that the prefix has a new generation. Never waits.
    pub fn publish_everything_changed(&self, generation: u64) {
        self.0.shared.outbox.push_everything(generation);
    }

    /// Whether the channel is provably alive.
    pub fn is_alive(&self) -> bool {
        self.0.shared.lock().is_alive()
    }

    /// How old the news of the others may be: the time since the oldest of our own last heartbeat
    /// that came back and everybody's last that was heard. While the channel is alive it is at
    /// most [`KeepAlive::lost_after`](super::KeepAlive::lost_after).
    pub fn unheard_for(&self) -> Duration {
        self.0.shared.lock().heard_until().elapsed()
    }

    /// What the channel has done.
    pub fn stats(&self) -> ChannelStats {
        let Shared { counters, .. } = &*self.0.shared;
        let monitor = self.0.shared.lock();
        ChannelStats {
            published: counters.published.get(),
            dropped: counters.dropped.get(),
            received: monitor.received,
            foreign: monitor.foreign,
            gaps: monitor.gaps,
            joined: counters.joined.get(),
        }
    }

    /// Sends what waits, says goodbye so that nobody takes this instance for lost, and leaves.
    /// Takes no longer than [`KeepAlive::lost_after`](super::KeepAlive::lost_after), twice; what
    /// is published meanwhile or later is dropped.
    pub async fn close(&self) {
        self.0.shared.outbox.close();
        // The driver never sends: the end of the channel is all there is.
        let _ = self.0.done.clone().changed().await;
    }
}

impl Events {
    /// The next event, once there is one. Dropped before it is ready, nothing is lost.
    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.try_next() {
                return event;
            }
            // One that arrived in between has left a permit.
            self.0.arrived.notified().await;
        }
    }

    /// The next event; `None` once the channel is left and there will be no more.
    pub(crate) async fn next_until_left(&mut self) -> Option<Event> {
        loop {
            // Before the look: what came before the end is taken.
            let ended = self.0.ended.load(Ordering::Acquire);
            let event = self.try_next();
            if event.is_some() || ended {
                return event;
            }
            self.0.arrived.notified().await;
        }
    }

    /// The next event if there is one now.
    pub fn try_next(&mut self) -> Option<Event> {
        self.0.lock().pop()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.outbox.close();
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.0.outbox.close();
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}
