//! The stores in SQL databases, on real servers: one that tests share, and others for those that do harm.

mod defaults;
mod far;
mod faults;
mod full_disk;
mod keys;
mod leases;
mod mysql;
mod pooled;
mod postgres;
pub(crate) mod server;
mod settings;
mod stepped;
mod sweep;
mod tables;
mod told;
