//! Answers of the `oauth2` and `openidconnect` crates as [`TokenSet`]s and [`ProviderError`]s.

use std::error::Error as StdError;
use std::fmt;

use oauth2::basic::BasicRequestTokenError;
use oauth2::{
    ErrorResponseType, ExtraTokenFields, HttpClientError, RequestTokenError, StandardErrorResponse,
    StandardTokenResponse, TokenResponse, TokenType,
};
use serde::Serialize;

use crate::acquire::{Meaning, ProviderError};
use crate::answer::Members;
use crate::time::Timestamp;
use crate::token::{Token, TokenSet};

/// Takes over a token endpoint's answer, as [`TokenSet`] says. `expires_in` counts from now.
///
/// The extra fields are kept; `id_token` among them becomes the set's id token, so the responses of
/// `openidconnect` work too.
///
/// ```
/// use oauth2::basic::BasicTokenResponse;
/// use tower_token_cache::TokenSet;
///
/// let json = r#"{"access_token":"a","token_type":"bearer","expires_in":60,"scope":"x y"}"#;
/// let response: BasicTokenResponse = serde_json::from_str(json)?;
/// let set = TokenSet::from(&response);
/// assert_eq!(set.access().scopes().collect::<Vec<_>>(), ["x", "y"]);
/// # Ok::<(), serde_json::Error>(())
/// ```
impl<EF, TT> From<&StandardTokenResponse<EF, TT>> for TokenSet
where
    EF: ExtraTokenFields,
    TT: TokenType,
{
    fn from(response: &StandardTokenResponse<EF, TT>) -> Self {
        let tokens = Members::of(response).tokens(Timestamp::now());
        tokens.unwrap_or_else(|| Token::new(response.access_token().secret().as_str()).into())
    }
}

/// Takes over a token endpoint's error code, and nothing else of its answer: descriptions and
/// bodies may hold secrets.
///
/// ```
/// use oauth2::RequestTokenError;
/// use oauth2::basic::{BasicErrorResponse, BasicErrorResponseType, BasicRequestTokenError};
/// use tower_token_cache::{AcquireErrorKind, ProviderError};
///
/// let answer = BasicErrorResponse::new(BasicErrorResponseType::InvalidGrant, None, None);
/// let error: BasicRequestTokenError<std::io::Error> = RequestTokenError::ServerResponse(answer);
/// let error = ProviderError::from(error);
/// assert_eq!(error.kind(), AcquireErrorKind::ReauthenticationRequired);
/// ```
impl<RE, T> From<RequestTokenError<RE, StandardErrorResponse<T>>> for ProviderError
where
    RE: StdError + Send + Sync + 'static,
    T: ErrorResponseType + fmt::Display + 'static,
{
    fn from(error: RequestTokenError<RE, StandardErrorResponse<T>>) -> Self {
        match error {
            RequestTokenError::ServerResponse(answer) => {
                Self::refused(text(answer.error()).unwrap_or_default())
            }
            RequestTokenError::Request(source) => Self::unreachable(source),
            RequestTokenError::Parse(..) | RequestTokenError::Other(_) => {
                Self::unreachable(Unreadable)
            }
        }
    }
}

/// An answer that is none. What it was stays out of errors.
#[derive(Debug)]
struct Unreadable;

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer is not that of a token endpoint")
    }
}

impl StdError for Unreadable {}

/// What this error asks for, if it is one of `oauth2`'s, or a status.
pub(crate) fn meaning_of(error: &(dyn StdError + 'static)) -> Option<Meaning> {
    let known = refusal::<HttpClientError<reqwest::Error>>(error)
        .or_else(|| refusal::<reqwest::Error>(error))
        .or_else(|| refusal::<std::io::Error>(error))
        .or_else(|| Some(ProviderError::status(status(error)?)))
        .or_else(|| said(&error.to_string()));
    known.map(|known| known.meaning())
}

/// What an error says that is hidden by `anyhow` without context, or by a transparent error: it has the text of
/// the error in it, and not its type. Neither `oauth2` nor `reqwest` gives it a source that could be found.
fn said(text: &str) -> Option<ProviderError> {
    if let Some(answer) = text.strip_prefix("Server returned error response: ") {
        let code = answer.split([':', ' ']).next()?;
        return Some(ProviderError::refused(code));
    }
    let status = text.strip_prefix("HTTP status client error (");
    let status = status.or_else(|| text.strip_prefix("HTTP status server error ("))?;
    Some(ProviderError::status(status.get(..3)?.parse().ok()?))
}

/// The error code that `oauth2` got by an HTTP client with errors `RE`.
fn refusal<RE: StdError + 'static>(error: &(dyn StdError + 'static)) -> Option<ProviderError> {
    match error.downcast_ref::<BasicRequestTokenError<RE>>()? {
        RequestTokenError::ServerResponse(answer) => {
            Some(ProviderError::refused(answer.error().as_ref()))
        }
        _ => None,
    }
}

