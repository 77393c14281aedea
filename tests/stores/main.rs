//! What the stores promise, on their real servers and files; and what is at rest in them.
#![allow(clippy::unwrap_used, reason = "a test")]

mod cas;
mod cas_careless;
mod cas_moves;
mod feed;
mod feed_faults;
mod import;
mod log;
mod memcached;
mod memcached_servers;
mod migration;
mod promises;
mod redis_credentials;
mod redis_resharding;
mod redis_topologies;
mod redis_wire;
mod sealed;
mod session_values;
mod sizes;
mod sql;
mod sqlite;
mod store_conformance;
