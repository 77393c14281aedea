//! The two sides of a comparison take turns.

use std::fmt;
use std::time::{Duration, Instant};

use peers::process::cpu_time;
use peers::report::median;
use peers::users::{STRIDE, USERS};

use super::side::Side;

pub const ROUNDS: usize = 11;
/// How long each side has in a round.
pub const TURN: Duration = Duration::from_millis(60);

/// What is asked for, of so many users at once.
#[derive(Clone, Copy)]
pub enum Case {
    Load(usize),
    Commit(usize),
}

const CASES: [Case; 6] = [
    Case::Load(1),
    Case::Load(16),
    Case::Load(64),
    Case::Commit(1),
    Case::Commit(16),
    Case::Commit(64),
];

/// A case of one store.
pub struct Row {
    pub case: Case,
    /// Medians of the rounds.
    pub ours: Cost,
    pub raw: Cost,
    /// The median of the rounds' ratios of throughput, ours to raw.
    pub ratio: f64,
}

/// Of one call, in µs.
pub struct Cost {
    pub time: f64,
    /// CPU time of this process, all threads.
    pub cpu: f64,
}

/// A store.
pub struct Measured {
    pub store: &'static str,
    pub rows: Vec<Row>,
    /// Bytes of all users, as they have signed in.
    pub stored: u64,
    /// And once all were changed twice.
    pub changed: u64,
    /// The same, as `Estimate` says.
    pub estimate: u64,
}

pub async fn compare(ours: &mut impl Side, raw: &mut impl Side) -> Vec<Row> {
    let mut rows = Vec::new();
    for case in CASES {
        let (mut of_ours, mut of_raw) = (Vec::new(), Vec::new());
        let (mut next_ours, mut next_raw) = (0, 0);
        // The first round warms up. Who is first changes.
        for round in 0..=ROUNDS {
            let (mine, theirs) = match round % 2 {
                0 => {
                    let mine = turn(ours, case, &mut next_ours).await;
                    (mine, turn(raw, case, &mut next_raw).await)
                }
                _ => {
                    let theirs = turn(raw, case, &mut next_raw).await;
                    (turn(ours, case, &mut next_ours).await, theirs)
                }
            };
            if round > 0 {
                of_ours.push(mine);
                of_raw.push(theirs);
            }
        }
        let ratios = of_ours.iter().zip(&of_raw);
        let mut ratios: Vec<_> = ratios.map(|(ours, raw)| raw.time / ours.time).collect();
        rows.push(Row {
            case,
            ratio: median(&mut ratios),
            ours: middle(&of_ours),
            raw: middle(&of_raw),
        });
    }
    rows
}

fn middle(costs: &[Cost]) -> Cost {
    let of = |part: fn(&Cost) -> f64| median(&mut costs.iter().map(part).collect::<Vec<_>>());
    Cost {
        time: of(|cost| cost.time),
        cpu: of(|cost| cost.cpu),
    }
}

async fn turn(side: &mut impl Side, case: Case, next: &mut usize) -> Cost {
    let size = match case {
        Case::Load(size) | Case::Commit(size) => size,
    };
    let (start, cpu, mut times) = (Instant::now(), cpu_time(), Vec::new());
    while start.elapsed() < TURN || times.len() < 4 {
        let users: Vec<_> = (0..size).map(|at| (*next + at) * STRIDE % USERS).collect();
        *next += size;
        let begun = Instant::now();
        match case {
            Case::Load(_) => side.load(&users).await,
            Case::Commit(_) => side.commit(&users).await,
        }
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    let cpu = (cpu_time() - cpu).as_secs_f64() * 1e6 / times.len() as f64;
    // The slowest quarter is left out: other processes of the machine come in between.
    times.sort_by(f64::total_cmp);
    times.truncate(times.len() * 3 / 4);
    let time = times.iter().sum::<f64>() / times.len() as f64;
    Cost { time, cpu }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load(users) => write!(f, "miss, {users}"),
            Self::Commit(users) => write!(f, "commit, {users}"),
        }
    }
}
