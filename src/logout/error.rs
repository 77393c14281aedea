//! `LogoutError`.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use http::StatusCode;

use crate::error::Error;

/// Why a logout token has ended no session. No message holds anything of the token.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LogoutError {
    /// The token is not valid: a 400. The text says which check has failed, and may be shown to the provider.
    Invalid(&'static str),
    /// The issuer's keys could not be fetched, so that it is not known whether the token is valid: a 503.
    Keys(Arc<dyn StdError + Send + Sync>),
    /// The store does not know of the sign-out: a 503. It may hold in this process.
    Store(Error),
}

impl LogoutError {
    pub(super) const CUT_OFF: Self = Self::Invalid("the form was cut off");

    /// The HTTP status to answer the provider with (§2.8): after a 503 it tries again.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::Keys(_) | Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    pub(super) fn keys(source: impl StdError + Send + Sync + 'static) -> Self {
        Self::Keys(Arc::new(source))
    }
}

impl fmt::Display for LogoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(reason) => write!(f, "the logout token is not valid: {reason}"),
            Self::Keys(_) => f.write_str("the issuer's keys cannot be fetched"),
            Self::Store(_) => f.write_str("the store does not know of the sign-out"),
        }
    }
}

impl StdError for LogoutError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Invalid(_) => None,
            Self::Keys(source) => Some(&**source),
            Self::Store(source) => Some(source),
        }
    }
}

impl From<Error> for LogoutError {
    fn from(error: Error) -> Self {
        match error {
            Error::InvalidKey(_) => {
                Self::Invalid("`sub`, `sid` or `jti` is too long, or has control characters")
            }
            error => Self::Store(error),
        }
    }
}
