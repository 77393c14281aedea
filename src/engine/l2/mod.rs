//! L2: calls to the store.
//!
//! Promises that a call ends within the operation timeout once it is sent, that a store that fails is left alone
//! for a while, and that entries are named and sealed on the way there and checked on the way back. Carries
//! *Survives its store*. Imports leaves only, and knows no partition in memory. Read [`calls`] first, then
//! [`attempts`].

pub(crate) mod attempts;
pub(crate) mod breaker;
pub(crate) mod calls;
pub(crate) mod entries;
pub(crate) mod pace;
pub(crate) mod questions;
#[cfg(feature = "seal")]
pub(crate) mod sealing;
#[cfg(not(feature = "seal"))]
#[path = "unsealed.rs"]
pub(crate) mod sealing;
pub(crate) mod shards;
