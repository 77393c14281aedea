//! What is true of a whole process: its logs, its memory, its tasks. Each test runs in a process of
//! its own, which it starts itself (see [`common::own_process`]).
#![allow(clippy::unwrap_used, reason = "a test")]

mod g10_secrets_stay_secret;
#[cfg(target_os = "linux")]
mod memory_wiped;
#[cfg(target_os = "linux")]
mod soak;
mod taken_once;
