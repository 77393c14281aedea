//! `BearerLayer` as a middleware of `reqwest-middleware`.

use http::Extensions;
use http::header::AUTHORIZATION;
use reqwest::{Request, Response};
use reqwest_middleware::{Error, Middleware, Next};

use super::bearer::{Objection, header};
use super::{BearerLayer, CallError, TokenError};
use crate::error::Error as CacheError;

/// For `reqwest_middleware::ClientBuilder::with`. `RequestBuilder::with_extension` takes the
/// [`Tokens`](crate::Tokens) of a request. Its errors are [`TokenError`]s, to be had by
/// [`CallError::from`], or `downcast_ref` of `Error::Middleware`. Bodies that stream are not sent twice.
#[async_trait::async_trait]
impl Middleware for BearerLayer {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        // A URL that is no URI names no origin.
        let uri = request.url().as_str().parse().unwrap_or_default();
        let bearer = self.settings().bearer(&uri, request.headers(), extensions);
        let Some(bearer) = bearer.map_err(failed)? else {
            return next.run(request, extensions).await;
        };
        let token = bearer.clone().token().await.map_err(failed)?;
        let again = request.try_clone();
        let value = header(&token).map_err(failed)?;
        request.headers_mut().insert(AUTHORIZATION, value);
        let response = next.clone().run(request, extensions).await?;
        let Some(objection) = Objection::of(response.status(), response.headers()) else {
            return Ok(response);
        };
        let Some(mut again) = again else {
            // The answer is this one, whatever becomes of the token, unless the user is needed.
            return match bearer.another(token, objection).await {
                Err(error) if error.needs_user() => Err(failed(error)),
                _ => Ok(response),
            };
        };
        // It holds a connection.
        drop(response);
        let token = bearer.another(token, objection).await.map_err(failed)?;
        let value = header(&token).map_err(failed)?;
        again.headers_mut().insert(AUTHORIZATION, value);
        let response = next.run(again, extensions).await?;
        match Objection::of(response.status(), response.headers()) {
            Some(Objection::Challenged(challenge)) => {
                Err(failed(TokenError::Cache(CacheError::StepUp(challenge))))
            }
            _ => Ok(response),
        }
    }
}

fn failed(error: TokenError) -> Error {
    Error::middleware(error)
}

/// What this middleware has failed with is [`CallError::Token`].
impl From<Error> for CallError<Error> {
    fn from(error: Error) -> Self {
        match error {
            Error::Middleware(error) => match error.downcast() {
                Ok(error) => Self::Token(error),
                Err(error) => Self::Call(Error::Middleware(error)),
            },
            error => Self::Call(error),
        }
    }
}
