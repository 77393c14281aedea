//! What a `Proxy` sends requests by.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use tower_service::Service;

use crate::acquire::BoxError;
use crate::grant::{HttpClient, collect, is_too_large};

/// A client as a service that is ready at all times.
#[derive(Clone)]
pub(super) struct Sending {
    pub(super) client: HttpClient,
    pub(super) timeout: Duration,
    pub(super) max_answer: usize,
}

impl Sending {
    pub(super) fn new(client: HttpClient) -> Self {
        Self {
            client,
            timeout: Duration::from_secs(10),
            max_answer: 8 * 1024 * 1024,
        }
    }
}

impl Service<Request<Bytes>> for Sending {
    type Response = Response<Bytes>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Bytes>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let exchange = self.client.exchange(request, self.max_answer);
        let timeout = self.timeout;
        Box::pin(async move {
            let answer = tokio::time::timeout(timeout, exchange).await??;
            Ok(answer.map(Bytes::from_owner))
        })
    }
}

/// The whole body of a request, of at most so many bytes.
pub(super) async fn read<B>(body: B, limit: usize) -> Result<Bytes, StatusCode>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    match collect(body, limit).await {
        Ok(whole) => Ok(Bytes::from_owner(whole)),
        Err(error) if is_too_large(&error) => Err(StatusCode::PAYLOAD_TOO_LARGE),
        // It was cut off.
        Err(_) => Err(StatusCode::BAD_REQUEST),
    }
}
