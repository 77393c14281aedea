//! What the stores promise, on their real servers and files; and what is at rest in them.
#![allow(clippy::unwrap_used, reason = "a test")]

mod cas;
mod cas_moves;
mod feed;
mod feed_faults;
mod log;
mod memcached;
mod memcached_servers;
mod redis_resharding;
mod redis_topologies;
mod redis_wire;
mod sealed;
mod session_values;
mod sqlite;
mod store_conformance;
