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
use std::time::Duration;

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;

use crate::error::{Error, session_challenge};
use crate::lookup::Durability;
use crate::outgoing::{CallError, TokenError};
pub use crate::rejection::TokensRejection;
use crate::rejection::demand;
use crate::tokens::Tokens;

impl IntoResponse for TokensRejection {
    fn into_response(self) -> Response {
        let response = (self.status(), self.to_string()).into_response();
        asking(response, session_challenge(self.status()))
    }
}

impl<S: Sync> FromRequestParts<S> for Tokens {
    type Rejection = TokensRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, TokensRejection> {
        demand(parts.extensions.get())
    }
}

/// `None` without the layer, and for a request without a partition key unless the layer
/// [issues](crate::session) session ids.
impl<S: Sync> OptionalFromRequestParts<S> for Tokens {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Infallible> {
        Ok(demand(parts.extensions.get()).ok())
    }
}

/// The response with what it asks for.
fn asking(mut response: Response, challenge: Option<HeaderValue>) -> Response {
    if let Some(challenge) = challenge {
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    response
}

/// The [status](Error::status) that says what a client can do about it, [`Retry-After`](Error::retry_after),
/// [`WWW-Authenticate`](Error::www_authenticate), and the message as the body: no message of this type has
/// anything of a token or a provider's answer.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let response = (self.status(), self.to_string()).into_response();
        asking(
            delayed(response, self.retry_after()),
            self.www_authenticate(),
        )
    }
}

/// Its [status](crate::grant::LoginError::status) and [`Retry-After`](crate::grant::LoginError::retry_after), without a
/// body.
#[cfg(feature = "grants")]
impl IntoResponse for crate::grant::LoginError {
    fn into_response(self) -> Response {
        let response = delayed(self.status().into_response(), self.retry_after());
        asking(response, session_challenge(self.status()))
    }
}

fn delayed(mut response: Response, after: Option<Duration>) -> Response {
    if let Some(after) = after {
        let headers = response.headers_mut();
        headers.insert(RETRY_AFTER, after.as_secs().into());
    }
    response
}

/// The [status](Durability::status).
impl IntoResponse for Durability {
    fn into_response(self) -> Response {
        self.status().into_response()
    }
}

/// That of the [`Error`] where there is no token for it; else the [status](CallError::status) and the message.
impl<E> IntoResponse for CallError<E> {
    fn into_response(self) -> Response {
        match self {
            Self::Token(TokenError::Cache(error)) => error.into_response(),
            other => (other.status(), other.to_string()).into_response(),
        }
    }
}
