//! Where the engine runs.

pub(crate) mod bounded;
pub(crate) mod detached;
pub(crate) mod operations;
pub(crate) mod step;
pub(crate) mod thread;
