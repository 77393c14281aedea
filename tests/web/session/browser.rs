//! A site of one handler per request, and a browser that keeps its cookie.

use std::convert::Infallible;
use std::future::Future;

use bytes::Bytes;
use common::support::*;
use http::header::{CACHE_CONTROL, COOKIE, SET_COOKIE};
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use tower::{Layer, ServiceExt, service_fn};
use tower_token_cache::session::{Cookie, SignIn};
use tower_token_cache::{Durability, Error, TokenCache, TokenCacheLayer, TokenSet, Tokens};

/// What stands before the id in requests.
pub const SID: &str = "__Host-sid=";

pub fn sid() -> Cookie {
    Cookie::new("sid").unwrap()
}

pub fn issuing(cache: &TokenCache) -> TokenCacheLayer {
    TokenCacheLayer::new(cache.clone(), sid())
}

/// What a provider answers for this user, with a refresh token.
pub fn answer(user: &str) -> TokenSet {
    TokenSet::from(token(user)).with_refresh_token(format!("r-{user}"))
}

/// The sign-in of this user, under `api`.
pub fn sign_in(user: &str) -> SignIn {
    SignIn::new("api", answer(user))
}

pub fn handle(request: &Request<()>) -> Tokens {
    request
        .extensions()
        .get::<Tokens>()
        .expect("set by the layer")
        .clone()
}

/// What the application knows of this session; nothing of an anonymous request.
pub async fn api(tokens: &Tokens) -> Option<String> {
    match tokens.get("api").await {
        Ok(lookup) => lookup.hit().map(|token| token.access_token().to_owned()),
        Err(Error::NoPartition) => None,
        Err(error) => panic!("{error}"),
    }
}

/// The status of a response that says this.
pub trait Status {
    fn status(&self) -> StatusCode {
        StatusCode::OK
    }
}

impl Status for () {}
impl Status for Option<String> {}

impl<T> Status for Result<T, Error> {
    fn status(&self) -> StatusCode {
        self.as_ref().err().map_or(StatusCode::OK, Error::status)
    }
}

#[derive(Clone, Debug, Default)]
pub struct Browser {
    /// The header line.
    pub cookie: Option<String>,
}

#[derive(Debug)]
pub struct Visit<R> {
    pub status: StatusCode,
    /// What the handler has returned.
    pub result: R,
    pub set_cookie: Vec<String>,
    pub cache_control: Option<String>,
}

impl Browser {
    pub fn with(cookie: impl Into<String>) -> Self {
        Self {
            cookie: Some(cookie.into()),
        }
    }

    /// The session that the browser has.
    pub fn session(&self) -> Option<&str> {
        let line = self.cookie.as_deref()?;
        let value = line.split_once('=')?.1;
        Some(value.split('.').next().unwrap_or(value))
    }

    pub fn request(&self) -> Request<()> {
        let request = Request::post("/");
        let request = match &self.cookie {
            Some(cookie) => request.header(COOKIE, cookie),
            None => request,
        };
        request.body(()).unwrap()
    }

    /// One request to a site whose handler is this one.
    pub async fn visit<R, F>(
        &mut self,
        layer: &TokenCacheLayer,
        handler: impl FnOnce(Tokens) -> F,
    ) -> Visit<R>
    where
        F: Future<Output = R>,
        R: Status,
    {
        let (sender, receiver) = std::sync::mpsc::channel();
        let mut handler = Some(handler);
        let inner = service_fn(|request: Request<()>| {
            let handler = handler.take().expect("one request");
            let (working, sender) = (handler(handle(&request)), sender.clone());
            async move {
                let returned = working.await;
                let mut response = Response::new(Empty::<Bytes>::new());
                *response.status_mut() = returned.status();
                sender.send(returned).unwrap();
                Ok::<_, Infallible>(response)
            }
        });
        let response = layer.layer(inner).oneshot(self.request()).await.unwrap();
        let headers = response.headers();
        let set_cookie = headers.get_all(SET_COOKIE).iter();
        let set_cookie = Vec::from_iter(set_cookie.map(|line| line.to_str().unwrap().to_owned()));
        for line in &set_cookie {
            let pair = line.split(';').next().unwrap();
            self.cookie = Some(pair.to_owned()).filter(|pair| !pair.ends_with('='));
        }
        let cache_control = headers.get(CACHE_CONTROL);
        Visit {
            status: response.status(),
            set_cookie,
            cache_control: cache_control.map(|value| value.to_str().unwrap().to_owned()),
            result: receiver.try_recv().unwrap(),
        }
    }

    /// What the application knows of this browser.
    pub async fn api(&mut self, layer: &TokenCacheLayer) -> Option<String> {
        self.visit(layer, async |tokens| api(&tokens).await)
            .await
            .result
    }

    /// Signs in, and that succeeds.
    pub async fn sign_in(
        &mut self,
        layer: &TokenCacheLayer,
        user: &str,
    ) -> Visit<Result<Durability, Error>> {
        let visit = self
            .visit(layer, async |tokens| tokens.sign_in(sign_in(user)).await)
            .await;
        assert!(visit.result.is_ok(), "{visit:?}");
        visit
    }
}
