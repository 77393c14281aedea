//! What the layer adds to the head of a response, or of the error that becomes one.

use std::fmt;

use actix_web::dev::ServiceResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{
    CACHE_CONTROL, HeaderMap, HeaderValue, SET_COOKIE, WWW_AUTHENTICATE,
};
use actix_web::{HttpResponse, ResponseError};

use crate::challenge::SESSION;
use crate::layer::{FOR_SHARED_CACHES, KEPT_BY_NO_CACHE, forbids_storing};

/// Adds the `Set-Cookie` lines. A 401 of this crate that asks for a session asks for a bearer token, if it is one that
/// the request should have brought.
pub(super) fn finish<B>(
    outcome: Result<ServiceResponse<B>, actix_web::Error>,
    lines: Vec<String>,
    bearer: Option<&'static str>,
) -> Result<ServiceResponse<B>, actix_web::Error> {
    if lines.is_empty() && bearer.is_none() {
        return outcome;
    }
    let added = Added { lines, bearer };
    match outcome {
        Ok(mut response) => {
            let status = response.status();
            added.add_to(status, response.headers_mut());
            Ok(response)
        }
        Err(error) => Err(WithMore { error, added }.into()),
    }
}

struct Added {
    lines: Vec<String>,
    bearer: Option<&'static str>,
}

impl Added {
    fn add_to(&self, status: StatusCode, headers: &mut HeaderMap) {
        if let Some(bearer) = self.bearer
            && status == StatusCode::UNAUTHORIZED
            && headers
                .get(WWW_AUTHENTICATE)
                .is_some_and(|value| value == SESSION)
        {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(bearer));
        }
        if self.lines.is_empty() {
            return;
        }
        if !forbids_storing(headers.get_all(CACHE_CONTROL).map(HeaderValue::as_bytes)) {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static(KEPT_BY_NO_CACHE));
        }
        for name in FOR_SHARED_CACHES {
            headers.remove(name);
        }
        for line in &self.lines {
            if let Ok(mut value) = HeaderValue::from_str(line) {
                value.set_sensitive(true);
                headers.append(SET_COOKIE, value);
            }
        }
    }
}

/// An error whose response has more in its head.
struct WithMore {
    error: actix_web::Error,
    added: Added,
}

impl ResponseError for WithMore {
    fn status_code(&self) -> StatusCode {
        self.error.as_response_error().status_code()
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = self.error.error_response();
        let status = response.status();
        self.added.add_to(status, response.headers_mut());
        response
    }
}

impl fmt::Display for WithMore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl fmt::Debug for WithMore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}
