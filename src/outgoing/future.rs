//! `ResponseFuture`.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::header::AUTHORIZATION;
use http::{Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::bearer::{Bearer, header};
use super::{CallError, TokenError};
use crate::token::Token;

/// A token that is being acquired. Erased, because an `async fn` has no name.
type TokenFuture = Pin<Box<dyn Future<Output = Result<Token, TokenError>> + Send>>;

pin_project! {
    /// The response future of [`BearerService`](super::BearerService).
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        inner: S,
        // Until the token was replaced once.
        bearer: Option<Bearer>,
        // The same request as is sent first.
        again: Option<Request<B>>,
        #[pin]
        state: State<S::Future, B, S::Response>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, B, R> {
        /// Waits for the first token; the inner service is ready.
        Acquiring { token: TokenFuture, request: Option<Request<B>> },
        /// Waits for an answer. With a token, a 401 is its rejection.
        Calling { #[pin] call: F, token: Option<Token> },
        /// Waits for a token in the place of a rejected one. With a response, this is the answer
        /// all the same.
        Replacing { token: TokenFuture, response: Option<R> },
        /// Waits for the inner service to be ready again.
        Again { request: Option<Request<B>> },
        Failed { error: Option<TokenError> },
    }
}

impl<S: Service<Request<B>>, B> ResponseFuture<S, B> {
    pub(super) fn acquiring(
        inner: S,
        bearer: Bearer,
        request: Request<B>,
        again: Option<Request<B>>,
    ) -> Self {
        let token = Box::pin(bearer.clone().token(None));
        let request = Some(request);
        Self {
            inner,
            bearer: Some(bearer),
            again,
            state: State::Acquiring { token, request },
        }
    }

    /// Sends the request with the header that it has.
    pub(super) fn as_it_is(mut inner: S, request: Request<B>) -> Self {
        let call = inner.call(request);
        Self {
            inner,
            bearer: None,
            again: None,
            state: State::Calling { call, token: None },
        }
    }

    pub(super) fn failed(inner: S, error: TokenError) -> Self {
        let error = Some(error);
        Self {
            inner,
            bearer: None,
            again: None,
            state: State::Failed { error },
        }
    }
}

impl<S, B, R> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Output = Result<Response<R>, CallError<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Acquiring { token, request } => {
                    let token = ready!(token.as_mut().poll(cx)).map_err(CallError::Token)?;
                    let request = request.take().expect("polled after completion");
                    let request = with_token(request, &token)?;
                    let call = this.inner.call(request);
                    let token = Some(token);
                    State::Calling { call, token }
                }
                StateProj::Calling { call, token } => {
                    let response = ready!(call.poll(cx)).map_err(CallError::Call)?;
                    if response.status() != StatusCode::UNAUTHORIZED || token.is_none() {
                        return Poll::Ready(Ok(response));
                    }
                    let bearer = this.bearer.take().expect("polled after completion");
                    State::Replacing {
                        token: Box::pin(bearer.token(token.take())),
                        // Dropped now when there is to be another: it holds a connection.
                        response: this.again.is_none().then_some(response),
                    }
                }
                StateProj::Replacing { token, response } => {
                    let token = ready!(token.as_mut().poll(cx));
                    if let Some(response) = response.take() {
                        return Poll::Ready(Ok(response));
                    }
                    let token = token.map_err(CallError::Token)?;
                    let request = this.again.take().expect("polled after completion");
                    let request = Some(with_token(request, &token)?);
                    State::Again { request }
                }
                StateProj::Again { request } => {
                    ready!(this.inner.poll_ready(cx)).map_err(CallError::Call)?;
                    let request = request.take().expect("polled after completion");
                    let call = this.inner.call(request);
                    State::Calling { call, token: None }
                }
                StateProj::Failed { error } => {
                    let error = error.take().expect("polled after completion");
                    return Poll::Ready(Err(CallError::Token(error)));
                }
            };
            this.state.set(next);
        }
    }
}

fn with_token<B, E>(mut request: Request<B>, token: &Token) -> Result<Request<B>, CallError<E>> {
    let value = header(token).map_err(CallError::Token)?;
    request.headers_mut().insert(AUTHORIZATION, value);
    Ok(request)
}

impl<S: Service<Request<B>>, B> fmt::Debug for ResponseFuture<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
