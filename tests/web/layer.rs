//! The tower layer on its own, under hyper, and under tonic.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use common::support::*;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_token_cache::{
    BoxError, Error, FailurePolicy, MemoryStore, MissingKey, Prior, TokenCache, TokenCacheLayer,
    TokenKey, TokenSet, Tokens, WriteMode, key,
};

fn layer(cache: &TokenCache) -> TokenCacheLayer {
    TokenCacheLayer::new(cache.clone(), key::header("x-session"))
}

fn request(session: &str) -> Request<()> {
    Request::get("/")
        .header("x-session", session)
        .body(())
        .unwrap()
}

fn tokens(request: &Request<()>) -> Tokens {
    request
        .extensions()
        .get::<Tokens>()
        .expect("set by the layer")
        .clone()
}

/// Changes a token and answers with this body.
async fn put<B>(request: Request<()>, body: B) -> Result<Response<B>, Infallible> {
    tokens(&request).insert("graph", token("t")).await.unwrap();
    Ok(Response::new(body))
}

/// Neither `Clone` nor ready at once; answers with the number of times it was asked for readiness.
struct Picky {
    asked: usize,
}

impl Service<Request<()>> for Picky {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.asked += 1;
        if self.asked < 3 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        assert!(self.asked >= 3, "called before it was ready");
        std::future::ready(Ok(Response::new(Full::from(self.asked.to_string()))))
    }
}

#[tokio::test]
async fn poll_ready_is_honoured_and_clone_not_required() {
    let mut service = layer(&cache(TestStore::default())).layer(Picky { asked: 0 });
    let response = service
        .ready()
        .await
        .unwrap()
        .call(request("s"))
        .await
        .unwrap();
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "3"
    );
}

#[tokio::test]
async fn nothing_is_read_or_written_for_a_request_that_uses_no_token() {
    let store = TestStore::default();
    let cache = cache(store.clone());
    let inner = async |_: Request<()>| Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()));
    let service = layer(&cache).layer(service_fn(inner));
    service.oneshot(request("s")).await.unwrap();
    assert_eq!((store.loads(), store.commits(), store.touches()), (0, 0, 0));
    assert_eq!(cache.stats().l1_entries, 0);
}

/// Whether what the request changed is flushed without anything else happening to the response.
async fn flushed(cache: &TokenCache) {
    eventually("flushed", async || cache.stats().flushed_changes == 1).await;
}

#[tokio::test]
async fn a_body_that_is_at_its_end_and_never_polled_is_flushed() {
    let cache = cache(TestStore::default());
    let service = layer(&cache).layer(service_fn(|r| put(r, Empty::<Bytes>::new())));
    let kept = service.oneshot(request("s")).await.unwrap();
    flushed(&cache).await;
    assert!(kept.body().is_end_stream());
}

#[tokio::test]
async fn a_body_that_is_polled_to_its_last_frame_and_kept_is_flushed() {
    let cache = cache(TestStore::default());
    let service = layer(&cache).layer(service_fn(|r| put(r, Full::<Bytes>::from("x"))));
    let mut kept = service.oneshot(request("s")).await.unwrap();
    let frame = kept.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "x");
    flushed(&cache).await;
    assert!(kept.body_mut().frame().await.is_none());
}

#[tokio::test]
async fn a_body_that_is_dropped_early_or_fails_is_flushed() {
    let cache = cache(TestStore::default());
    let service = layer(&cache).layer(service_fn(|r| put(r, Full::<Bytes>::from("x"))));
    let response = service.oneshot(request("s")).await.unwrap();
    assert_eq!(cache.stats().pending_changes, 1);
    drop(response);
    flushed(&cache).await;

    let failing = || {
        let error = std::io::Error::other("the body's own");
        StreamBody::new(futures_util::stream::iter([Err::<Frame<Bytes>, _>(error)]))
    };
    let cache = self::cache(TestStore::default());
    let service = layer(&cache).layer(service_fn(|r| put(r, failing())));
    let mut kept = service.oneshot(request("s")).await.unwrap();
    assert!(
        kept.body_mut().frame().await.unwrap().is_err(),
        "errors pass through"
    );
    flushed(&cache).await;
}

