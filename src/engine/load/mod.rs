//! Loads: reading a partition from L2 into memory.
//!
//! - Promise: a partition has at most one load at a time, which all callers share. If memory may still be
//!   current, only the version is read. What a commit or sign-out has overtaken does not enter memory.
//! - Guarantees: *Instances agree* (revalidation), *Signs out for good* (overtaken reads), *Loses nothing*
//!   (what L2 has lost is written again).
//! - Imports: `Engine`, its parts `l2::questions` and `partition`, and leaves (`error`, `sync`).
//! - Read `single_flight` first. The plain load asks there, by `groups`, and takes `decode` and `merge` from `fetch`; `fetch` itself is
//!   for what takes several questions.

pub(crate) mod fetch;
pub(crate) mod groups;
pub(crate) mod single_flight;
