//! `ResponseBody`.

use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use pin_project_lite::pin_project;

pin_project! {
    /// The inner service's body, or the empty one of a response that the middleware made itself.
    ///
    /// Chunks, errors and the size pass through as they are.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        // `None` is the empty one.
        #[pin]
        inner: Option<B>,
    }
}

impl<B> ResponseBody<B> {
    pub(super) fn new(inner: B) -> Self {
        Self { inner: Some(inner) }
    }

    pub(super) fn empty() -> Self {
        Self { inner: None }
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
        match self.project().inner.as_pin_mut() {
            Some(inner) => inner.poll_next(cx),
            None => Poll::Ready(None),
        }
    }

    fn try_into_bytes(self) -> Result<Bytes, Self> {
        match self.inner {
            Some(inner) => inner.try_into_bytes().map_err(Self::new),
            None => Ok(Bytes::new()),
        }
    }
}
