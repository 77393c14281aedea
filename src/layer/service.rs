//! `TokenCacheService`.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;

use super::settings::{Begun, Settings};
use super::{ResponseBody, ResponseFuture};
use crate::key::RequestHead;

/// Gives every request of `S` a [`Tokens`](crate::Tokens) handle; see the [module](super).
#[derive(Clone)]
pub struct TokenCacheService<S> {
    inner: S,
    settings: Arc<Settings>,
}

impl<S> TokenCacheService<S> {
    pub(super) fn new(inner: S, settings: Arc<Settings>) -> Self {
        Self { inner, settings }
    }

    /// The wrapped service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The wrapped service, to be changed.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The wrapped service alone.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for TokenCacheService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: http_body::Body,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, ResBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        match self.settings.begin(&RequestHead::from(&request)) {
            Ok(Begun { tokens, owned }) => {
                request.extensions_mut().insert(tokens);
                ResponseFuture::inner(self.inner.call(request), owned)
            }
            Err(refusal) => ResponseFuture::refused(refusal),
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for TokenCacheService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCacheService")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
