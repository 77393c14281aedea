//! The stores in SQL databases, on real servers.
#![allow(clippy::unwrap_used, reason = "a test")]

mod mysql;
mod postgres;
