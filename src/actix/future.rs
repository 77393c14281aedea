//! `ResponseFuture`.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_web::body::MessageBody;
use actix_web::dev::ServiceResponse;
use actix_web::http::header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpRequest, HttpResponse};
use pin_project_lite::pin_project;

use super::head::finish;
use super::{ResponseBody, status};
use crate::error::Error;
use crate::layer::{Exchange, Refusal};
use crate::tokens::{CommitsBeforeHead, RequestGuard};

type Outcome<B> = Result<ServiceResponse<B>, actix_web::Error>;

pin_project! {
    /// The response future of [`TokenCacheMiddleware`](super::TokenCacheMiddleware).
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
        /// The response waits for its changes. Few do: the others carry no room for it.
        Committing { response: Pin<Box<Committing<B>>> },
        Refused { refused: Option<(Refusal, HttpRequest)> },
    }
}

pin_project! {
    /// A response, or the error that becomes one, that is ready but for its changes, which have to
    /// be written first.
    struct Committing<B> {
        #[pin]
        commits: CommitsBeforeHead,
        outcome: Option<(Outcome<B>, RequestGuard, Exchange)>,
    }
}

impl<F, B> ResponseFuture<F, B> {
    pub(super) fn inner(future: F, owned: Option<(RequestGuard, Exchange)>) -> Self {
        Self {
            state: State::Inner { future, owned },
        }
    }

    pub(super) fn refused(refusal: Refusal, request: HttpRequest) -> Self {
        let refused = Some((refusal, request));
        Self {
            state: State::Refused { refused },
        }
    }
}

impl<F, B> Future for ResponseFuture<F, B>
where
    F: Future<Output = Outcome<B>>,
    B: MessageBody,
{
    type Output = Outcome<ResponseBody<B>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                StateProj::Inner { future, owned } => {
                    let outcome = ready!(future.poll(cx));
                    let Some((guard, exchange)) = owned.take() else {
                        return Poll::Ready(outcome.map(with_body));
                    };
                    let Some(commits) = guard.0.commits_before_head() else {
                        return Poll::Ready(guarded(outcome, guard, exchange));
                    };
                    let outcome = Some((outcome, guard, exchange));
                    let response = Box::pin(Committing { commits, outcome });
                    state.set(State::Committing { response });
                }
                StateProj::Committing { response } => return response.as_mut().poll(cx),
                StateProj::Refused { refused } => {
                    let (refusal, request) = refused.take().expect("polled after completion");
                    let mut response = ServiceResponse::new(request, empty(refusal.status()));
                    if let Some(challenge) = refusal.challenge() {
                        let challenge = HeaderValue::from_static(challenge);
                        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
                    }
                    return Poll::Ready(finish(Ok(response), refusal.into_lines(), None));
                }
            }
        }
    }
}

impl<B: MessageBody> Future for Committing<B> {
    type Output = Outcome<ResponseBody<B>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let ended = ready!(this.commits.poll(cx));
        let outcome = this.outcome.take();
        let (outcome, guard, exchange) = outcome.expect("polled after completion");
        Poll::Ready(match guard.0.may_respond(ended) {
            true => guarded(outcome, guard, exchange),
            false => finish(unavailable(outcome), exchange.finish(&guard.0), None),
        })
    }
}

fn guarded<B: MessageBody>(
    outcome: Outcome<B>,
    guard: RequestGuard,
    exchange: Exchange,
) -> Outcome<ResponseBody<B>> {
    guard.0.close();
    let challenge = guard.0.bearer_challenge();
    let outcome = finish(outcome, exchange.finish(&guard.0), challenge);
    drop(guard);
    outcome.map(with_body)
}

fn with_body<B: MessageBody>(response: ServiceResponse<B>) -> ServiceResponse<ResponseBody<B>> {
    response.map_body(|_, body| ResponseBody::new(body))
}

/// 503 in place of what the handler has answered.
fn unavailable<B>(outcome: Outcome<B>) -> Outcome<ResponseBody<B>> {
    let error = Error::unavailable();
    let mut response = empty(error.status());
    if let Some(after) = error.retry_after() {
        let headers = response.headers_mut();
        headers.insert(RETRY_AFTER, after.as_secs().into());
    }
    Ok(outcome.map_err(|_| error)?.into_response(response))
}

fn empty<B>(code: http::StatusCode) -> HttpResponse<ResponseBody<B>> {
    HttpResponse::with_body(status(code), ResponseBody::empty())
}

impl<F, B> fmt::Debug for ResponseFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
