//! `TokenCacheMiddleware`, and the layer as what makes it.

use std::fmt;
use std::future::{Ready, ready};
use std::sync::Arc;

use actix_web::HttpMessage;
use actix_web::body::MessageBody;
use actix_web::dev::{Service, ServiceRequest, ServiceResponse, Transform, forward_ready};

use super::{ResponseBody, ResponseFuture};
use crate::key::RequestHead;
use crate::layer::{Begun, Settings, TokenCacheLayer};

/// Gives every request of `S` a [`Tokens`](crate::Tokens) handle; see the [module](super).
pub struct TokenCacheMiddleware<S> {
    inner: S,
    settings: Arc<Settings>,
}

impl<S, B> Transform<S, ServiceRequest> for TokenCacheLayer
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error>,
    B: MessageBody,
{
    type Response = ServiceResponse<ResponseBody<B>>;
    type Error = actix_web::Error;
    type Transform = TokenCacheMiddleware<S>;
    type InitError = ();
    type Future = Ready<Result<Self::Transform, ()>>;

    fn new_transform(&self, inner: S) -> Self::Future {
        let settings = self.settings();
        ready(Ok(TokenCacheMiddleware { inner, settings }))
    }
}

impl<S, B> Service<ServiceRequest> for TokenCacheMiddleware<S>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = actix_web::Error>,
    B: MessageBody,
{
    type Response = ServiceResponse<ResponseBody<B>>;
    type Error = actix_web::Error;
    type Future = ResponseFuture<S::Future, B>;

    forward_ready!(inner);

    fn call(&self, request: ServiceRequest) -> Self::Future {
        match self.settings.begin(&RequestHead::actix(request.request())) {
            Ok(Begun { tokens, owned }) => {
                request.extensions_mut().insert(tokens);
                ResponseFuture::inner(self.inner.call(request), owned)
            }
            Err(refusal) => ResponseFuture::refused(refusal, request.into_parts().0),
        }
    }
}

impl<S> fmt::Debug for TokenCacheMiddleware<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCacheMiddleware")
            .finish_non_exhaustive()
    }
}
