//! The floor: the leanest layer with the same L1 that one can write by hand. No laziness, no L2,
//! no policy: cookie, cache, handle.

use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::Request;
use axum::http::header::COOKIE;
use peers::users::UserTokens;
use tower::{Layer, Service};

pub type Cache = moka::sync::Cache<Box<str>, Arc<UserTokens>>;

/// What handlers get.
pub struct Floor {
    cache: Arc<Cache>,
    key: Box<str>,
    pub tokens: Option<Arc<UserTokens>>,
}

impl Floor {
    pub fn insert(&self, tokens: UserTokens) {
        self.cache.insert(self.key.clone(), Arc::new(tokens));
    }
}

#[derive(Clone)]
pub struct FloorLayer(Arc<Cache>);

impl FloorLayer {
    pub fn new(cache: Cache) -> Self {
        Self(Arc::new(cache))
    }
}

#[derive(Clone)]
pub struct FloorService<S> {
    inner: S,
    cache: Arc<Cache>,
}

impl<S> Layer<S> for FloorLayer {
    type Service = FloorService<S>;

    fn layer(&self, inner: S) -> FloorService<S> {
        FloorService {
            inner,
            cache: self.0.clone(),
        }
    }
}

impl<S: Service<Request<B>>, B> Service<Request<B>> for FloorService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        let cookies = request
            .headers()
            .get(COOKIE)
            .and_then(|value| value.to_str().ok());
        let key = cookies.and_then(|text| {
            let mut pairs = text.split(';');
            pairs.find_map(|pair| pair.trim_start().strip_prefix("sid="))
        });
        if let Some(key) = key {
            let handle = Floor {
                tokens: self.cache.get(key),
                key: key.into(),
                cache: self.cache.clone(),
            };
            request.extensions_mut().insert(Arc::new(handle));
        }
        self.inner.call(request)
    }
}
