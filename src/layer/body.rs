//! `ResponseBody`.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::tokens::RequestGuard;

pin_project! {
    /// The inner service's body; the request is over once it has ended or is dropped.
    ///
    /// Frames, trailers, errors and size hints pass through as they are.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        // `None` is the empty body of a response that the layer made itself.
        #[pin]
        inner: Option<B>,
        guard: Option<RequestGuard>,
    }
}

impl<B: Body> ResponseBody<B> {
    #[inline]
    pub(super) fn new(inner: B, guard: RequestGuard) -> Self {
        // A body that is at its end may never be polled, and be kept for long.
        let is_over = guard.is_idle() || inner.is_end_stream();
        let guard = (!is_over).then_some(guard);
        Self {
            inner: Some(inner),
            guard,
        }
    }
}

impl<B> ResponseBody<B> {
    pub(super) fn empty() -> Self {
        Self {
            inner: None,
            guard: None,
        }
    }
}

/// The inner body's default, of no request: what layers outside of this one answer with in its
/// place, such as `CorsLayer` and `TimeoutLayer` of tower-http.
impl<B: Default> Default for ResponseBody<B> {
    fn default() -> Self {
        Self {
            inner: Some(B::default()),
            guard: None,
        }
    }
}

impl<B: Body> Body for ResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let Some(mut inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        if this.guard.is_none() {
            return inner.poll_frame(cx);
        }
        let frame = ready!(inner.as_mut().poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) || inner.is_end_stream() {
            *this.guard = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Some(inner) => inner.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}
