//! axum: [`Tokens`] as an extractor.
//!
//! ```
//! use axum::{Router, routing::get};
//! use tower_token_cache::{Lookup, Tokens};
//!
//! async fn me(tokens: Tokens) -> Result<String, tower_token_cache::Error> {
//!     Ok(match tokens.get("graph").await? {
//!         Lookup::Hit(token) => format!("a token of type {:?}", token.token_type()),
//!         other => format!("{other:?}"),
//!     })
//! }
//! # let _: Router = Router::new().route("/me", get(me));
//! ```

use std::convert::Infallible;
use std::fmt;

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;

use crate::error::Error;
use crate::tokens::Tokens;

/// Why a handler cannot have [`Tokens`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokensRejection {
    /// The request has no partition key: 401.
    Anonymous,
    /// No [`TokenCacheLayer`](crate::TokenCacheLayer) wraps this route: 500.
    MissingLayer,
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

impl IntoResponse for TokensRejection {
    fn into_response(self) -> Response {
        let status = match self {
            Self::Anonymous => StatusCode::UNAUTHORIZED,
            Self::MissingLayer => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, self.to_string()).into_response()
    }
}

impl<S: Sync> FromRequestParts<S> for Tokens {
    type Rejection = TokensRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, TokensRejection> {
        match parts.extensions.get::<Self>() {
            Some(tokens) if tokens.is_anonymous() => Err(TokensRejection::Anonymous),
            Some(tokens) => Ok(tokens.clone()),
            None => Err(TokensRejection::MissingLayer),
        }
    }
}

/// `None` for a request without a partition key or without the layer.
impl<S: Sync> OptionalFromRequestParts<S> for Tokens {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Infallible> {
        let tokens = parts.extensions.get::<Self>();
        Ok(tokens.filter(|tokens| !tokens.is_anonymous()).cloned())
    }
}

/// The status that says what a client can do about it; the body tells it nothing more.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        self.status().into_response()
    }
}
