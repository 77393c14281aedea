//! `HttpClient`: what requests to the provider go through.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::header::{ACCEPT, HeaderValue};
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use rustls::crypto::ring;
use tower_service::Service;
use url::Url;

use super::request::uri;
use crate::acquire::{BoxError, ProviderError};
use crate::error::ConfigError;
use crate::wipe::Wiped;

/// What an endpoint answers, read to its end.
pub(crate) type Answer = Response<Wiped<Vec<u8>>>;

/// The answer to one request.
pub(crate) type Exchange = Pin<Box<dyn Future<Output = Result<Answer, BoxError>> + Send>>;

/// An HTTP client: any tower service of `http` types, for [`Client::http_client`](super::Client::http_client).
///
/// `reqwest::Client` converts into it by `From`: that of reqwest 0.12 with feature `reqwest-0-12`, that of 0.13 with
/// feature `reqwest-0-13`. hyper-util's client is such a service already, and tower's layers go around it:
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::Full;
/// use hyper_util::{client::legacy, rt::TokioExecutor};
/// use tower::ServiceBuilder;
/// use tower_token_cache::grant::{Client, HttpClient};
///
/// let hyper = legacy::Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
/// let stack = ServiceBuilder::new().concurrency_limit(16).service(hyper);
/// let client = Client::insecure("http://login.internal/token", "app")?.http_client(HttpClient::new(stack));
/// # let _ = client;
/// # Ok::<(), tower_token_cache::ConfigError>(())
/// ```
///
/// Whatever the client is, [the timeout](super::Client::timeout) holds, and an answer is read up to 1 MiB. It has to
/// keep three rules:
///
/// - It follows no redirect: that would carry credentials to another host.
/// - It repeats a request only if nothing of it was sent (a connection that could not be made). A refresh token that
///   is redeemed twice ends the session at many providers, and a [client assertion](super::Client::assertion) counts
///   once.
/// - Its errors say nothing of headers and bodies: they are logged.
///
/// Clones share the service.
#[derive(Clone)]
pub struct HttpClient(pub(super) Arc<Exchanges>);

/// Sends a request, and reads an answer of at most so many bytes.
pub(super) type Exchanges = dyn Fn(Request<Bytes>, usize) -> Exchange + Send + Sync;

impl HttpClient {
    /// A client over this service. Each request goes to a clone of it, once that is ready.
    ///
    /// The body of a request is what can be made of [`Bytes`]: `Bytes` themselves, `Vec<u8>`, `Full<Bytes>`, the
    /// bodies of axum and of reqwest.
    pub fn new<S, B, R>(service: S) -> Self
    where
        S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: From<Bytes> + Send + 'static,
        R: Body + Send,
        R::Data: Send,
        R::Error: Into<BoxError>,
    {
        // A service need not be `Sync`.
        let service = Mutex::new(service);
        Self(Arc::new(move |request, limit| {
            let mut service = service.lock().clone();
            let request = request.map(B::from);
            Box::pin(async move {
                let ready = poll_fn(|context| service.poll_ready(context)).await;
                ready.map_err(Into::into)?;
                let response = service.call(request).await.map_err(Into::into)?;
                read(response, limit).await
            })
        }))
    }

    /// A client that follows no redirect, uses no proxy (also not that of the environment: it would see what goes to
    /// this machine in the clear), and trusts the roots of Mozilla.
    pub(crate) fn over_hyper() -> Result<Self, ConfigError> {
        let tls = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(ring::default_provider())
            .map_err(|error| ConfigError::new("http_client", "has no TLS").with_source(error))?;
        let connector = tls.https_or_http().enable_http1().build();
        let client = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .build::<_, Full<Bytes>>(connector);
        Ok(Self::new(client))
    }

    /// The JSON document at this address, of at most so many bytes, with what else the answer has.
    pub(crate) async fn document(
        &self,
        url: &Url,
        limit: usize,
        timeout: Duration,
    ) -> Result<Answer, ProviderError> {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = uri(url).map_err(ProviderError::unreachable)?;
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(ACCEPT, json);
        within(timeout, self.send(request, limit)).await
    }

    /// Sends the request, and reads an answer of at most so many bytes. Takes as long as it takes: see [`within`].
    pub(super) async fn send(
        &self,
        request: Request<Bytes>,
        limit: usize,
    ) -> Result<Answer, ProviderError> {
        let exchange = self.exchange(request, limit);
        exchange.await.map_err(ProviderError::unreachable)
    }

    /// The same for what is no provider.
    pub(crate) fn exchange(&self, request: Request<Bytes>, limit: usize) -> Exchange {
        (self.0)(request, limit)
    }
}

