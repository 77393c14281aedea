//! Events on their way to the application's hook. It runs on a thread of its own, so that one that blocks or panics
//! holds up neither a request nor the engine.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use tokio::sync::watch;

use crate::event::{Event, EventHook};

/// Events that wait for the hook. Beyond that they are dropped, and counted.
const MAX_WAITING: usize = 1024;

/// The way to the hook, if there is one. Its thread ends with this.
pub(crate) struct Events(Option<Hook>);

struct Hook {
    queue: SyncSender<Event>,
    waiting: Arc<watch::Sender<usize>>,
}

impl Events {
    pub(crate) fn start(hook: Option<EventHook>) -> io::Result<Self> {
        let Some(hook) = hook else {
            return Ok(Self(None));
        };
        let (queue, events) = sync_channel(MAX_WAITING);
        let waiting = Arc::new(watch::Sender::new(0));
        let told = waiting.clone();
        let thread = thread::Builder::new().name("token-events".into());
        thread.spawn(move || tell(&hook, &events, &told))?;
        Ok(Self(Some(Hook { queue, waiting })))
    }

    /// Whether there is a hook.
    pub(crate) fn are_on(&self) -> bool {
        self.0.is_some()
    }

    /// Hands an event to the hook's thread, without waiting for it. Returns whether there was room.
    pub(crate) fn send(&self, event: Event) -> bool {
        let Some(hook) = &self.0 else { return true };
        hook.waiting.send_modify(|count| *count += 1);
        let sent = hook.queue.try_send(event).is_ok();
        if !sent {
            hook.waiting.send_modify(|count| *count -= 1);
        }
        sent
    }

    /// Waits until the hook has been told of all.
    pub(crate) async fn all_told(&self) {
        if let Some(hook) = &self.0 {
            let mut waiting = hook.waiting.subscribe();
            // The sender lives in this.
            let _ = waiting.wait_for(|count| *count == 0).await;
        }
    }
}

fn tell(hook: &EventHook, events: &Receiver<Event>, waiting: &watch::Sender<usize>) {
    for event in events {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| (hook.0)(&event))) {
            tracing::error!(kind = ?event.kind, "the hook for events panicked");
            // To drop it is code of the hook's, too, and may panic.
            std::mem::forget(payload);
        }
        waiting.send_modify(|count| *count -= 1);
    }
}
