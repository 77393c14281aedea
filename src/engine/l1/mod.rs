//! L1.

pub(crate) mod digests;
pub(crate) mod eviction;
pub(crate) mod stripe;
pub(crate) mod table;
