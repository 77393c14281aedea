//! `Proxy` as a handler of actix-web.

use std::pin::Pin;

use actix_web::http::StatusCode;
use actix_web::web::Payload;
use actix_web::{Handler, HttpMessage as _, HttpRequest, HttpResponse};
use futures_util::TryStreamExt as _;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};

use super::{OF_REQUESTS, Proxy};
use crate::tokens::Tokens;

/// For `web::to(proxy)` at a path such as `/bff/api/{path:.*}`.
impl Handler<(HttpRequest, Payload)> for Proxy {
    type Output = HttpResponse;
    type Future = Pin<Box<dyn Future<Output = HttpResponse>>>;

    fn call(&self, (request, body): (HttpRequest, Payload)) -> Self::Future {
        let proxy = self.clone();
        Box::pin(async move {
            let Some(outgoing) = head(&request) else {
                return HttpResponse::NotFound().finish();
            };
            let body = StreamBody::new(body.map_ok(Frame::data));
            let answer = proxy.pass(outgoing.map(|()| body)).await;
            response(answer).await
        })
    }
}

/// The request without its body, on the `http` of this crate; `None` where its path is not spelt as the route's is.
fn head(request: &HttpRequest) -> Option<Request<()>> {
    let pattern = request.match_pattern()?;
    let before = pattern.split('{').next()?.trim_end_matches('/');
    let path = request.uri().path_and_query()?.as_str();
    let path = path.strip_prefix(before)?;
    let mut outgoing = Request::new(());
    *outgoing.method_mut() = Method::from_bytes(request.method().as_str().as_bytes()).ok()?;
    *outgoing.uri_mut() = Uri::try_from(path).ok()?;
    for name in &OF_REQUESTS {
        for value in request.headers().get_all(name.as_str()) {
            let value = HeaderValue::from_bytes(value.as_bytes()).ok()?;
            outgoing.headers_mut().append(name, value);
        }
    }
    if let Some(tokens) = request.extensions().get::<Tokens>() {
        outgoing.extensions_mut().insert(tokens.clone());
    }
    Some(outgoing)
}

async fn response(answer: http::Response<http_body_util::Full<bytes::Bytes>>) -> HttpResponse {
    let (head, body) = answer.into_parts();
    let status = StatusCode::from_u16(head.status.as_u16());
    let mut response = HttpResponse::build(status.unwrap_or(StatusCode::BAD_GATEWAY));
    let pairs = head.headers.iter();
    for (name, value) in pairs.map(|(name, value): (&HeaderName, _)| (name.as_str(), value)) {
        response.append_header((name, value.as_bytes()));
    }
    let Ok(body) = body.collect().await;
    let body = body.to_bytes();
    // A 204 has no body, not even an empty one.
    match body.is_empty() {
        true => response.finish(),
        false => response.body(body),
    }
}
