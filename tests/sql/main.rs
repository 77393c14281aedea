//! The stores in SQL databases, on real servers: one that tests share, and others for those that do harm.
#![allow(clippy::unwrap_used, reason = "a test")]

mod faults;
mod instances;
mod mysql;
mod postgres;
mod server;
mod settings;
