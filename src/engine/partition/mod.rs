//! One partition in memory: its entries, the changes that L2 does not have yet, and the work in progress.
//!
//! - Promise: only this part decides what a read may answer (`answer`) and what may enter memory (`merge`).
//!   It is synchronous; a `State` is guarded by its partition's lock, which is never held across an await.
//! - Guarantees: *Loses nothing* (`pending`, `acks`), *Signs out for good* (`observed`, `merge`), *Instances
//!   agree* (`answer`, `hints`).
//! - Imports: leaves of the engine (`budget`, `error`, `limits`, `namespace`, `sync`, `trust`, `l1::digests`,
//!   `journal::unacknowledged`) and the crate's own types; never `Engine`.
//! - Read `state` first.

pub(crate) mod acks;
pub(crate) mod answer;
pub(crate) mod by_name;
pub(crate) mod change;
pub(crate) mod entries;
pub(crate) mod entry;
pub(crate) mod hints;
pub(crate) mod life;
pub(crate) mod links;
pub(crate) mod loss;
pub(crate) mod merge;
pub(crate) mod observed;
pub(crate) mod pending;
pub(crate) mod refresh;
pub(crate) mod rules;
pub(crate) mod sign_out;
pub(crate) mod state;
pub(crate) mod touch;
pub(crate) mod waiters;
