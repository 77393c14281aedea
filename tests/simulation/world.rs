//! What the instances of one run share: time, chance, faults, and what is known to be true.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;
use tower_token_cache::{Clock, Timestamp};

use super::model::Model;
use super::provider::Provider;
use super::rng::Rng;
use super::server::Server;
use super::sql::Sql;
use super::values::Values;

/// The wall clock at the beginning of a run.
pub const BASE: u64 = 1_700_000_000_000;

#[derive(Clone)]
pub struct World(Arc<Shared>);

struct Shared {
    started: Instant,
    state: Mutex<State>,
}

pub struct State {
    pub now: u64,
    pub rng: Rng,
    pub log: Log,
    pub instances: Vec<Instance>,
    pub server: Server,
    /// What it has besides, where it is an SQL database.
    pub sql: Option<Sql>,
    pub line: Line,
    pub model: Model,
    pub provider: Provider,
    pub values: Values,
    /// What is applied although nobody waits for it any more.
    late: Vec<(u64, Late)>,
    pub violation: Option<String>,
}

pub type Late = Box<dyn FnOnce(&mut State) + Send>;

/// One life of an instance, from its start to its shutdown or crash.
pub struct Instance {
    pub clock: Clock,
    pub skew: u64,
    /// How far its clock was set ahead, in ms, if it was ever set.
    pub ahead: Option<i64>,
    /// When its clock was last set to a later time than before.
    pub set_ahead: Option<u64>,
    /// When its machine slept, and whether its second clock stood still, too, in the last sleep.
    pub sleeps: Vec<(u64, u64)>,
    pub stands_still: bool,
    pub started: u64,
    pub ended: Option<u64>,
    pub fault: Fault,
    pub fault_until: u64,
    /// When an operation of the store last failed for this instance, or was not answered.
    pub disturbed: Option<u64>,
    /// Until when it may take the store for one that does not answer.
    pub silent_until: u64,
    /// Its links are broken, and it gets no new one.
    pub cut: bool,
    /// Until then it hears nothing.
    pub held_up_until: u64,
    /// When it was without a feed; the last may not have ended.
    pub gaps: Vec<(u64, u64)>,
    pub redraw: Arc<tokio::sync::Notify>,
}

/// The engine waits for so long at least until it takes a store that answers nothing for a silent one,
/// which it then does for so long.
pub const PATIENCE: u64 = 20;
pub const SILENCE: u64 = 1100;

/// What the store does to those who ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// It refuses.
    Down,
    /// It does what it is asked, and its answers get lost.
    Mute,
    /// It does not answer, and may have done what it was asked.
    Hung,
}

/// What the line does to what the feed tells, in percent and milliseconds.
#[derive(Clone, Copy, Default)]
pub struct Line {
    pub repeats: u64,
    pub longest: u64,
}

/// What has happened: a fingerprint, and the words if they are wanted.
pub struct Log {
    pub fingerprint: u64,
    pub lines: Vec<String>,
    pub verbose: bool,
}

impl World {
    pub fn new(seed: u64, verbose: bool) -> Self {
        let state = State {
            now: 0,
            rng: Rng::new(seed),
            log: Log {
                fingerprint: 0xcbf2_9ce4_8422_2325,
                lines: Vec::new(),
                verbose,
            },
            instances: Vec::new(),
            server: Server::new(),
            sql: None,
            line: Line::default(),
            model: Model::default(),
            provider: Provider::default(),
            values: Values::default(),
            late: Vec::new(),
            violation: None,
        };
        Self(Arc::new(Shared {
            started: Instant::now(),
            state: Mutex::new(state),
        }))
    }

    /// The state, at the present time. Never held across an await.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.state.lock().expect("no panic under the lock");
        let now = self.0.started.elapsed().as_millis() as u64;
        state.pass(now);
        state
    }

    /// Keeps all clocks with tokio's time, and does what is late.
    pub async fn keep_time(self) {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            self.lock().catch_up();
        }
    }
}

impl State {
    fn catch_up(&mut self) {
        let now = self.now;
        while let Some(at) = self.late.iter().position(|(due, _)| *due <= now) {
            let (_, act) = self.late.remove(at);
            act(self);
        }
    }

    pub fn later(&mut self, after: u64, act: Late) {
        self.late.push((self.now + after, act));
    }

    /// Starts a new instance; its number.
    pub fn start(&mut self) -> usize {
        let skew = self.rng.between(0, 2000);
        self.instances.push(Instance {
            clock: Clock::manual(Timestamp::from_millis(BASE + self.now + skew)),
            skew,
            ahead: None,
            set_ahead: None,
            sleeps: Vec::new(),
            stands_still: false,
            started: self.now,
            ended: None,
            fault: Fault::None,
            fault_until: 0,
            disturbed: None,
            silent_until: 0,
            cut: false,
            held_up_until: 0,
            gaps: Vec::new(),
            redraw: Arc::default(),
        });
        self.instances.len() - 1
    }

    /// Its feed tells it nothing until then.
    pub fn hears_nothing(&mut self, instance: usize, until: u64) {
        let (now, end) = (self.now, until + 4000);
        let gaps = &mut self.instances[instance].gaps;
        match gaps.last_mut().filter(|last| last.1 >= now) {
            // To the instance it is one gap.
            Some(last) => last.1 = last.1.max(end),
            None => gaps.push((now, end)),
        }
    }

    pub fn disturb(&mut self, instance: usize) {
        let last = &mut self.instances[instance].disturbed;
        *last = (*last).max(Some(self.now));
    }

    /// Whether the store has failed this instance since then.
    pub fn disturbed_since(&self, instance: usize, time: u64) -> bool {
        let instance = &self.instances[instance];
        instance.disturbed.is_some_and(|last| last >= time)
            || (instance.fault != Fault::None && instance.fault_until >= time)
    }

    /// Whether this instance may have gone on without the store at a time, or since.
    pub fn went_on_since(&self, instance: usize, time: u64) -> bool {
        let until = self.instances[instance].silent_until;
        until >= time || self.disturbed_since(instance, time.saturating_sub(SILENCE))
    }

    /// Whether it has ended since then.
    pub fn ended_since(&self, instance: usize, time: u64) -> bool {
        self.instances[instance].ended.is_some_and(|at| at >= time)
    }

    pub fn note(&mut self, event: fmt::Arguments<'_>) {
        let now = self.now;
        self.log.add(format_args!("{now:>7} {event}"));
    }

    /// A guarantee does not hold. The first one counts.
    pub fn violated(&mut self, what: String) {
        self.note(format_args!("VIOLATION {what}"));
        let now = self.now;
        self.violation
            .get_or_insert_with(|| format!("at {now} ms: {what}"));
    }
}

impl Log {
    fn add(&mut self, line: fmt::Arguments<'_>) {
        let _ = fmt::write(&mut Print(&mut self.fingerprint), line);
        if self.verbose {
            self.lines.push(line.to_string());
        }
    }
}

/// FNV-1a.
struct Print<'a>(&'a mut u64);

impl fmt::Write for Print<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            *self.0 = (*self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        Ok(())
    }
}
