//! `BearerService`.

use std::fmt;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;

use super::bearer::Settings;
use super::{CallError, CloneBody, ReplayBody, ResponseFuture};

/// Puts a token on every request that `S` sends; see the [module](super).
///
/// `S` is cloned per request, to send it once the token is there, and again after a 401.
#[derive(Clone)]
pub struct BearerService<S, C = CloneBody> {
    inner: S,
    settings: Settings,
    replay: C,
}

impl<S, C> BearerService<S, C> {
    pub(super) fn new(inner: S, settings: Settings, replay: C) -> Self {
        Self {
            inner,
            settings,
            replay,
        }
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

impl<S, C, ReqBody, ResBody> Service<Request<ReqBody>> for BearerService<S, C>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    C: ReplayBody<ReqBody>,
{
    type Response = Response<ResBody>;
    type Error = CallError<S::Error>;
    type Future = ResponseFuture<S, ReqBody>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(CallError::Call)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        // The one that is ready sends this request; its clone has to become so again.
        let clone = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, clone);
        let bearer = self
            .settings
            .bearer(request.uri(), request.headers(), request.extensions());
        match bearer {
            Ok(Some(bearer)) => {
                let (head, body) = request.into_parts();
                let again = self.replay.replay(&body);
                let again = again.map(|body| Request::from_parts(head.clone(), body));
                let request = Request::from_parts(head, body);
                ResponseFuture::acquiring(inner, bearer, request, again)
            }
            Ok(None) => ResponseFuture::as_it_is(inner, request),
            Err(error) => ResponseFuture::failed(inner, error),
        }
    }
}

impl<S: fmt::Debug, C> fmt::Debug for BearerService<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BearerService")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
