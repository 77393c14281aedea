//! The request that brings a logout token, and the answer to it (§2.5 and §2.8), whatever the framework.

use http::StatusCode;
use url::form_urlencoded;

use super::{BackChannelLogout, LogoutError};

/// The longest form that is read, in bytes: some fifty times a usual logout token.
pub(super) const MAX_FORM: usize = 64 * 1024;
/// How soon the provider may try again after a 503, in seconds.
const RETRY_AFTER: &str = "5";

/// What the provider is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: String,
}

impl Answer {
    pub(super) const TOO_LARGE: Self = Self::empty(StatusCode::PAYLOAD_TOO_LARGE);
    pub(super) const NO_POST: Self = Self::empty(StatusCode::METHOD_NOT_ALLOWED);

    const fn empty(status: StatusCode) -> Self {
        Self {
            status,
            body: String::new(),
        }
    }

    /// Its headers, in lower case.
    pub(super) fn headers(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let of_status = match self.status {
            StatusCode::METHOD_NOT_ALLOWED => Some(("allow", "POST")),
            StatusCode::SERVICE_UNAVAILABLE => Some(("retry-after", RETRY_AFTER)),
            _ => None,
        };
        let of_body = (!self.body.is_empty()).then_some(("content-type", "application/json"));
        let all = [Some(("cache-control", "no-store")), of_status, of_body];
        all.into_iter().flatten()
    }
}

impl From<Result<(), LogoutError>> for Answer {
    fn from(result: Result<(), LogoutError>) -> Self {
        match result {
            Ok(()) => Self::empty(StatusCode::OK),
            Err(error) => Self {
                status: error.status(),
                body: match error {
                    LogoutError::Invalid(reason) => serde_json::json!({
                        "error": "invalid_request",
                        "error_description": reason,
                    })
                    .to_string(),
                    _ => String::new(),
                },
            },
        }
    }
}

impl BackChannelLogout {
    /// Does what a form asks for.
    pub(super) async fn obey(&self, content_type: Option<&[u8]>, form: &[u8]) -> Answer {
        if !content_type.is_some_and(is_form) {
            return Answer::empty(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        if form.len() > MAX_FORM {
            return Answer::TOO_LARGE;
        }
        match logout_token(form) {
            Some(token) => self.sign_out(&token).await.into(),
            None => Err(LogoutError::Invalid("the form has not one `logout_token`")).into(),
        }
    }
}

fn is_form(content_type: &[u8]) -> bool {
    let kind = content_type.split(|byte| *byte == b';').next();
    kind.unwrap_or_default()
        .trim_ascii()
        .eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
}

/// The one `logout_token` of a form.
fn logout_token(form: &[u8]) -> Option<String> {
    let mut tokens = form_urlencoded::parse(form).filter(|(name, _)| name == "logout_token");
    let (_, token) = tokens.next()?;
    tokens.next().is_none().then(|| token.into_owned())
}