/// The status that `reqwest` was told to take as an error.
fn status(error: &(dyn StdError + 'static)) -> Option<http::StatusCode> {
    error.downcast_ref::<reqwest::Error>()?.status()
}

/// A unit-like value as the text that it is written as.
fn text(value: &impl Serialize) -> Option<Box<str>> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => Some(text.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acquire::AcquireErrorKind;
    use oauth2::basic::BasicTokenType;
    use serde::Deserialize;

    #[test]
    fn the_error_of_a_plain_oauth2_call_is_understood() {
        use oauth2::basic::{BasicErrorResponse, BasicErrorResponseType as Code};
        fn kind<RE: StdError + Send + Sync + 'static>(code: Code) -> AcquireErrorKind {
            let answer = BasicErrorResponse::new(code, None, None);
            let error = BasicRequestTokenError::<RE>::ServerResponse(answer);
            let error: crate::BoxError = error.into();
            crate::classify::classify(&*error, crate::Timestamp::now()).kind
        }
        type Http = HttpClientError<reqwest::Error>;
        let spent = AcquireErrorKind::ReauthenticationRequired;
        assert_eq!(kind::<Http>(Code::InvalidGrant), spent);
        assert_eq!(kind::<reqwest::Error>(Code::InvalidGrant), spent);
        assert_eq!(kind::<std::io::Error>(Code::InvalidGrant), spent);
        let login = Code::Extension("login_required".into());
        assert_eq!(kind::<Http>(login), spent);
        assert_eq!(kind::<Http>(Code::InvalidClient), AcquireErrorKind::Failed);
        let busy = Code::Extension("temporarily_unavailable".into());
        assert_eq!(kind::<Http>(busy), AcquireErrorKind::RetryLater);
    }

    #[test]
    fn a_converted_error_keeps_the_code_and_no_text_of_the_answer() {
        use oauth2::basic::BasicErrorResponse;
        type Plain = BasicRequestTokenError<std::io::Error>;
        let json = r#"{"error":"invalid_scope","error_description":"canary"}"#;
        let answer: BasicErrorResponse = serde_json::from_str(json).unwrap();
        let refused = ProviderError::from(Plain::ServerResponse(answer));
        assert_eq!(refused.code(), "invalid_scope");
        let other = ProviderError::from(Plain::Other("canary".into()));
        assert_eq!(other.kind(), AcquireErrorKind::Failed);
        assert!(!format!("{refused:?}{other:?}").contains("canary"));
    }

    #[test]
    fn a_code_that_is_none_is_not_shown() {
        use oauth2::basic::BasicErrorResponse;
        type Plain = BasicRequestTokenError<std::io::Error>;
        let json = r#"{"error":"canary\nand \u001b[31mmore"}"#;
        let answer: BasicErrorResponse = serde_json::from_str(json).unwrap();
        let error = ProviderError::from(Plain::ServerResponse(answer));
        assert!(!format!("{error} {error:?}").contains("canary"));
    }

    /// As `openidconnect` has it.
    #[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
    struct IdTokenFields {
        id_token: Option<String>,
        tenant: Option<String>,
    }
    impl ExtraTokenFields for IdTokenFields {}

    #[test]
    fn a_response_with_an_id_token_is_taken_over_whole() {
        let json = r#"{"access_token":"a","token_type":"bearer","expires_in":60,
            "refresh_token":"r","scope":"x y","id_token":"i.d.t","tenant":"t"}"#;
        let response: StandardTokenResponse<IdTokenFields, BasicTokenType> =
            serde_json::from_str(json).unwrap();
        let set = TokenSet::from(&response);
        assert_eq!(set.access().access_token(), "a");
        assert_eq!(set.access().token_type(), Some("bearer"));
        assert!(set.access().expires_at().is_some());
        assert_eq!(set.refresh_token().unwrap().expose(), "r");
        assert_eq!(set.id_token().unwrap().expose(), "i.d.t");
        assert_eq!(set.access().extra::<String>("tenant").as_deref(), Some("t"));
        assert_eq!(set.access().extra::<String>("id_token"), None);
    }
}
