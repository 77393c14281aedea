//! The engine..

pub(crate) mod acquire;
pub(crate) mod budget;
pub(crate) mod coherence;
pub(crate) mod core;
pub(crate) mod error;
pub(crate) mod fallback;
pub(crate) mod fingerprint;
pub(crate) mod journal;
pub(crate) mod l1;
pub(crate) mod l2;
pub(crate) mod limits;
pub(crate) mod load;
pub(crate) mod namespace;
#[cfg(test)]
mod overload_tests;
pub(crate) mod partition;
pub(crate) mod read;
pub(crate) mod rename;
pub(crate) mod runtime;
pub(crate) mod sessions;
pub(crate) mod shutdown;
pub(crate) mod sign_out;
pub(crate) mod stats;
pub(crate) mod sync;
pub(crate) mod trust;
pub(crate) mod write;
pub(crate) mod write_behind;