#[tokio::test]
async fn a_handler_that_is_dropped_or_panics_is_flushed() {
    let cache = cache(TestStore::default());
    let stuck = async |r: Request<()>| {
        tokens(&r).insert("graph", token("t")).await.unwrap();
        std::future::pending::<Result<Response<Empty<Bytes>>, Infallible>>().await
    };
    let call = layer(&cache).layer(service_fn(stuck)).oneshot(request("s"));
    let task = tokio::spawn(call);
    eventually("changed", async || cache.stats().pending_changes == 1).await;
    task.abort();
    flushed(&cache).await;

    let cache = self::cache(TestStore::default());
    let panics = async |r: Request<()>| -> Result<Response<Empty<Bytes>>, Infallible> {
        tokens(&r).insert("graph", token("t")).await.unwrap();
        panic!("the handler's own")
    };
    let task = tokio::spawn(
        layer(&cache)
            .layer(service_fn(panics))
            .oneshot(request("s")),
    );
    assert!(task.await.unwrap_err().is_panic());
    flushed(&cache).await;
}

#[tokio::test]
async fn trailers_and_size_hints_pass_through() {
    struct Trailing(Vec<Frame<Bytes>>);
    impl Body for Trailing {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop().map(Ok))
        }
        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(4)
        }
    }
    let trailers = || {
        HeaderMap::from_iter([(
            HeaderName::from_static("grpc-status"),
            HeaderValue::from_static("0"),
        )])
    };
    let frames = vec![
        Frame::trailers(trailers()),
        Frame::data(Bytes::from("data")),
    ];
    let mut body = Some(Trailing(frames));
    let inner = service_fn(move |r| put(r, body.take().unwrap()));
    let response = layer(&cache(TestStore::default()))
        .layer(inner)
        .oneshot(request("s"));
    let mut body = response.await.unwrap().into_body();
    assert_eq!(body.size_hint().exact(), Some(4));
    assert!(!body.is_end_stream());
    assert_eq!(
        body.frame().await.unwrap().unwrap().into_data().unwrap(),
        "data"
    );
    assert_eq!(
        body.frame()
            .await
            .unwrap()
            .unwrap()
            .into_trailers()
            .unwrap(),
        trailers()
    );
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn requests_without_a_key_or_with_an_invalid_one() {
    let called = Arc::new(AtomicUsize::new(0));
    let inner = {
        let called = called.clone();
        move |r: Request<()>| {
            called.fetch_add(1, Ordering::SeqCst);
            let anonymous = tokens(&r).is_anonymous();
            async move { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(anonymous.to_string()))) }
        }
    };
    let cache = cache(TestStore::default());
    let lenient = layer(&cache).layer(service_fn(inner.clone()));
    let strict = layer(&cache)
        .missing_key(MissingKey::Reject)
        .layer(service_fn(inner));
    let bare = || Request::new(());
    let response = lenient.clone().oneshot(bare()).await.unwrap();
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "true"
    );
    assert_eq!(called.load(Ordering::SeqCst), 1);

    let refused = strict.clone().oneshot(bare()).await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(refused.body().size_hint().exact(), Some(0));
    let long = "x".repeat(2000);
    for service in [lenient, strict] {
        let response = service.oneshot(request(&long)).await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert!(
            response
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes()
                .is_empty()
        );
    }
    assert_eq!(
        called.load(Ordering::SeqCst),
        1,
        "the inner service was not asked"
    );
}

