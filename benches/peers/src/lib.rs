//! What the benchmarks share: users, servers, counters and the report.

pub mod alloc;
pub mod delay;
pub mod process;
pub mod redis;
pub mod report;
pub mod servers;
pub mod users;
