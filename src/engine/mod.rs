//! The engine: everything between the handles ([`Tokens`](crate::Tokens)) and the store.
//!
//! ```text
//!   operations    read   write   take   rename   sessions   sign_in   sign_out   what a handle asks for
//!                 (beside them: fallback, shutdown, stats, health, listed, tell)
//!                                 |
//!   work          acquire   write_behind   load   coherence        flights and background tasks
//!                                 |
//!   core          Engine, the state that all of them share
//!                                 |
//!   resources     l2 (the store)   l1 (memory)   journal (disk)
//!                                 |
//!   partition     the state of one partition: pure, no I/O; it marks what is to be sent
//!                                 |
//!   leaves        trust   namespace   error   limits   budget   fingerprint   revocations   events
//!                 sync   runtime
//!                 the settings: cache::{l1, lifetimes, timeouts, acquisitions}
//! ```
//!
//! Imports go down, and no file imports itself in a circle. Parts call each other by methods of `Engine`, which
//! take no import. Three kinds of imports go up: `core` owns the tables of the parts above it (`Flights`,
//! `Coherence`, `Queue`, `Deferred`, `UserSignOuts`); `partition` keeps a place in an index (`l1::digests`), a
//! count of sign-outs (`journal::unacknowledged`) and tokens to revoke ([`revocations`]), which import no other part;
//! `runtime::{detached, bounded}` are methods of `Engine`.
//!
//! A hit is understood from five files: `layer/settings.rs` makes the handle, `tokens.rs` asks, and then come
//! [`read`] (`hit`), [`l1::table`] (`hit`) and [`partition::answer`] (`fresh_value`). It takes no await and no
//! I/O, and three looks elsewhere: at the proofs of the feed ([`trust`], `usable_era`), at the epochs of linked users
//! ([`partition::links`]), and at whether the order of eviction has to record the use ([`l1::eviction`]).

pub(crate) mod acquire;
pub(crate) mod budget;
pub(crate) mod coherence;
pub(crate) mod core;
pub(crate) mod error;
pub(crate) mod events;
pub(crate) mod fallback;
pub(crate) mod fingerprint;
pub(crate) mod health;
pub(crate) mod journal;
pub(crate) mod l1;
pub(crate) mod l2;
pub(crate) mod limits;
pub(crate) mod listed;
pub(crate) mod load;
pub(crate) mod namespace;
#[cfg(test)]
mod overload_tests;
pub(crate) mod partition;
pub(crate) mod read;
pub(crate) mod rename;
pub(crate) mod revocations;
pub(crate) mod runtime;
pub(crate) mod sessions;
pub(crate) mod shutdown;
pub(crate) mod sign_in;
pub(crate) mod sign_out;
pub(crate) mod stats;
pub(crate) mod sync;
pub(crate) mod take;
mod tell;
pub(crate) mod trust;
pub(crate) mod write;
pub(crate) mod write_behind;
