//! How late this machine is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two wake-ups.
const TICK: Duration = Duration::from_millis(2);

/// A thread of this process that does nothing but wake up, and a task that does no more. By how much
/// they are late, everybody on this machine and whoever asks in this process is: they share the
/// processors with all else, and nothing of what is tested.
pub(crate) struct Machine {
    lags: [Arc<Mutex<Vec<Lag>>>; 2],
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Clone, Copy)]
struct Lag {
    due: Instant,
    woke: Instant,
}

impl Machine {
    pub(crate) fn watch() -> Self {
        let lags = [(); 2].map(|()| Arc::<Mutex<Vec<Lag>>>::default());
        let stopped = Arc::<AtomicBool>::default();
        let [of_thread, of_task] = lags.clone();
        let stop = stopped.clone();
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let due = Instant::now() + TICK;
                std::thread::sleep(TICK);
                note(&of_thread, due);
            }
        });
        let task = tokio::spawn(async move {
            loop {
                let due = Instant::now() + TICK;
                tokio::time::sleep(TICK).await;
                note(&of_task, due);
            }
        });
        Self {
            lags,
            stopped,
            thread: Some(thread),
            task,
        }
    }

    /// The worst lag that overlaps this time.
    pub(crate) fn worst(&self, from: Instant, to: Instant) -> Duration {
        let worst = |lags: &Arc<Mutex<Vec<Lag>>>| {
            let lags = lags.lock().unwrap();
            let first = lags.partition_point(|lag| lag.woke < from);
            let within = lags[first..].iter().take_while(|lag| lag.due <= to);
            within.map(|lag| lag.woke - lag.due).max()
        };
        self.lags.iter().filter_map(worst).max().unwrap_or_default()
    }
}

fn note(lags: &Mutex<Vec<Lag>>, due: Instant) {
    let woke = Instant::now();
    if woke - due > TICK {
        lags.lock().unwrap().push(Lag { due, woke });
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.task.abort();
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
