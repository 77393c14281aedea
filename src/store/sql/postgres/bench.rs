//! The statements as text, for the benchmark that runs them by the bare driver.

use std::sync::Arc;

use super::Postgres;
use crate::store::SqlStore;
use crate::store::found::Depth;

impl SqlStore<Postgres> {
    /// What reads a group before a change, what loads one, and what writes one.
    #[doc(hidden)]
    pub fn texts(&self) -> [Arc<str>; 3] {
        let statements = &self.dialect.statements;
        [
            statements.read(Depth::Heads).0,
            statements.read(Depth::Values).0,
            statements.write().0,
        ]
    }
}
