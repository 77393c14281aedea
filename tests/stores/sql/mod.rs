//! The stores in SQL databases, on real servers: one that tests share, and others for those that do harm.

mod far;
mod faults;
mod instances;
mod mysql;
mod postgres;
mod server;
mod settings;
