//! L2.

pub(crate) mod attempts;
pub(crate) mod breaker;
pub(crate) mod calls;
pub(crate) mod entries;
pub(crate) mod pace;
pub(crate) mod questions;
pub(crate) mod shards;
