//! The store as an SQL database: a change reads, and writes where nothing has changed since, or begins again, as in
//! `SqlStore`. What the server has got is carried out although its client has gone: perhaps after a wait for a lock,
//! perhaps seen late, and then with a number in the log that is older than others.

mod client;
mod log;
mod transaction;

use std::collections::{BTreeMap, HashMap, HashSet};

use tower_token_cache::store::PartitionId;

pub use self::log::log;
pub use self::transaction::Change;
use super::names::PARTITIONS;
use super::rng::Rng;
use super::world::State;

/// What a database has besides partitions.
pub struct Sql {
    rng: Rng,
    /// It tells what changes by a log that is polled, and refuses reads, too, while it is read-only.
    pub logs: bool,
    /// In so many of a hundred cases a transaction is given up for the sake of others, or takes long.
    refuses: u64,
    delays: u64,
    /// How often each partition was written.
    stamps: HashMap<PartitionId, u64>,
    locked: HashSet<PartitionId>,
    read_only_until: u64,
    /// How many servers there were before this one.
    server: u64,
    last_number: u64,
    log: BTreeMap<u64, [u8; 32]>,
}

impl Sql {
    /// One that tells by a log, and is often late, if `logs` says so.
    pub fn new(seed: u64, logs: bool) -> Self {
        let mut rng = Rng::new(!seed);
        Self {
            logs: rng.percent(50) || logs,
            refuses: [2, 8, 30][rng.below(3)],
            delays: match logs {
                true => 30,
                false => [2, 10, 30][rng.below(3)],
            },
            rng,
            stamps: HashMap::new(),
            locked: HashSet::new(),
            read_only_until: 0,
            server: 0,
            last_number: 0,
            log: BTreeMap::new(),
        }
    }

    /// It gives nothing up any more, nor is it slow.
    pub fn heal(&mut self) {
        (self.read_only_until, self.refuses, self.delays) = (0, 0, 0);
    }
}

impl State {
    pub fn sql(&mut self) -> &mut Sql {
        self.sql.as_mut().expect("it is an SQL database")
    }

    /// Whether the store is read-only, and refuses this.
    pub fn refuses(&self, reads: bool) -> bool {
        let refuses = |sql: &Sql| self.now < sql.read_only_until && (sql.logs || !reads);
        self.sql.as_ref().is_some_and(refuses)
    }

    /// What happens to a database now and then. Whether another server takes over.
    pub fn trouble(&mut self, fails: bool) -> bool {
        let now = self.now;
        let rng = &mut self.sql().rng;
        let (kind, length) = (rng.below(100), rng.between(100, 4000));
        let number = rng.below(PARTITIONS);
        match kind {
            0..=5 => {
                let id = self.server.ids[number].clone();
                if self.sql().locked.insert(id.clone()) {
                    self.note(format_args!("another locks p{number} for {length} ms"));
                    let server = self.sql().server;
                    let unlock = move |state: &mut Self| {
                        if state.sql().server == server {
                            state.sql().locked.remove(&id);
                        }
                    };
                    self.later(length, Box::new(unlock));
                }
            }
            6..=7 if fails => {
                self.sql().read_only_until = now + length;
                self.note(format_args!("the store is read-only for {length} ms"));
            }
            8 if fails => {
                let sql = self.sql();
                sql.server += 1;
                sql.locked.clear();
                self.note(format_args!("another server takes over"));
                return true;
            }
            _ => {}
        }
        false
    }
}
