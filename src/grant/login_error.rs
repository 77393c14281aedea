//! Why a login has not succeeded.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use http::StatusCode;

use super::claims::IdTokenError;
use crate::acquire::{AcquireError, ProviderError};
use crate::error::{Error, whole_seconds};

/// Why a login could not begin, or has not succeeded: [`AuthorizationCode`](super::AuthorizationCode) says when.
///
/// A handler of axum or actix-web can return it: it answers with its [status](Self::status) and
/// [`Retry-After`](Self::retry_after), and the client learns no more. Why is in the log, at level debug. No message holds a code, a state, a token or a claim.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoginError {
    /// The session could not keep or give back the login.
    Session(Error),
    /// The return address is no path of this site, or longer than 2048 bytes.
    ReturnAddress,
    /// The callback has no state, or neither a code nor an error.
    Malformed,
    /// The callback's state is not of a login that this browser has begun here within ten minutes, or is of one that has
    /// ended: the callback was repeated, or forged. So it is in a browser that has no session here, or none any more, and
    /// in a tab that comes back after another tab of the same session has signed in: send on a browser that is signed in,
    /// and let others begin again.
    UnknownState,
    /// The callback is of another provider than the login was begun at, or says so (RFC 9207): a mix-up attack, or two
    /// providers that share a redirect URI.
    WrongIssuer,
    /// The user, or a policy of the provider, has said no (`access_denied`).
    Denied,
    /// The provider has answered with another error, in the callback or at its token endpoint, or not at all. With
    /// `invalid_grant` the code was spent, has expired, or is of another login.
    Provider(ProviderError),
    /// The id token is missing, or is not for this login.
    IdToken(IdTokenError),
}

impl LoginError {
    /// The HTTP status that says what a client can do about it: 400 and 403 for callbacks and return addresses, the one
    /// of [`Error`] for those of the session and of the provider, and 502 for an id token.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Session(error) => error.status(),
            Self::ReturnAddress | Self::Malformed | Self::UnknownState | Self::WrongIssuer => {
                StatusCode::BAD_REQUEST
            }
            Self::Denied => StatusCode::FORBIDDEN,
            Self::Provider(error) => Error::from(AcquireError::new(error.kind())).status(),
            Self::IdToken(_) => StatusCode::BAD_GATEWAY,
        }
    }
}

impl LoginError {
    /// After which time a login may succeed, in whole seconds from 1 on: the header `Retry-After` of the response, as
    /// [`Error::retry_after`] has it. `None` where waiting does not help, or the provider has not said for how long.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Session(error) => error.retry_after(),
            Self::Provider(error) => error.retry_after().map(whole_seconds),
            _ => None,
        }
    }
}

impl fmt::Display for LoginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Session(_) => "the session could not keep the login",
            Self::ReturnAddress => "the return address is no path of this site",
            Self::Malformed => "the callback has no state, or neither a code nor an error",
            Self::UnknownState => "the callback ends no login that this browser has begun",
            Self::WrongIssuer => "the callback is of another provider than the login",
            Self::Denied => "the login was denied",
            Self::Provider(_) => "the provider has not signed the user in",
            Self::IdToken(_) => "the id token is not for this login",
        })
    }
}

impl StdError for LoginError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Session(error) => Some(error),
            Self::Provider(error) => Some(error),
            Self::IdToken(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Error> for LoginError {
    fn from(error: Error) -> Self {
        Self::Session(error)
    }
}

impl From<ProviderError> for LoginError {
    fn from(error: ProviderError) -> Self {
        Self::Provider(error)
    }
}

impl From<IdTokenError> for LoginError {
    fn from(error: IdTokenError) -> Self {
        Self::IdToken(error)
    }
}