#[tokio::test]
async fn policy_and_write_mode_are_chosen_per_request() {
    let store = TestStore::default();
    let cache = cache(store.clone());
    let inner = async |r: Request<()>| {
        tokens(&r).insert("graph", token("t")).await.unwrap();
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("x")))
    };
    let service = layer(&cache)
        .write_mode_for(|head| (head.method() == "PUT").then_some(WriteMode::BeforeResponse))
        .failure_policy_for(|head| (head.method() == "POST").then_some(FailurePolicy::Strict))
        .layer(service_fn(inner));
    let send = async |method: &str, session: &str| {
        let request = Request::builder()
            .method(method)
            .header("x-session", session);
        service
            .clone()
            .oneshot(request.body(()).unwrap())
            .await
            .unwrap()
    };
    let _kept = send("GET", "get").await;
    assert_eq!(store.commits(), 0, "after the head of the response");
    eventually("flushed", async || store.commits() == 1).await;
    let _kept_too = send("PUT", "put").await;
    assert_eq!(store.commits(), 2, "before the response");
    store.set_refusing_commits(true);
    assert_eq!(
        send("PUT", "put").await.status(),
        StatusCode::OK,
        "degraded"
    );
    let refused = send("POST", "put").await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["retry-after"], "1");
}

#[tokio::test]
async fn removals_are_committed_before_the_head_and_other_changes_after_it() {
    let store = TestStore::default();
    let cache = cache(store.clone());
    let inner = async |r: Request<()>| {
        let tokens = tokens(&r);
        match r.method().as_str() {
            "DELETE" => tokens.remove("graph").await.unwrap(),
            _ => tokens.insert("graph", token("t")).await.unwrap(),
        }
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("x")))
    };
    let service = layer(&cache).layer(service_fn(inner));
    let send = async |method: &str| {
        let request = Request::builder().method(method).header("x-session", "s");
        service
            .clone()
            .oneshot(request.body(()).unwrap())
            .await
            .unwrap()
    };
    let _kept_too = send("PUT").await;
    assert_eq!(store.commits(), 0);
    eventually("flushed", async || cache.stats().pending_changes == 0).await;
    let _kept = send("DELETE").await;
    assert_eq!((store.commits(), cache.stats().pending_changes), (2, 0));
}

