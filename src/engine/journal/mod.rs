//! The journal.

pub(crate) mod disk;
pub(crate) mod file;
pub(crate) mod journaled;
pub(crate) mod record;
pub(crate) mod unacknowledged;
pub(crate) mod writer;