/// What this work comes to, if it does in time.
pub(super) async fn within<T>(
    timeout: Duration,
    work: impl Future<Output = Result<T, ProviderError>>,
) -> Result<T, ProviderError> {
    let ended = tokio::time::timeout(timeout, work).await;
    ended.unwrap_or_else(|_| Err(ProviderError::unreachable(NoAnswer::InTime)))
}

/// The answer with its whole body, in a buffer that is wiped and never grew.
pub(super) async fn read<R>(response: Response<R>, limit: usize) -> Result<Answer, BoxError>
where
    R: Body,
    R::Error: Into<BoxError>,
{
    let (head, body) = response.into_parts();
    let whole = collect(body, limit).await?;
    Ok(Response::from_parts(head, whole))
}

/// A whole body of at most so many bytes.
pub(crate) async fn collect<B>(body: B, limit: usize) -> Result<Wiped<Vec<u8>>, BoxError>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let mut body = pin!(body);
    let mut chunks = Vec::new();
    let mut size = 0;
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        // What is no data is a trailer.
        let Ok(mut data) = frame.map_err(Into::into)?.into_data() else {
            continue;
        };
        size += data.remaining();
        if size > limit {
            return Err(NoAnswer::AsSmallAs(limit).into());
        }
        chunks.push(data.copy_to_bytes(data.remaining()));
    }
    let mut whole = Wiped::new(Vec::with_capacity(size));
    for chunk in chunks {
        whole.extend_from_slice(&chunk);
    }
    Ok(whole)
}

/// Whether [`collect`] has met a body that is too long.
pub(crate) fn is_too_large(error: &BoxError) -> bool {
    matches!(error.downcast_ref(), Some(NoAnswer::AsSmallAs(_)))
}

/// There was an answer, perhaps, but none to be read.
#[derive(Debug)]
pub(super) enum NoAnswer {
    InTime,
    AsSmallAs(usize),
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InTime => f.write_str("the answer did not come within the timeout"),
            Self::AsSmallAs(limit) => write!(f, "the answer is larger than {limit} bytes"),
        }
    }
}

impl std::error::Error for NoAnswer {}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::{Ready, ready};
    use std::task::{Context, Poll};

    use axum::Router;
    use axum::body::Body as AxumBody;
    use tower::util::BoxCloneService;

    use super::*;

    fn request() -> Request<Bytes> {
        Request::get("http://login.example/")
            .body(Bytes::from_static(b"sent"))
            .unwrap()
    }

    /// Refuses to be called before it has said that it is ready.
    #[derive(Clone, Default)]
    struct Polite {
        asked: bool,
    }

    impl Service<Request<Bytes>> for Polite {
        type Response = Response<Full<Bytes>>;
        type Error = Infallible;
        type Future = Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            if self.asked {
                return Poll::Ready(Ok(()));
            }
            self.asked = true;
            context.waker().wake_by_ref();
            Poll::Pending
        }

        fn call(&mut self, request: Request<Bytes>) -> Self::Future {
            assert!(std::mem::take(&mut self.asked), "it is not ready");
            ready(Ok(Response::new(Full::new(request.into_body()))))
        }
    }

    #[tokio::test]
    async fn a_service_is_called_once_it_is_ready() {
        let polite = Polite::default();
        for client in [
            HttpClient::new(polite.clone()),
            HttpClient::new(BoxCloneService::new(polite)),
        ] {
            for _ in 0..2 {
                let answer = client.send(request(), 4).await.unwrap();
                assert_eq!(answer.body().as_slice(), b"sent");
            }
        }
    }

    #[tokio::test]
    async fn a_body_of_any_kind_is_read_to_its_limit_and_no_further() {
        let app = Router::new().fallback(|| async {
            let chunk = |size: &usize| Ok::<_, Infallible>(Bytes::from(vec![b'x'; *size]));
            AxumBody::from_stream(futures_util::stream::iter([3, 0, 4].iter().map(chunk)))
        });
        let client = HttpClient::new::<_, AxumBody, _>(app);
        let answer = client.send(request(), 7).await.unwrap();
        assert_eq!(answer.body().as_slice(), b"xxxxxxx");
        let error = client.send(request(), 6).await.err().unwrap();
        assert_eq!(error.code(), "unreachable");
    }

    #[tokio::test(start_paused = true)]
    async fn the_timeout_holds_whatever_the_service_does() {
        let never = tower::service_fn(|_: Request<Bytes>| {
            std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>()
        });
        let client = HttpClient::new(never);
        let begun = tokio::time::Instant::now();
        let sent = client.send(request(), 1);
        let error = within(Duration::from_secs(10), sent).await.err().unwrap();
        assert_eq!(error.code(), "unreachable");
        assert_eq!(begun.elapsed().as_secs(), 10);
    }
}