/// A body that goes on for hours, as server-sent events do.
#[tokio::test(start_paused = true)]
async fn nothing_waits_for_the_end_of_a_stream() {
    let store = TestStore::default();
    let cache = cache(store.clone());
    let (frames, body) = tokio::sync::mpsc::unbounded_channel::<Result<Frame<Bytes>, Infallible>>();
    let body = tokio_stream::wrappers::UnboundedReceiverStream::new(body);
    let mut body = Some(StreamBody::new(body));
    let mut handle = None;
    let inner = service_fn(|r: Request<()>| {
        handle = Some(tokens(&r));
        put(r, body.take().unwrap())
    });
    let response = layer(&cache).layer(inner).oneshot(request("s"));
    let mut response = response.await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(store.commits(), 1, "what was changed before the head");
    frames.send(Ok(Frame::data("event".into()))).unwrap();
    assert!(response.body_mut().frame().await.is_some());
    handle.unwrap().insert("mail", token("m")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(store.commits(), 2, "what was changed while it streams");
    assert_eq!(stored(store, "s", "mail").await.as_deref(), Some("m"));
}

/// A head that comes late keeps nothing from L2 for more than a second, and costs one commit.
#[tokio::test(start_paused = true)]
async fn nothing_waits_long_for_the_head_of_a_response() {
    let store = TestStore::default();
    let cache = cache(store.clone());
    let inner = async |r: Request<()>| {
        let tokens = tokens(&r);
        tokens.insert("graph", token("t")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
        tokens.insert("mail", token("m")).await.unwrap();
        std::future::pending::<Result<Response<Empty<Bytes>>, Infallible>>().await
    };
    let service = layer(&cache).layer(service_fn(inner));
    let running = tokio::spawn(service.oneshot(request("s")));
    tokio::time::sleep(Duration::from_millis(450)).await;
    assert_eq!(store.commits(), 0, "the head may come any moment");
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!((store.commits(), cache.stats().pending_changes), (1, 0));
    assert!(!running.is_finished());
}

/// An ordinary request's changes go out with its head, all at once.
#[tokio::test(start_paused = true)]
async fn changes_of_a_request_go_out_once() {
    let store = TestStore::default();
    let cache = cache(store.clone());
    let inner = async |r: Request<()>| {
        let tokens = tokens(&r);
        for name in ["graph", "mail", "calendar"] {
            tokens.insert(name, token("t")).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("x")))
    };
    let service = layer(&cache).layer(service_fn(inner));
    for round in 1..=20 {
        let response = service.clone().oneshot(request("s")).await.unwrap();
        response.into_body().collect().await.unwrap();
        tokio::time::sleep(Duration::from_millis(130)).await;
        assert_eq!(store.commits(), round);
    }
}

#[tokio::test(start_paused = true)]
async fn all_partitions_that_wait_go_out_in_one_group() {
    let store = TestStore::default();
    let cache = cache(store.clone());
    let mut all = Vec::new();
    for number in 0..60 {
        let tokens = cache.tokens(session(&number.to_string()));
        assert_eq!(access(&tokens, "graph").await, None);
        all.push(tokens);
    }
    store.hang();
    // Four groups may be on their way; what comes later waits, and goes out together.
    for (number, tokens) in (0..).zip(&all) {
        tokens.insert("graph", token("t")).await.unwrap();
        if number < 4 {
            let groups = number + 1;
            eventually("the group is sent", async || store.groups() == groups).await;
        }
    }
    store.wake();
    eventually("flushed", async || cache.stats().flushed_changes == 60).await;
    assert_eq!(store.groups(), 5);
}

#[tokio::test]
async fn named_caches_are_shared_process_wide() {
    let builder = || TokenCache::builder(TestStore::default());
    let a = TokenCache::shared("tests", builder()).unwrap();
    let b = TokenCache::shared("tests", builder()).unwrap();
    let other = TokenCache::shared("others", builder()).unwrap();
    a.tokens(session("s"))
        .insert("graph", token("t"))
        .await
        .unwrap();
    assert_eq!(
        access(&b.tokens(session("s")), "graph").await.as_deref(),
        Some("t")
    );
    assert_eq!(access(&other.tokens(session("s")), "graph").await, None);
}

#[tokio::test]
async fn under_hyper() {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let cache = cache(TestStore::default());
    let inner = async |r: Request<hyper::body::Incoming>| {
        let tokens = r.extensions().get::<Tokens>().unwrap().clone();
        tokens.insert("graph", token("t")).await.unwrap();
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("over hyper")))
    };
    let service = layer(&cache).layer(service_fn(inner));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = hyper_util::service::TowerToHyperService::new(service);
        hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await
    });
    let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
    let request = Request::get(format!("http://{address}/")).header("x-session", "s");
    let response = client
        .request(request.body(Full::<Bytes>::default()).unwrap())
        .await
        .unwrap();
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "over hyper"
    );
    flushed(&cache).await;
}

#[tokio::test]
async fn under_tonic() {
    use tonic::transport::{Endpoint, Server};
    let cache = cache(TestStore::default());
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("all", tonic_health::ServingStatus::Serving)
        .await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let changing = tower::layer::layer_fn(|inner| Changing { inner });
    let server = Server::builder()
        .layer(layer(&cache))
        .layer(changing)
        .add_service(health);
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(server.serve_with_incoming(incoming));
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let channel = channel
        .timeout(Duration::from_secs(5))
        .connect()
        .await
        .unwrap();
    let mut client = tonic_health::pb::health_client::HealthClient::new(channel);
    let mut check = tonic::Request::new(tonic_health::pb::HealthCheckRequest {
        service: "all".into(),
    });
    check
        .metadata_mut()
        .insert("x-session", "s".parse().unwrap());
    client
        .check(check)
        .await
        .expect("status and trailers arrive");
    flushed(&cache).await;

    let mut refused = tonic::Request::new(tonic_health::pb::HealthCheckRequest::default());
    refused
        .metadata_mut()
        .insert("x-session", "x".repeat(2000).parse().unwrap());
    assert!(client.check(refused).await.is_err());
}

