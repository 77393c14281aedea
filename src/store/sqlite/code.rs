//! The error codes of SQLite.

use crate::error::{StoreError, StoreErrorKind};

/// SQLite's primary result code, the low byte of the extended one.
pub(super) fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code = error.as_database_error()?.code()?;
    code.parse::<i32>().ok().map(|code| code & 0xff)
}

/// SQLite's messages name tables and columns, never a bound value.
pub(super) fn store_error(error: sqlx::Error) -> StoreError {
    let kind = match &error {
        sqlx::Error::Io(_) | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
            StoreErrorKind::Unreachable
        }
        sqlx::Error::PoolTimedOut => StoreErrorKind::Timeout,
        _ => match primary_code(&error) {
            // SQLITE_BUSY, SQLITE_LOCKED
            Some(5 | 6) => StoreErrorKind::Timeout,
            // SQLITE_IOERR, SQLITE_CANTOPEN
            Some(10 | 14) => StoreErrorKind::Unreachable,
            _ => StoreErrorKind::Refused,
        },
    };
    StoreError::with_source(kind, error)
}
