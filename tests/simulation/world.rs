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
use super::values::Values;

/// The wall clock at the beginning of a run.
pub const BASE: u64 = 1_700_000_000_000;

const HOUR: i64 = 3_600_000;

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
    fn pass(&mut self, now: u64) {
        let step = Duration::from_millis(now - self.now);
        if step.is_zero() {
            return;
        }
        self.now = now;
        self.server.clock.advance(step);
        for instance in &self.instances {
            instance.clock.advance(step);
        }
    }

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

    /// The wall clock of an instance.
    pub fn clock_of(&self, instance: usize) -> u64 {
        let instance = &self.instances[instance];
        let time = BASE + self.now + instance.skew;
        time.saturating_add_signed(instance.ahead.unwrap_or(0))
    }

    /// Somebody sets the clock of an instance, an hour ahead or back, or right.
    pub fn step_clock(&mut self, instance: usize) {
        let ahead = [-HOUR, 0, HOUR][self.rng.below(3)];
        self.instances[instance].ahead = Some(ahead);
        let time = self.clock_of(instance);
        self.instances[instance]
            .clock
            .set(Timestamp::from_millis(time));
        self.note(format_args!("the clock of i{instance} is {ahead} ms ahead"));
    }

    /// Whether an instance has had a clock by which what expires may have expired, or lives on.
    pub fn misjudges_expiry(&self, instance: usize) -> bool {
        self.instances[instance].ahead.is_some()
    }

    pub fn disturb(&mut self, instance: usize) {
        self.instances[instance].disturbed = Some(self.now);
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
