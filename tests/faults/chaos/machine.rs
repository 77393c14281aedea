//! How late this machine is.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two wake-ups.
const TICK: Duration = Duration::from_millis(2);
/// Between two looks at how long threads have waited.
const LOOK: Duration = Duration::from_millis(100);

/// By how much everybody is late, whatever is tested: a thread of this process that does nothing but
/// wake up, and a task that does no more; and how long threads of the others were ready to run and no
/// processor was free, which the kernel counts. A thread that is kept busy does not wait.
pub(crate) struct Machine {
    lags: [Arc<Mutex<Vec<Lag>>>; 2],
    waits: Arc<Mutex<Vec<Waits>>>,
    stopped: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    task: tokio::task::JoinHandle<()>,
}

/// How long each thread of each process had waited by then.
struct Waits {
    at: Instant,
    of: Vec<HashMap<String, Duration>>,
}

#[derive(Clone, Copy)]
struct Lag {
    due: Instant,
    woke: Instant,
}

impl Machine {
    /// Watches the machine, and these processes.
    pub(crate) fn watch(processes: Vec<u32>) -> Self {
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
        let waits = Arc::<Mutex<Vec<Waits>>>::default();
        let (noted, stop) = (waits.clone(), stopped.clone());
        let looks = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let of = processes.iter().map(|process| waits_of(*process)).collect();
                let at = Instant::now();
                noted.lock().unwrap().push(Waits { at, of });
                std::thread::sleep(LOOK);
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
            waits,
            threads: vec![thread, looks],
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

    /// How long the thread of a process that waited most was ready to run in this time, and was not.
    pub(crate) fn waited(&self, process: usize, from: Instant, to: Instant) -> Duration {
        let waits = self.waits.lock().unwrap();
        let first = waits
            .partition_point(|waits| waits.at <= from)
            .saturating_sub(1);
        let last = waits.partition_point(|waits| waits.at < to);
        let (Some(first), Some(last)) = (waits.get(first), waits.get(last.min(waits.len() - 1)))
        else {
            return Duration::ZERO;
        };
        let waited = |(thread, until): (&String, &Duration)| {
            let before = first.of[process].get(thread).copied();
            until.saturating_sub(before.unwrap_or_default())
        };
        last.of[process]
            .iter()
            .map(waited)
            .max()
            .unwrap_or_default()
    }
}

/// How long each thread of a process has been ready to run without a processor, so far.
fn waits_of(process: u32) -> HashMap<String, Duration> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task"));
    let wait = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        let nanos = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
        let name = task.file_name().to_string_lossy().into_owned();
        Some((name, Duration::from_nanos(nanos)))
    };
    tasks
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(wait)
        .collect()
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
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
