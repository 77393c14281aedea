//! `ResponseBody`.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use pin_project_lite::pin_project;

use crate::tokens::RequestGuard;

pin_project! {
    /// The inner service's body; the request is over once it has ended or is dropped.
    ///
    /// Chunks, errors and the size pass through as they are.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        // `None` is the empty body of a response that the middleware made itself.
        #[pin]
        inner: Option<B>,
        guard: Option<RequestGuard>,
    }
}

impl<B: MessageBody> ResponseBody<B> {
    pub(super) fn new(inner: B, guard: RequestGuard) -> Self {
        // A body without content is never polled, and may be kept for long.
        let guard = (!inner.size().is_eof()).then_some(guard);
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

impl<B: MessageBody> MessageBody for ResponseBody<B> {
    type Error = B::Error;

    fn size(&self) -> BodySize {
        self.inner
            .as_ref()
            .map_or(BodySize::ZERO, MessageBody::size)
    }

    fn poll_next(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, B::Error>>> {
        let this = self.project();
        let Some(inner) = this.inner.as_pin_mut() else {
            return Poll::Ready(None);
        };
        let chunk = ready!(inner.poll_next(cx));
        if !matches!(chunk, Some(Ok(_))) {
            *this.guard = None;
        }
        Poll::Ready(chunk)
    }

    fn try_into_bytes(self) -> Result<Bytes, Self> {
        let Self { inner, guard } = self;
        let Some(inner) = inner else {
            return Ok(Bytes::new());
        };
        inner.try_into_bytes().map_err(|inner| Self {
            inner: Some(inner),
            guard,
        })
    }
}
