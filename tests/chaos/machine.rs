//! How late this machine is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two wake-ups.
const TICK: Duration = Duration::from_millis(2);

/// A thread of this process that does nothing but wake up. By how much it is late, everybody on this
/// machine is: it shares the processors with all else, and nothing of what is tested.
pub(crate) struct Machine {
    lags: Arc<Mutex<Vec<Lag>>>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy)]
struct Lag {
    due: Instant,
    woke: Instant,
}

impl Machine {
    pub(crate) fn watch() -> Self {
        let (lags, stopped) = (
            Arc::<Mutex<Vec<Lag>>>::default(),
            Arc::<AtomicBool>::default(),
        );
        let (noted, stop) = (lags.clone(), stopped.clone());
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let due = Instant::now() + TICK;
                std::thread::sleep(TICK);
                let woke = Instant::now();
                if woke - due > TICK {
                    noted.lock().unwrap().push(Lag { due, woke });
                }
            }
        });
        Self {
            lags,
            stopped,
            thread: Some(thread),
        }
    }

    /// The worst lag that overlaps this time.
    pub(crate) fn worst(&self, from: Instant, to: Instant) -> Duration {
        let lags = self.lags.lock().unwrap();
        let first = lags.partition_point(|lag| lag.woke < from);
        let within = lags[first..].iter().take_while(|lag| lag.due <= to);
        within
            .map(|lag| lag.woke - lag.due)
            .max()
            .unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
