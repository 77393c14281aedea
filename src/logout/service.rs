//! `BackChannelLogout` as a tower service.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Buf;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response};
use http_body::Body;
use tower_service::Service;

use super::form::{Answer, MAX_FORM};
use super::{BackChannelLogout, LogoutError};

/// For `post_service` of axum, and any other router of tower services. The response's body is JSON, or empty.
impl<B> Service<Request<B>> for BackChannelLogout
where
    B: Body + Send + 'static,
    B::Data: Send,
{
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<String>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let logout = self.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            if head.method != Method::POST {
                return Ok(response(Answer::NO_POST));
            }
            let content_type = head.headers.get(CONTENT_TYPE);
            let answer = match read(body).await {
                Ok(Some(form)) => {
                    let content_type = content_type.map(HeaderValue::as_bytes);
                    logout.obey(content_type, &form).await
                }
                Ok(None) => Answer::TOO_LARGE,
                Err(error) => Err(error).into(),
            };
            Ok(response(answer))
        })
    }
}

/// The whole body; `None` if it is too long.
async fn read<B: Body>(body: B) -> Result<Option<Vec<u8>>, LogoutError> {
    let mut body = pin!(body);
    let mut form = Vec::new();
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        let frame = frame.map_err(|_| LogoutError::CUT_OFF)?;
        let Ok(mut data) = frame.into_data() else {
            continue;
        };
        if form.len() + data.remaining() > MAX_FORM {
            return Ok(None);
        }
        while data.has_remaining() {
            let chunk = data.chunk();
            let length = chunk.len();
            form.extend_from_slice(chunk);
            data.advance(length);
        }
    }
    Ok(Some(form))
}

fn response(answer: Answer) -> Response<String> {
    let headers = answer.headers();
    let headers = headers.map(|(name, value)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    });
    let headers = HeaderMap::from_iter(headers);
    let mut response = Response::new(answer.body);
    *response.status_mut() = answer.status;
    *response.headers_mut() = headers;
    response
}
