//! Small primitives for tasks that wait for each other. They know no other part of the engine.
//! - [`once`]: one outcome for many waiters.
//! - [`in_use`]: a value per partition, for as long as a task uses it.
//! - [`until`]: how long a lease is still held.

pub(crate) mod in_use;
pub(crate) mod once;
pub(crate) mod until;
pub(crate) mod waits;
