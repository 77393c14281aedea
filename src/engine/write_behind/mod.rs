//! Write-behind.

pub(crate) mod batch;
pub(crate) mod deferred;
pub(crate) mod drain;
pub(crate) mod late_heads;
#[cfg(feature = "seal")]
pub(crate) mod plaintext;
pub(crate) mod queue;
pub(crate) mod settle;
