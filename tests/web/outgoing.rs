//! Tokens on outgoing requests: a service that rejects them, called by both clients.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::Router;
use bytes::Bytes;
use common::support::{builder, cache, session, token};
use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{Layer, Service, ServiceExt};
use tower_token_cache::outgoing::{BearerLayer, CallError, Origins, TokenError};
use tower_token_cache::{
    Acquire, AcquireErrorKind, BoxError, Error, MemoryStore, Prior, ProviderError, TokenCache,
    TokenSet, Tokens,
};

/// A service that knows some tokens, and remembers what it was sent.
#[derive(Clone, Default)]
struct Api {
    valid: Arc<Mutex<Vec<String>>>,
    /// `Authorization` and body of each request.
    seen: Arc<Mutex<Vec<(String, String)>>>,
}

impl Api {
    fn knowing(tokens: &[&str]) -> Self {
        let api = Self::default();
        let tokens = tokens.iter().map(|token| format!("Bearer {token}"));
        api.valid.lock().unwrap().extend(tokens);
        api
    }

    async fn start(&self) -> String {
        let api = self.clone();
        let handler = async move |headers: HeaderMap, body: String| {
            let header = headers.get(AUTHORIZATION).map(|value| value.to_str());
            let header = header.unwrap_or(Ok("none")).unwrap().to_owned();
            let known = api.valid.lock().unwrap().contains(&header);
            api.seen.lock().unwrap().push((header, body));
            match known {
                true => (StatusCode::OK, "welcome"),
                false => (StatusCode::UNAUTHORIZED, "who?"),
            }
        };
        let app = Router::new().fallback(axum::routing::any(handler));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, app).await });
        url
    }

    fn seen(&self) -> Vec<(String, String)> {
        self.seen.lock().unwrap().clone()
    }

    fn headers(&self) -> Vec<String> {
        let seen = self.seen();
        seen.into_iter().map(|(header, _)| header).collect()
    }
}

/// Gives `new-1`, `new-2` and so on.
#[derive(Clone, Default)]
struct Source(Arc<AtomicUsize>);

impl Source {
    fn acquire(&self) -> impl Acquire + use<> {
        let calls = self.0.clone();
        move |_: Prior| {
            let call = calls.fetch_add(1, Ordering::SeqCst) + 1;
            async move { Ok::<TokenSet, BoxError>(token(&format!("new-{call}")).into()) }
        }
    }

