//! Small primitives for tasks that wait for each other. They know no other part of the engine.
//! - [`once`]: one outcome for many waiters.
//! - [`in_use`]: a value per partition, for as long as a task uses it.
//! - [`until`]: how long a lease is still held.
//! - [`allowance`]: how much longer an acquisition waits for L2.

pub(crate) mod allowance;
pub(crate) mod in_use;
pub(crate) mod once;
pub(crate) mod until;
pub(crate) mod waits;
