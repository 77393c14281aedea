//! `BackChannelLogout` as a handler of actix-web.

use std::pin::Pin;

use actix_web::http::{Method, StatusCode, header};
use actix_web::web::Payload;
use actix_web::{Handler, HttpRequest, HttpResponse};
use futures_util::StreamExt;

use super::form::{Answer, MAX_FORM};
use super::{BackChannelLogout, LogoutError};

/// For `web::post().to(logout)`.
impl Handler<(HttpRequest, Payload)> for BackChannelLogout {
    type Output = HttpResponse;
    type Future = Pin<Box<dyn Future<Output = HttpResponse>>>;

    fn call(&self, (request, body): (HttpRequest, Payload)) -> Self::Future {
        let logout = self.clone();
        Box::pin(async move {
            if request.method() != Method::POST {
                return response(Answer::NO_POST);
            }
            let content_type = request.headers().get(header::CONTENT_TYPE);
            let content_type = content_type.map(header::HeaderValue::as_bytes);
            response(match read(body).await {
                Ok(Some(form)) => logout.obey(content_type, &form).await,
                Ok(None) => Answer::TOO_LARGE,
                Err(error) => Err(error).into(),
            })
        })
    }
}

/// The whole body, whatever the limit of the application; `None` if it is too long.
async fn read(mut body: Payload) -> Result<Option<Vec<u8>>, LogoutError> {
    let mut form = Vec::new();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_| LogoutError::CUT_OFF)?;
        if form.len() + chunk.len() > MAX_FORM {
            return Ok(None);
        }
        form.extend_from_slice(&chunk);
    }
    Ok(Some(form))
}

fn response(answer: Answer) -> HttpResponse {
    let status = StatusCode::from_u16(answer.status.as_u16());
    let mut response = HttpResponse::build(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
    for header in answer.headers() {
        response.insert_header(header);
    }
    match answer.body.is_empty() {
        true => response.finish(),
        false => response.body(answer.body),
    }
}
