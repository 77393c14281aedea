//! What the answers of Redis mean.

use bb8_redis::redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};

use super::record;
use crate::error::{StoreError, StoreErrorKind};
use crate::store::Loaded;
use crate::time::Timestamp;

pub(super) fn time(answer: RedisResult<Value>) -> Result<Timestamp, StoreError> {
    record::time(answer.map_err(store_error)?).ok_or_else(unexpected)
}

pub(super) fn partition(answer: RedisResult<Value>, now: Timestamp) -> Result<Loaded, StoreError> {
    match answer {
        Ok(hash) => record::load(hash, now).ok_or_else(unexpected),
        // Something that is no hash stands in the partition's place.
        Err(error) if lacks_type(&error) => Ok(Loaded {
            damaged: 1,
            ..Loaded::default()
        }),
        Err(error) => Err(store_error(error)),
    }
}

pub(super) fn lost_script(answer: &RedisResult<Value>) -> bool {
    let lost = ErrorKind::Server(ServerErrorKind::NoScript);
    answer.as_ref().is_err_and(|error| error.kind() == lost)
}

pub(super) fn lacks_type(error: &RedisError) -> bool {
    error.code() == Some("WRONGTYPE")
}

pub(super) fn store_error(error: RedisError) -> StoreError {
    let kind = if error.is_timeout() {
        StoreErrorKind::Timeout
    } else if error.is_io_error() || error.is_connection_dropped() || error.is_unrecoverable_error()
    {
        StoreErrorKind::Unreachable
    } else {
        StoreErrorKind::Refused
    };
    StoreError::with_source(kind, error)
}

/// The server's answer is not of the form that our commands have.
pub(super) fn unexpected() -> StoreError {
    StoreError::new(StoreErrorKind::Refused)
}
