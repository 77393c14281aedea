//! Servers, networks, processes and runtimes that fail, in real time.
#![allow(clippy::unwrap_used, reason = "a test")]

mod chaos;
mod fleet;
mod journal;
#[cfg(target_os = "linux")]
mod load;
mod outage;
mod redis_faults;
mod rotation;
mod runtimes;

/// One at a time: each of the tests that take it is a load on the whole machine.
static MACHINE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
