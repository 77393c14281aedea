//! `ResponseFuture`.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::header::AUTHORIZATION;
use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::bearer::{Bearer, Objection, header};
use super::{CallError, TokenError};
use crate::error::Error;
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
        /// Waits for an answer.
        Calling { #[pin] call: F, sent: Sent },
        /// Waits for a token in the place of one that the service has objected to. With a response, this is the answer
        /// all the same, unless the user is needed.
        Replacing { token: TokenFuture, response: Option<R> },
        /// Waits for the inner service to be ready again.
        Again { request: Option<Request<B>> },
        Failed { error: Option<TokenError> },
    }
}

/// Whose token was sent.
enum Sent {
    /// The caller's own, or none.
    AsItIs,
    First(Token),
    /// That in the place of the first.
    Second,
}

impl<S: Service<Request<B>>, B> ResponseFuture<S, B> {
    pub(super) fn acquiring(
        inner: S,
        bearer: Bearer,
        request: Request<B>,
        again: Option<Request<B>>,
    ) -> Self {
        let token = Box::pin(bearer.clone().token());
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
            state: State::Calling {
                call,
                sent: Sent::AsItIs,
            },
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
                    let sent = Sent::First(token);
                    State::Calling { call, sent }
                }
                StateProj::Calling { call, sent } => {
                    let response = ready!(call.poll(cx)).map_err(CallError::Call)?;
                    let sent = std::mem::replace(sent, Sent::AsItIs);
                    let objection = Objection::of(response.status(), response.headers());
                    match (sent, objection) {
                        (Sent::First(token), Some(objection)) => {
                            let bearer = this.bearer.take().expect("polled after completion");
                            State::Replacing {
                                token: Box::pin(bearer.another(token, objection)),
                                // Dropped now when there is to be another: it holds a connection.
                                response: this.again.is_none().then_some(response),
                            }
                        }
                        (Sent::Second, Some(Objection::Challenged(challenge))) => {
                            let error = TokenError::Cache(Error::StepUp(challenge));
                            return Poll::Ready(Err(CallError::Token(error)));
                        }
                        _ => return Poll::Ready(Ok(response)),
                    }
                }
                StateProj::Replacing { token, response } => {
                    let token = ready!(token.as_mut().poll(cx));
                    if let Some(response) = response.take() {
                        return Poll::Ready(match token {
                            Err(error) if error.needs_user() => Err(CallError::Token(error)),
                            _ => Ok(response),
                        });
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
                    let sent = Sent::Second;
                    State::Calling { call, sent }
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
