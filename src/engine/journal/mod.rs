//! The journal: sign-outs that L2 has not acknowledged, on disk.
//!
//! Promises that a record is durable once `add` has returned, and that the next process with the same file
//! finds it. Carries *Signs out for good* across a restart. [`unacknowledged`] counts sign-outs also where
//! there is no journal. Imports no other part of the engine. Read [`writer`] first.

pub(crate) mod disk;
pub(crate) mod file;
pub(crate) mod journaled;
pub(crate) mod record;
pub(crate) mod unacknowledged;
pub(crate) mod writer;
