//! The statements as text, for the benchmark that runs them by the bare driver.

use super::{SqliteStore, rows};
use crate::store::found::Depth;

impl SqliteStore {
    /// The statements of a load and of a commit.
    #[doc(hidden)]
    pub fn texts() -> Texts {
        Texts
    }
}

/// Each of so many rows.
#[derive(Debug)]
pub struct Texts;

impl Texts {
    /// The parts in which so many rows are read or written.
    pub fn parts<'a, T>(&self, rows: &'a [T]) -> impl Iterator<Item = &'a [T]> {
        rows::parts(rows)
    }

    /// Loads a group.
    pub fn load(&self, partitions: usize) -> String {
        rows::read_text(Depth::Values, partitions)
    }

    /// Reads a group before it is changed.
    pub fn heads(&self, partitions: usize) -> String {
        rows::read_text(Depth::Heads, partitions)
    }

    /// Replaces partitions.
    pub fn put_partitions(&self, rows: usize) -> String {
        rows::put_partitions_text(rows)
    }

    /// Puts entries.
    pub fn put_entries(&self, rows: usize) -> String {
        rows::put_entries_text(rows)
    }
}
