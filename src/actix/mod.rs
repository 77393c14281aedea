//! actix-web: the layer as a middleware, and [`Tokens`] as an extractor.
//!
//! ```
//! use actix_web::{App, HttpServer, web};
//! use tower_token_cache::{Error, Lookup, MemoryStore, TokenCache, TokenCacheLayer, Tokens, key};
//!
//! async fn me(tokens: Tokens) -> Result<String, Error> {
//!     Ok(match tokens.get("graph").await? {
//!         Lookup::Hit(token) => format!("a token of type {:?}", token.token_type()),
//!         other => format!("{other:?}"),
//!     })
//! }
//!
//! # #[actix_web::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Built once, outside of the closure: all workers share its memory and its queue.
//! let cache = TokenCache::builder(MemoryStore::new()).build()?;
//! let layer = TokenCacheLayer::new(cache, key::cookie("sid"));
//! let server = HttpServer::new(move || {
//!     App::new().wrap(layer.clone()).route("/me", web::get().to(me))
//! });
//! # let _ = server;
//! # Ok(())
//! # }
//! ```
//!
//! A request's life is that of the tower [layer](crate::layer). A middleware that was wrapped
//! *later* runs first: wrap this one before the session middleware that makes the key.
//!
//! Build the cache once, in `main`, or in the application factory by a
//! [name](crate::TokenCache::shared): it works on a thread of its own, so that no handler that blocks
//! its worker holds up the others. Keep a clone, and call
//! [`TokenCache::shutdown`](crate::TokenCache::shutdown) after `run().await`: what the last requests
//! have changed is then still written.

mod body;
mod future;
mod head;
mod middleware;

pub use self::body::ResponseBody;
pub use self::future::ResponseFuture;
pub use self::middleware::TokenCacheMiddleware;
pub use crate::rejection::TokensRejection;

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{FromRequest, HttpMessage, HttpRequest, HttpResponse, Responder, ResponseError};

use crate::error::{Error, session_challenge};
use crate::lookup::Durability;
use crate::outgoing::{CallError, TokenError};
use crate::rejection::demand;
use crate::tokens::Tokens;

/// actix-web is on `http` 0.2, this crate on 1.
fn status(status: http::StatusCode) -> StatusCode {
    StatusCode::from_u16(status.as_u16()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl FromRequest for Tokens {
    type Error = TokensRejection;
    type Future = Ready<Result<Self, TokensRejection>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(demand(request.extensions().get()))
    }
}

impl ResponseError for TokensRejection {
    fn status_code(&self) -> StatusCode {
        status(self.status())
    }

    fn error_response(&self) -> HttpResponse {
        let response = HttpResponse::build(self.status_code())
            .content_type("text/plain; charset=utf-8")
            .body(self.to_string());
        asking(response, session_challenge(self.status()))
    }
}

/// The response with what it asks for.
fn asking(mut response: HttpResponse, challenge: Option<http::HeaderValue>) -> HttpResponse {
    let challenge = challenge.and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok());
    if let Some(challenge) = challenge {
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    response
}

/// The [status](Error::status) that says what a client can do about it, [`Retry-After`](Error::retry_after),
/// [`WWW-Authenticate`](Error::www_authenticate), and the message as the body: no message of this type has
/// anything of a token or a provider's answer.
impl ResponseError for Error {
    fn status_code(&self) -> StatusCode {
        status(self.status())
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        if let Some(after) = self.retry_after() {
            response.insert_header((RETRY_AFTER, after.as_secs()));
        }
        let response = response
            .content_type("text/plain; charset=utf-8")
            .body(self.to_string());
        asking(response, self.www_authenticate())
    }
}

/// Its [status](crate::grant::LoginError::status) and [`Retry-After`](crate::grant::LoginError::retry_after), without a
/// body.
#[cfg(feature = "grants")]
impl ResponseError for crate::grant::LoginError {
    fn status_code(&self) -> StatusCode {
        status(self.status())
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        if let Some(after) = self.retry_after() {
            response.insert_header((RETRY_AFTER, after.as_secs()));
        }
        asking(response.finish(), session_challenge(self.status()))
    }
}

/// The [status](Durability::status).
impl Responder for Durability {
    type Body = actix_web::body::BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        HttpResponse::new(status(self.status()))
    }
}

/// That of the [`Error`] where there is no token for it; else the [status](CallError::status) and the message.
impl<E: std::fmt::Debug> ResponseError for CallError<E> {
    fn status_code(&self) -> StatusCode {
        status(self.status())
    }

    fn error_response(&self) -> HttpResponse {
        match self {
            Self::Token(TokenError::Cache(error)) => error.error_response(),
            other => HttpResponse::build(other.status_code())
                .content_type("text/plain; charset=utf-8")
                .body(other.to_string()),
        }
    }
}
