//! Write-behind: sends the pending work of partitions to L2 in groups: changes, acquired tokens that memory does
//! not show yet, sign-outs, and touches.
//!
//! Promises that a change reaches L2 or is reported, in the order of its partition, and that a change which
//! failed is retried. Carries *Loses nothing*, and *Fast* for writes. Imports `core`, `l2`, `partition` and
//! leaves. Read [`enqueue`] and [`drain`] first, then [`group`]: `take_work` decides what a partition sends
//! next. [`plaintext`] has no effect without encryption.

pub(crate) mod deferred;
pub(crate) mod drain;
pub(crate) mod enqueue;
pub(crate) mod group;
pub(crate) mod late_heads;
pub(crate) mod plaintext;
pub(crate) mod queue;
pub(crate) mod settle;
