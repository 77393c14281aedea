//! `TokensRejection`: shared by the extractors of both web frameworks.

use std::fmt;

use crate::tokens::Tokens;

/// Why a handler cannot have [`Tokens`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokensRejection {
    /// The request has no partition key, and the layer [issues](crate::session) none: 401.
    Anonymous,
    /// No [`TokenCacheLayer`](crate::TokenCacheLayer) wraps this route: 500.
    MissingLayer,
}

impl TokensRejection {
    /// The HTTP status that tells it to the client.
    pub fn status(self) -> http::StatusCode {
        match self {
            Self::Anonymous => http::StatusCode::UNAUTHORIZED,
            Self::MissingLayer => http::StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// The handle that the layer has left in a request's extensions, for a handler that demands one.
pub(crate) fn demand(found: Option<&Tokens>) -> Result<Tokens, TokensRejection> {
    match found {
        Some(tokens) if tokens.is_anonymous() && !tokens.issues() => {
            Err(TokensRejection::Anonymous)
        }
        Some(tokens) => Ok(tokens.clone()),
        None => Err(TokensRejection::MissingLayer),
    }
}

impl fmt::Display for TokensRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "sign-in required",
            Self::MissingLayer => "the token cache layer is missing",
        })
    }
}

impl std::error::Error for TokensRejection {}
