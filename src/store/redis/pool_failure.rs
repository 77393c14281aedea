//! Why a connection of the pool failed.

use bb8_redis::redis::RedisError;

use super::failure::not_connected;

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Failure {
    /// It could not be made.
    Connect(RedisError),
    /// One that there was is of no more use. Another takes its place.
    Invalid,
}

impl Failure {
    pub(super) fn connect(error: RedisError) -> Self {
        Self::Connect(not_connected(error))
    }
}
