//! Where the engine's tasks run, and how long callers wait for them.
//!
//! Promises that a caller is never blocked beyond its deadline, and that an operation that has begun runs to
//! its end. Carries part of *Loses nothing* and of *Survives its store*. [`thread`], [`step`] and
//! [`operations`] import nothing of the engine; [`detached`] and [`bounded`] are methods of `Engine`. Read
//! [`detached`] first.

pub(crate) mod bounded;
pub(crate) mod detached;
pub(crate) mod operations;
pub(crate) mod step;
pub(crate) mod thread;
