//! `BearerLayer` as a middleware of `reqwest-middleware`.

use http::header::AUTHORIZATION;
use http::{Extensions, StatusCode};
use reqwest::{Request, Response};
use reqwest_middleware::{Error, Middleware, Next};

use super::bearer::header;
use super::{BearerLayer, CallError, TokenError};

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
        let token = bearer.clone().token(None).await.map_err(failed)?;
        let again = request.try_clone();
        let value = header(&token).map_err(failed)?;
        request.headers_mut().insert(AUTHORIZATION, value);
        let response = next.clone().run(request, extensions).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let Some(mut again) = again else {
            // The answer is this one, whatever becomes of the token.
            let _ = bearer.token(Some(token)).await;
            return Ok(response);
        };
        // It holds a connection.
        drop(response);
        let token = bearer.token(Some(token)).await.map_err(failed)?;
        let value = header(&token).map_err(failed)?;
        again.headers_mut().insert(AUTHORIZATION, value);
        next.run(again, extensions).await
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
