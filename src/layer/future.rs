//! `ResponseFuture`.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;

use super::exchange::{ask_for_bearer, set_cookies};
use super::{Exchange, Refusal, ResponseBody};
use crate::error::Error;
use crate::tokens::{CommitsBeforeHead, RequestGuard};

pin_project! {
    /// The response future of [`TokenCacheService`](super::TokenCacheService).
    pub struct ResponseFuture<F, B> {
        #[pin]
        state: State<F, B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, B> {
        /// The inner service works on the request.
        Inner {
            #[pin]
            future: F,
            // `None` where a layer around this one ends the request.
            owned: Option<(RequestGuard, Exchange)>,
        },
        /// The response is up to this layer.
        Own { answer: OwnAnswer<B> },
    }
}

enum OwnAnswer<B> {
    /// The response waits for its changes. Few do: the others carry no room for it.
    Committing(Pin<Box<Committing<B>>>),
    Refused(Option<Refusal>),
}

pin_project! {
    /// A response that is ready but for its changes, which have to be written first.
    struct Committing<B> {
        #[pin]
        commits: CommitsBeforeHead,
        response: Option<(Response<B>, RequestGuard, Exchange)>,
    }
}

impl<F, B> ResponseFuture<F, B> {
    #[inline]
    pub(super) fn inner(future: F, owned: Option<(RequestGuard, Exchange)>) -> Self {
        Self {
            state: State::Inner { future, owned },
        }
    }

    pub(super) fn refused(refusal: Refusal) -> Self {
        Self {
            state: State::Own {
                answer: OwnAnswer::Refused(Some(refusal)),
            },
        }
    }
}

impl<F, B, E> Future for ResponseFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        match state.as_mut().project() {
            StateProj::Inner { future, owned } => {
                let outcome = ready!(future.poll(cx));
                let Some((guard, exchange)) = owned.take() else {
                    return Poll::Ready(outcome.map(|response| response.map(ResponseBody::new)));
                };
                let Some(commits) = guard.0.commits_before_head() else {
                    return Poll::Ready(outcome.map(|response| guarded(response, guard, exchange)));
                };
                let mut answer = OwnAnswer::committing(commits, outcome?, guard, exchange);
                let response = answer.poll(cx);
                if response.is_pending() {
                    state.set(State::Own { answer });
                }
                response.map(Ok)
            }
            StateProj::Own { answer } => answer.poll(cx).map(Ok),
        }
    }
}

impl<B: Body> OwnAnswer<B> {
    #[cold]
    fn committing(
        commits: CommitsBeforeHead,
        response: Response<B>,
        guard: RequestGuard,
        exchange: Exchange,
    ) -> Self {
        let response = Some((response, guard, exchange));
        Self::Committing(Box::pin(Committing { commits, response }))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Response<ResponseBody<B>>> {
        match self {
            Self::Committing(response) => response.as_mut().poll(cx),
            Self::Refused(refusal) => {
                let refusal = refusal.take().expect("polled after completion");
                let mut response = empty(refusal.status());
                if let Some(challenge) = refusal.challenge() {
                    let challenge = HeaderValue::from_static(challenge);
                    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
                }
                set_cookies(refusal.into_lines(), response.headers_mut());
                Poll::Ready(response)
            }
        }
    }
}

impl<B: Body> Future for Committing<B> {
    type Output = Response<ResponseBody<B>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let ended = ready!(this.commits.poll(cx));
        let response = this.response.take();
        let (response, guard, exchange) = response.expect("polled after completion");
        Poll::Ready(match guard.0.may_respond(ended) {
            true => guarded(response, guard, exchange),
            false => {
                let error = Error::unavailable();
                let mut refused = empty(error.status());
                if let Some(after) = error.retry_after() {
                    let headers = refused.headers_mut();
                    headers.insert(RETRY_AFTER, after.as_secs().into());
                }
                exchange.set(&guard.0, refused.headers_mut());
                refused
            }
        })
    }
}

#[inline]
fn guarded<B: Body>(
    mut response: Response<B>,
    guard: RequestGuard,
    exchange: Exchange,
) -> Response<ResponseBody<B>> {
    guard.0.close();
    if response.status() == StatusCode::UNAUTHORIZED {
        ask_for_bearer(&guard.0, response.headers_mut());
    }
    exchange.set(&guard.0, response.headers_mut());
    drop(guard);
    response.map(ResponseBody::new)
}

fn empty<B>(status: StatusCode) -> Response<ResponseBody<B>> {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = status;
    response
}

impl<F, B> fmt::Debug for ResponseFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
