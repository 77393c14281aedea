//! L1: the partitions in memory.
//!
//! Promises that a key has one partition at a time, that all partitions together stay within
//! [`L1::max_bytes`](crate::L1::max_bytes), and that one with work under way is never evicted. Carries
//! *Fast*, and the memory side of *Loses nothing*. Imports `partition`, the count of sign-outs in `journal`,
//! and leaves. Read [`table`] first: `hit` is the path of every hit, `with` that of every change.

pub(crate) mod digests;
pub(crate) mod eviction;
pub(crate) mod stripe;
pub(crate) mod table;
