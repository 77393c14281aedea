//! `BackChannelLogout` as a handler of actix-web.

use std::pin::Pin;

use actix_web::http::{StatusCode, header};
use actix_web::web::Bytes;
use actix_web::{Handler, HttpRequest, HttpResponse};

use super::BackChannelLogout;
use super::form;

/// For `web::post().to(logout)`.
impl Handler<(HttpRequest, Bytes)> for BackChannelLogout {
    type Output = HttpResponse;
    type Future = Pin<Box<dyn Future<Output = HttpResponse>>>;

    fn call(&self, (request, form): (HttpRequest, Bytes)) -> Self::Future {
        let logout = self.clone();
        Box::pin(async move {
            let content_type = request.headers().get(header::CONTENT_TYPE);
            let content_type = content_type.map(header::HeaderValue::as_bytes);
            let answer = logout.obey(content_type, &form).await;
            let status = StatusCode::from_u16(answer.status.as_u16());
            let mut response =
                HttpResponse::build(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
            response.insert_header((header::CACHE_CONTROL, "no-store"));
            if answer.status == http::StatusCode::SERVICE_UNAVAILABLE {
                response.insert_header((header::RETRY_AFTER, form::RETRY_AFTER));
            }
            match answer.body.is_empty() {
                true => response.finish(),
                false => response.content_type("application/json").body(answer.body),
            }
        })
    }
}
