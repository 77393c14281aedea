//! What an error of the database means.

use std::fmt;

use crate::error::{StoreError, StoreErrorKind};

/// What is to be done about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was changed, and the same may succeed at once: a deadlock, a row that another has written first.
    Again,
    /// The connection is of no use any more; another one may do. A change may have been made.
    Cut,
    /// The answer.
    Final(StoreErrorKind),
}

/// What the server said, without the details, in which there may be values.
#[derive(Debug)]
struct ServerError {
    code: String,
    message: String,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.message, self.code)
    }
}

impl std::error::Error for ServerError {}

pub(super) fn verdict(
    error: &sqlx::Error,
    of_server: fn(&dyn sqlx::error::DatabaseError) -> Verdict,
) -> Verdict {
    match error {
        sqlx::Error::Database(error) => of_server(&**error),
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => Verdict::Cut,
        sqlx::Error::Configuration(error) => {
            let own = error.downcast_ref::<StoreError>();
            Verdict::Final(own.map_or(StoreErrorKind::Refused, StoreError::kind))
        }
        sqlx::Error::Tls(_) => Verdict::Final(StoreErrorKind::Unreachable),
        _ => Verdict::Final(StoreErrorKind::Refused),
    }
}

pub(super) fn store_error(error: sqlx::Error, verdict: Verdict) -> StoreError {
    let kind = match verdict {
        Verdict::Again => StoreErrorKind::Timeout,
        Verdict::Cut => StoreErrorKind::Unreachable,
        Verdict::Final(kind) => kind,
    };
    match error {
        sqlx::Error::Database(error) => StoreError::with_source(
            kind,
            ServerError {
                code: error.code().unwrap_or_default().into_owned(),
                message: error.message().into(),
            },
        ),
        sqlx::Error::Configuration(error) => match error.downcast::<StoreError>() {
            Ok(own) => *own,
            Err(error) => StoreError::with_source(kind, error),
        },
        error => StoreError::with_source(kind, error),
    }
}

/// Why a connection is not used: an error of its own, that is the source of the answer.
pub(super) fn unfit(reason: impl Into<String>) -> sqlx::Error {
    sqlx::Error::Configuration(reason.into().into())
}
