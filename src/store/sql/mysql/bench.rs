//! The statements as text, for the benchmark that runs them by the bare driver.

use super::MySql;
use crate::store::SqlStore;
use crate::store::found::Depth;

impl SqlStore<MySql> {
    /// The statements of a load and of a commit.
    #[doc(hidden)]
    pub fn texts(&self) -> Texts<'_> {
        Texts(self)
    }
}

/// Each of so many rows.
#[derive(Debug)]
pub struct Texts<'a>(&'a SqlStore<MySql>);

impl Texts<'_> {
    /// Loads a group.
    pub fn load(&self, partitions: usize) -> String {
        self.0.dialect.statements.read(Depth::Values, partitions).0
    }

    /// Reads a group before it is changed.
    pub fn heads(&self, partitions: usize) -> String {
        self.0.dialect.statements.read(Depth::Heads, partitions).0
    }

    /// Begins a transaction, and locks these partitions.
    pub fn begin(&self, ids: &[[u8; 32]], not_after: i64) -> String {
        self.0.dialect.statements.begin(ids.iter(), not_after)
    }

    /// Replaces partitions.
    pub fn put_partitions(&self, rows: usize) -> String {
        self.0.dialect.statements.put_partitions(rows, false).0
    }

    /// Puts entries.
    pub fn put_entries(&self, rows: usize) -> String {
        self.0.dialect.statements.put_entries(rows).0
    }

    /// Tells of these partitions, and commits.
    pub fn commit(&self, told: &[[u8; 32]]) -> String {
        self.0.dialect.statements.commit(told.iter())
    }
}
