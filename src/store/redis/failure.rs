//! What an error of the client says of the connection.

use std::io;

use bb8_redis::redis::{RedisError, RedisResult, Value};

/// Whether the connection was cut: what was sent may or may not have arrived, and another connection
/// may do. One that is refused, or takes too long, is none that was cut.
pub(super) fn was_cut(error: &RedisError) -> bool {
    error.is_connection_dropped() && !error.is_connection_refusal()
}

/// Whether the connection is to blame, and not what was asked.
pub(super) fn is_unanswered(error: &RedisError) -> bool {
    error.is_timeout()
        || error.is_io_error()
        || error.is_connection_dropped()
        || error.is_unrecoverable_error()
}

pub(super) fn timed_out() -> RedisError {
    io::Error::new(io::ErrorKind::TimedOut, "no answer within the time allowed").into()
}

/// Why a connection could not be made. It is no answer that is late, and none to what was asked: a
/// sentinel may have given it.
pub(super) fn not_connected(error: RedisError) -> RedisError {
    if error.is_timeout() {
        return no_connection();
    }
    match is_unanswered(&error) {
        true => error,
        false => io::Error::other(error).into(),
    }
}

pub(super) fn no_connection() -> RedisError {
    io::Error::other("no connection within the time allowed").into()
}

/// Whether this is a master's answer to `ROLE`. Who may not ask has to believe it.
pub(super) fn is_master(role: &RedisResult<Value>) -> bool {
    match role {
        Ok(Value::Array(parts)) => match parts.first() {
            Some(Value::BulkString(role)) => role == b"master",
            _ => false,
        },
        Ok(_) => false,
        Err(error) => error.code() == Some("NOPERM"),
    }
}