    fn calls(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// A user who has the token `old`.
async fn user(cache: &TokenCache, id: &str) -> Tokens {
    let tokens = cache.tokens(session(id));
    tokens.insert("api", token("old")).await.unwrap();
    tokens
}

fn memory() -> TokenCache {
    cache(MemoryStore::new())
}

fn post(url: &str, tokens: Option<&Tokens>) -> Request<Full<Bytes>> {
    let mut request = Request::post(url).body(Full::from("hello")).unwrap();
    if let Some(tokens) = tokens {
        request.extensions_mut().insert(tokens.clone());
    }
    request
}

fn http_client() -> Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

fn layer(source: &Source, url: &str) -> BearerLayer {
    BearerLayer::new("api", source.acquire(), only(url)).unwrap()
}

fn only(url: &str) -> Origins {
    Origins::new([url]).unwrap()
}

async fn body<B: http_body::Body<Error: std::fmt::Debug>>(response: Response<B>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

mod tower_client {
    use super::*;

    #[tokio::test]
    async fn a_request_carries_the_token_of_its_user() {
        let (api, source, cache) = (Api::knowing(&["old"]), Source::default(), memory());
        let url = api.start().await;
        let client = layer(&source, &url).layer(http_client());
        let user = user(&cache, "u").await;
        let response = client.oneshot(post(&url, Some(&user))).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(body(response).await, "welcome");
        assert_eq!(api.seen(), [("Bearer old".into(), "hello".into())]);
        assert_eq!(source.calls(), 0);
    }

    #[tokio::test]
    async fn a_layer_for_a_client_sends_that_clients_token_and_no_other() {
        let (api, source, cache) = (Api::knowing(&["new-1"]), Source::default(), memory());
        let url = api.start().await;
        let user = user(&cache, "u").await;
        let github = user.client("github").unwrap();
        github.insert("api", token("github's")).await.unwrap();
        let google = layer(&source, &url).for_client("google").unwrap();
        // Whichever client's handle the request has.
        for tokens in [&user, &github] {
            let client = google.layer(http_client());
            let response = client.oneshot(post(&url, Some(tokens))).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
        }
        assert_eq!(api.headers(), ["Bearer new-1", "Bearer new-1"]);
        let google = user.client("google").unwrap();
        assert!(google.contains("api").await.unwrap());
        assert!(layer(&source, &url).for_client("").is_err());
    }

    #[tokio::test]
    async fn a_user_without_a_token_gets_one_from_the_source() {
        let (api, source, cache) = (Api::knowing(&["new-1"]), Source::default(), memory());
        let url = api.start().await;
        let client = layer(&source, &url).layer(http_client());
        let user = cache.tokens(session("u"));
        let response = client.oneshot(post(&url, Some(&user))).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(api.headers(), ["Bearer new-1"]);
    }

    #[tokio::test]
    async fn a_rejected_token_is_replaced_and_the_request_sent_again() {
        let (api, source, cache) = (Api::knowing(&["new-1"]), Source::default(), memory());
        let url = api.start().await;
        let client = layer(&source, &url).layer(http_client());
        let user = user(&cache, "u").await;
        let request = post(&url, Some(&user));
        let response = client.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let both = [
            ("Bearer old".to_owned(), "hello".to_owned()),
            ("Bearer new-1".to_owned(), "hello".to_owned()),
        ];
        assert_eq!(api.seen(), both);
        let response = client.oneshot(post(&url, Some(&user))).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(api.headers()[2..], ["Bearer new-1"]);
        assert_eq!(source.calls(), 1);
    }

    #[tokio::test]
    async fn the_second_rejection_is_the_answer() {
        let (api, source, cache) = (Api::knowing(&[]), Source::default(), memory());
        let url = api.start().await;
        let client = layer(&source, &url).layer(http_client());
        let user = user(&cache, "u").await;
        let response = client.oneshot(post(&url, Some(&user))).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(body(response).await, "who?");
        assert_eq!(api.headers(), ["Bearer old", "Bearer new-1"]);
        assert_eq!(source.calls(), 1);
    }

    #[tokio::test]
    async fn many_rejections_of_one_token_make_one_acquisition() {
        let (api, source, cache) = (Api::knowing(&["new-1"]), Source::default(), memory());
        let url = api.start().await;
        let client = layer(&source, &url).layer(http_client());
        let user = user(&cache, "u").await;
        let calls = (0..50).map(|_| client.clone().oneshot(post(&url, Some(&user))));
        for answer in futures_util::future::join_all(calls).await {
            assert_eq!(answer.unwrap().status(), StatusCode::OK);
        }
        assert_eq!(source.calls(), 1);
    }

    #[tokio::test]
    async fn a_header_that_is_there_is_kept() {
        let (api, source, cache) = (Api::knowing(&[]), Source::default(), memory());
        let url = api.start().await;
        let client = layer(&source, &url).layer(http_client());
        let user = user(&cache, "u").await;
        for tokens in [None, Some(&user)] {
            let mut request = post(&url, tokens);
            let own = http::HeaderValue::from_static("Basic eDp5");
            request.headers_mut().insert(AUTHORIZATION, own);
            let response = client.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        }
        assert_eq!(api.headers(), ["Basic eDp5", "Basic eDp5"]);
        assert_eq!(source.calls(), 0);
    }

    #[tokio::test]
    async fn a_request_of_nobody_is_not_sent() {
        let (api, source) = (Api::knowing(&[]), Source::default());
        let url = api.start().await;
        let client = layer(&source, &url).layer(http_client());
        let error = client.oneshot(post(&url, None)).await.unwrap_err();
        assert!(matches!(error, CallError::Token(TokenError::NoTokens)));
        assert!(api.seen().is_empty());
    }

    #[tokio::test]
    async fn a_layer_for_some_tokens_sends_no_others() {
        let (api, source, cache) = (Api::knowing(&["app"]), Source::default(), memory());
        let url = api.start().await;
        let app = cache.tokens(session("app"));
        app.insert("api", token("app")).await.unwrap();
        let client = layer(&source, &url).for_tokens(app).layer(http_client());
        let user = user(&cache, "u").await;
        for tokens in [None, Some(&user)] {
            let response = client.clone().oneshot(post(&url, tokens)).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
        }
        assert_eq!(api.headers(), ["Bearer app", "Bearer app"]);
    }

    #[tokio::test]
    async fn a_request_can_bring_its_own_source() {
        let (api, cache) = (Api::knowing(&["new-1"]), memory());
        let (general, own) = (Source::default(), Source::default());
        let url = api.start().await;
        let client = layer(&general, &url).layer(http_client());
        let mut request = post(&url, Some(&cache.tokens(session("u"))));
        let source: Arc<dyn Acquire> = Arc::new(own.acquire());
        request.extensions_mut().insert(source);
        let response = client.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!((general.calls(), own.calls()), (0, 1));
    }

    #[tokio::test]
    async fn a_source_that_fails_is_a_typed_error() {
        let (api, cache) = (Api::knowing(&[]), memory());
        let url = api.start().await;
        let refused = async |_: Prior| Err::<TokenSet, _>(ProviderError::refused("invalid_grant"));
        let client = BearerLayer::new("api", refused, only(&url)).unwrap();
        let client = client.layer(http_client());
        let user = user(&cache, "u").await;
        let error = client.oneshot(post(&url, Some(&user))).await.unwrap_err();
        let CallError::Token(TokenError::Cache(Error::Acquire(error))) = error else {
            panic!("another error: {error:?}");
        };
        assert_eq!(error.kind(), AcquireErrorKind::ReauthenticationRequired);
        assert_eq!(api.headers(), ["Bearer old"]);
    }

    #[tokio::test]
    async fn a_token_of_another_type_is_not_sent() {
        let (api, source, cache) = (Api::knowing(&[]), Source::default(), memory());
        let url = api.start().await;
        let client = layer(&source, &url).layer(http_client());
        let user = cache.tokens(session("u"));
        let bound = token("bound").with_token_type("DPoP");
        user.insert("api", bound).await.unwrap();
        let error = client.oneshot(post(&url, Some(&user))).await.unwrap_err();
        assert!(matches!(error, CallError::Token(TokenError::NotBearer)));
        assert!(api.seen().is_empty());
    }

    #[tokio::test]
    async fn a_body_that_cannot_be_replayed_is_sent_once_and_its_token_replaced() {
        let (api, source, cache) = (Api::knowing(&["new-1"]), Source::default(), memory());
        let url = api.start().await;
        let layer = layer(&source, &url).replay_body(|_: &Full<Bytes>| None);
        let client = layer.layer(http_client());
        let user = user(&cache, "u").await;
        let request = post(&url, Some(&user));
        let response = client.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(body(response).await, "who?");
        assert_eq!(api.headers(), ["Bearer old"]);
        let response = client.oneshot(post(&url, Some(&user))).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(api.headers(), ["Bearer old", "Bearer new-1"]);
    }
}

/// A body that says when it is dropped.
struct Held(Arc<AtomicBool>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Answers 401, then 200; insists on `poll_ready`, and on the first response being gone.
struct Strict {
    ready: bool,
    dropped: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self {
            ready: false,
            dropped: self.dropped.clone(),
            calls: self.calls.clone(),
        }
    }
}

impl Service<Request<String>> for Strict {
    type Response = Response<Held>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<String>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without poll_ready");
        let mut response = Response::new(Held(self.dropped.clone()));
        if self.calls.fetch_add(1, Ordering::SeqCst) == 0 {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        } else {
            let dropped = self.dropped.load(Ordering::SeqCst);
            assert!(dropped, "the first response is still held");
        }
        std::future::ready(Ok(response))
    }
}

#[tokio::test]
async fn the_first_response_is_gone_and_the_service_ready_before_the_second_call() {
    let (source, cache) = (Source::default(), memory());
    let calls = Arc::<AtomicUsize>::default();
    let layer = BearerLayer::new("api", source.acquire(), Origins::relative()).unwrap();
    let client = layer.layer(Strict {
        ready: false,
        dropped: Arc::default(),
        calls: calls.clone(),
    });
    let mut request = Request::new(String::new());
    request.extensions_mut().insert(user(&cache, "u").await);
    let response = client.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[test]
fn debug_shows_no_secret_and_bad_keys_are_errors() {
    let source = Source::default();
    let layer = BearerLayer::new("api", source.acquire(), Origins::relative()).unwrap();
    assert!(!format!("{layer:?}").contains("api"));
    let error = BearerLayer::new("", source.acquire(), Origins::relative()).unwrap_err();
    assert!(matches!(error, Error::InvalidKey(_)));
}

#[tokio::test]
async fn a_cache_that_is_shut_down_is_a_typed_error() {
    let source = Source::default();
    let cache = builder(MemoryStore::new()).build().unwrap();
    let tokens = cache.tokens(session("u"));
    cache.shutdown(std::time::Duration::from_secs(1)).await;
    let api = Api::knowing(&[]);
    let url = api.start().await;
    let client = layer(&source, &url).layer(http_client());
    let error = client.oneshot(post(&url, Some(&tokens))).await.unwrap_err();
    let error = std::error::Error::source(&error).expect("a TokenError");
    let source = error.downcast_ref::<TokenError>();
    assert!(matches!(source, Some(TokenError::Cache(Error::ShutDown))));
    assert!(api.seen().is_empty());
}

mod reqwest_client {
    use super::*;
    use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};

    fn client(layer: BearerLayer) -> ClientWithMiddleware {
        ClientBuilder::new(reqwest::Client::new())
            .with(layer)
            .build()
    }

    fn token_error(error: &reqwest_middleware::Error) -> &TokenError {
        match error {
            reqwest_middleware::Error::Middleware(error) => error.downcast_ref().unwrap(),
            other => panic!("another error: {other:?}"),
        }
    }

    #[tokio::test]
    async fn a_rejected_token_is_replaced_and_the_request_sent_again() {
        let (api, source, cache) = (Api::knowing(&["new-1"]), Source::default(), memory());
        let url = api.start().await;
        let client = client(layer(&source, &url));
        let user = user(&cache, "u").await;
        for _ in 0..2 {
            let request = client.post(&url).body("hello").with_extension(user.clone());
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.text().await.unwrap(), "welcome");
        }
        let expected = ["Bearer old", "Bearer new-1", "Bearer new-1"];
        assert_eq!(api.headers(), expected);
        assert!(api.seen().iter().all(|(_, body)| body == "hello"));
        assert_eq!(source.calls(), 1);
    }

    #[tokio::test]
    async fn the_second_rejection_is_the_answer() {
        let (api, source, cache) = (Api::knowing(&[]), Source::default(), memory());
        let url = api.start().await;
        let client = client(layer(&source, &url));
        let request = client.get(&url).with_extension(user(&cache, "u").await);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(api.headers(), ["Bearer old", "Bearer new-1"]);
    }

    #[tokio::test]
    async fn its_errors_say_what_a_client_can_do() {
        let (source, cache) = (Source::default(), memory());
        let url = format!("http://127.0.0.1:{}/", common::free_port());
        let client = client(layer(&source, &url));
        let failed = async |tokens: Option<Tokens>| {
            let request = client.get(&url);
            let request = match tokens {
                Some(tokens) => request.with_extension(tokens),
                None => request,
            };
            CallError::from(request.send().await.unwrap_err())
        };
        let nobody = failed(None).await;
        assert!(matches!(nobody, CallError::Token(TokenError::NoTokens)));
        let unreachable = failed(Some(user(&cache, "u").await)).await;
        assert!(matches!(unreachable, CallError::Call(_)), "{unreachable:?}");
        let signed_out = async |_: Prior| Err::<TokenSet, BoxError>(Error::SignedOut.into());
        let layer = BearerLayer::new("api", signed_out, only(&url)).unwrap();
        let client = self::client(layer);
        let request = client.get(&url).with_extension(cache.tokens(session("v")));
        let ended = CallError::from(request.send().await.unwrap_err());
        assert_eq!(ended.status(), StatusCode::UNAUTHORIZED);
        // That of another middleware.
        let other = anyhow::Error::from(std::io::Error::other("cut"));
        let other = CallError::from(reqwest_middleware::Error::Middleware(other));
        assert_eq!(other.status(), StatusCode::BAD_GATEWAY);
    }

    #[tokio::test]
    async fn a_body_that_streams_is_sent_once_and_its_token_replaced() {
        let (api, source, cache) = (Api::knowing(&["new-1"]), Source::default(), memory());
        let url = api.start().await;
        let client = client(layer(&source, &url));
        let user = user(&cache, "u").await;
        for status in [StatusCode::UNAUTHORIZED, StatusCode::OK] {
            let stream = reqwest::Body::wrap(Full::new(Bytes::from("hello")));
            let request = client.post(&url).body(stream).with_extension(user.clone());
            assert_eq!(request.send().await.unwrap().status(), status);
        }
        assert_eq!(api.headers(), ["Bearer old", "Bearer new-1"]);
    }

    #[tokio::test]
    async fn a_request_of_nobody_is_not_sent_and_a_header_is_kept() {
        let (api, source) = (Api::knowing(&[]), Source::default());
        let url = api.start().await;
        let client = client(layer(&source, &url));
        let error = client.get(&url).send().await.unwrap_err();
        assert!(matches!(token_error(&error), TokenError::NoTokens));
        assert!(api.seen().is_empty());
        let request = client.get(&url).header(AUTHORIZATION, "Basic eDp5");
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(api.headers(), ["Basic eDp5"]);
    }

    #[tokio::test]
    async fn a_layer_for_some_tokens_needs_no_extension() {
        let (api, source, cache) = (Api::knowing(&["old"]), Source::default(), memory());
        let url = api.start().await;
        let client = client(layer(&source, &url).for_tokens(user(&cache, "app").await));
        let response = client.get(&url).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
}

/// Who follows redirects outside of the layer takes the header away when it goes to another origin,
/// and sends a request that looks like any other.
mod redirects {
    use tower::ServiceBuilder;
    use tower_http::follow_redirect::FollowRedirectLayer;

    use super::*;

    /// Sends everybody on.
    async fn redirecting_to(target: &str) -> String {
        let target = target.to_owned();
        let handler = async move || axum::response::Redirect::to(&target);
        let app = Router::new().fallback(axum::routing::any(handler));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, app).await });
        url
    }

    #[tokio::test]
    async fn a_redirect_to_another_origin_gets_no_token() {
        let (elsewhere, source, cache) = (Api::default(), Source::default(), memory());
        let target = elsewhere.start().await;
        let url = redirecting_to(&target).await;
        let layer = layer(&source, &url).for_tokens(user(&cache, "u").await);
        let client = ServiceBuilder::new()
            .layer(FollowRedirectLayer::new())
            .layer(layer)
            .service(http_client());
        let response = client.oneshot(post(&url, None)).await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(elsewhere.headers(), ["none"]);
        assert_eq!(source.calls(), 0, "its answer is no rejection of a token");
    }

    #[tokio::test]
    async fn a_redirect_within_the_origins_keeps_it() {
        let (api, source, cache) = (Api::knowing(&["old"]), Source::default(), memory());
        let target = api.start().await;
        let url = redirecting_to(&target).await;
        let origins = Origins::new([&url, &target]).unwrap();
        let layer = BearerLayer::new("api", source.acquire(), origins).unwrap();
        let client = ServiceBuilder::new()
            .layer(FollowRedirectLayer::new())
            .layer(layer.for_tokens(user(&cache, "u").await))
            .service(http_client());
        let response = client.oneshot(post(&url, None)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }

    /// Middleware of `reqwest-middleware` that follows one redirect.
    struct Follow;

    #[async_trait::async_trait]
    impl reqwest_middleware::Middleware for Follow {
        async fn handle(
            &self,
            request: reqwest::Request,
            extensions: &mut http::Extensions,
            next: reqwest_middleware::Next<'_>,
        ) -> reqwest_middleware::Result<reqwest::Response> {
            let mut again = request.try_clone().unwrap();
            let response = next.clone().run(request, extensions).await?;
            let target = response.headers()["location"].to_str().unwrap();
            *again.url_mut() = target.parse().unwrap();
            next.run(again, extensions).await
        }
    }

    #[tokio::test]
    async fn nor_does_one_that_a_middleware_of_reqwest_follows() {
        let (elsewhere, source, cache) = (Api::default(), Source::default(), memory());
        let target = elsewhere.start().await;
        let url = redirecting_to(&target).await;
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        let client = reqwest_middleware::ClientBuilder::new(http.build().unwrap())
            .with(Follow)
            .with(layer(&source, &url).for_tokens(user(&cache, "u").await))
            .build();
        let response = client.get(&url).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(elsewhere.headers(), ["none"]);
    }
}
