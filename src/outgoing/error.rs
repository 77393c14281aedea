//! Why a request was not sent.

use std::error::Error as StdError;
use std::fmt;

use http::StatusCode;

use crate::error::Error;

/// Why there is no token for a request, which was not sent.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TokenError {
    /// The request has no [`Tokens`](crate::Tokens) in its extensions, and the layer was made
    /// without.
    NoTokens,
    /// The cache has no token and got none. With [`Error::StepUp`] the service wants more than the token has, and only
    /// the user can give it.
    Cache(Error),
    /// The token is of another [type](crate::Token::token_type) than `Bearer`, or has characters
    /// that no header can hold.
    NotBearer,
}

impl TokenError {
    /// Whether the service wants what only the user can give.
    pub(super) fn needs_user(&self) -> bool {
        matches!(self, Self::Cache(Error::StepUp(_)))
    }

    /// The HTTP status that says what a client can do about it: that of the [`Error`]; 500 where nothing says whose token
    /// it is, and 502 for a token that cannot be sent.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoTokens => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Cache(error) => error.status(),
            Self::NotBearer => StatusCode::BAD_GATEWAY,
        }
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoTokens => "it is not said whose token an outgoing request needs",
            Self::Cache(_) => "there is no token for an outgoing request",
            Self::NotBearer => "the token cannot be sent as a bearer token",
        })
    }
}

impl StdError for TokenError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Cache(source) => Some(source),
            Self::NoTokens | Self::NotBearer => None,
        }
    }
}

/// Why a [`BearerService`](super::BearerService) has no response: `E` is the error of the service
/// that sends requests.
///
/// A handler of axum or actix-web can return it: a user who has to sign in is answered 401, and what is sent to the client
/// says nothing of the request that went out.
///
/// With feature `reqwest-middleware` the errors of that crate convert into it, so that a [`TokenError`] is found:
///
/// ```
/// # #[cfg(feature = "reqwest-middleware")]
/// # mod calls {
/// use reqwest_middleware::{ClientWithMiddleware, Error};
/// use tower_token_cache::{Tokens, outgoing::CallError};
///
/// async fn call(http: ClientWithMiddleware, tokens: Tokens) -> Result<reqwest::Response, CallError<Error>> {
///     let request = http.get("https://graph.example/me").with_extension(tokens);
///     Ok(request.send().await?)
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CallError<E> {
    /// There is no token, or none that is enough. After a 401 or a 403 this may be said of the second attempt.
    Token(TokenError),
    /// The request could not be sent, or was not answered.
    Call(E),
}

impl<E> CallError<E> {
    /// The HTTP status that says what a client can do about it: [that of the token](TokenError::status), and 502 where there
    /// is no answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Token(error) => error.status(),
            Self::Call(_) => StatusCode::BAD_GATEWAY,
        }
    }
}

impl<E> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "an outgoing request has no token",
            Self::Call(_) => "an outgoing request failed",
        })
    }
}

impl<E: StdError + 'static> StdError for CallError<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Token(source) => Some(source),
            Self::Call(source) => Some(source),
        }
    }
}
