//! `Set-Cookie` lines for responses, and for the errors that become one.

use std::fmt;

use actix_web::dev::ServiceResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, HeaderMap, HeaderValue, SET_COOKIE};
use actix_web::{HttpResponse, ResponseError};

use crate::layer::{FOR_SHARED_CACHES, KEPT_BY_NO_CACHE, forbids_storing};

/// Adds the lines to the head of a response.
pub(super) fn set_cookies<B>(
    outcome: Result<ServiceResponse<B>, actix_web::Error>,
    lines: Vec<String>,
) -> Result<ServiceResponse<B>, actix_web::Error> {
    if lines.is_empty() {
        return outcome;
    }
    match outcome {
        Ok(mut response) => {
            add(response.headers_mut(), &lines);
            Ok(response)
        }
        Err(error) => Err(WithCookies { error, lines }.into()),
    }
}

fn add(headers: &mut HeaderMap, lines: &[String]) {
    if !forbids_storing(headers.get_all(CACHE_CONTROL).map(HeaderValue::as_bytes)) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(KEPT_BY_NO_CACHE));
    }
    for name in FOR_SHARED_CACHES {
        headers.remove(name);
    }
    for line in lines {
        if let Ok(mut value) = HeaderValue::from_str(line) {
            value.set_sensitive(true);
            headers.append(SET_COOKIE, value);
        }
    }
}

/// An error whose response sets cookies.
struct WithCookies {
    error: actix_web::Error,
    lines: Vec<String>,
}

impl ResponseError for WithCookies {
    fn status_code(&self) -> StatusCode {
        self.error.as_response_error().status_code()
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = self.error.error_response();
        add(response.headers_mut(), &self.lines);
        response
    }
}

impl fmt::Display for WithCookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl fmt::Debug for WithCookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}