/// Changes a token before it calls the inner service.
#[derive(Clone)]
struct Changing<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for Changing<S>
where
    S: Service<Request<B>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = futures_util::future::BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let tokens = request
            .extensions()
            .get::<Tokens>()
            .expect("set by the layer")
            .clone();
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        Box::pin(async move {
            tokens.insert("graph", token("t")).await.unwrap();
            inner.call(request).await
        })
    }
}

/// A name may come from a path: what is no key is refused on reads as on writes, and the cache's own
/// entries cannot be had by their names.
#[tokio::test]
async fn what_is_no_token_key_is_refused_by_every_operation() {
    let cache = cache(MemoryStore::new());
    let tokens = cache.tokens(session("s"));
    let set = TokenSet::from(token("a")).with_refresh_token("r");
    tokens.insert("other", set).await.unwrap();
    let failed = async |_: Prior| Err::<TokenSet, BoxError>("x".into());
    let _ = tokens.get_or_acquire("graph", failed).await;
    let long = "x".repeat(4097);
    for name in [
        "",
        "\u{1}refresh_token",
        "\u{1}setback\u{1}graph",
        "\u{1}setback\u{1}\u{1}refresh_token",
        "a\nb",
        "\u{1f}r\u{1f}s",
        "\u{7f}",
        &long,
    ] {
        let answers = [
            tokens.get(name).await.map(drop),
            tokens.contains(name).await.map(drop),
            tokens.get_with_metadata(name).await.map(drop),
            tokens.remove(name).await,
            tokens.insert(name, token("t")).await,
            tokens.get_or_acquire(name, failed).await.map(drop),
        ];
        for answer in answers {
            assert!(
                matches!(answer, Err(Error::InvalidKey(_))),
                "{name:?}: {answer:?}"
            );
        }
    }
    // A key that is none by name.
    let scoped = TokenKey::scoped("r", ["s"]).unwrap();
    tokens.insert(&scoped, token("t")).await.unwrap();
    assert!(tokens.get(&scoped).await.unwrap().is_hit());
    assert!(tokens.contains(scoped).await.unwrap());
    assert!(tokens.contains(String::from("other")).await.unwrap());
}

/// Layers that answer by themselves need a body to answer with.
#[tokio::test]
async fn layers_that_answer_by_themselves_go_on_either_side() {
    use tower::ServiceBuilder;
    use tower_http::cors::CorsLayer;
    use tower_http::timeout::TimeoutLayer;

    let cache = cache(MemoryStore::new());
    let cors = || CorsLayer::permissive();
    let timeout = || {
        let status = StatusCode::GATEWAY_TIMEOUT;
        TimeoutLayer::with_status_code(status, Duration::from_millis(10))
    };
    let slow = async |request: Request<()>| {
        tokens(&request).insert("graph", token("t")).await.unwrap();
        if request.uri().path() == "/slow" {
            std::future::pending::<()>().await;
        }
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("done")))
    };
    let outside = ServiceBuilder::new()
        .layer(cors())
        .layer(timeout())
        .layer(layer(&cache))
        .service(service_fn(slow));
    let inside = ServiceBuilder::new()
        .layer(layer(&cache))
        .layer(cors())
        .layer(timeout())
        .service(service_fn(slow));
    let slow = || {
        let request = Request::get("/slow").header("x-session", "slow");
        request.body(()).unwrap()
    };
    let late = outside.clone().oneshot(slow()).await.unwrap();
    assert_eq!(late.status(), StatusCode::GATEWAY_TIMEOUT);
    let late = inside.clone().oneshot(slow()).await.unwrap();
    assert_eq!(late.status(), StatusCode::GATEWAY_TIMEOUT);
    let preflight = || Request::options("/").body(()).unwrap();
    let answer = outside.clone().oneshot(preflight()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let answer = inside.clone().oneshot(preflight()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let done = outside.oneshot(request("a")).await.unwrap();
    assert_eq!(done.into_body().collect().await.unwrap().to_bytes(), "done");
    let done = inside.oneshot(request("b")).await.unwrap();
    assert_eq!(done.into_body().collect().await.unwrap().to_bytes(), "done");
}
