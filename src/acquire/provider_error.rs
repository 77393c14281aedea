//! What a provider answered instead of tokens.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use super::{AcquireErrorKind, BoxError};

/// What a provider answered instead of tokens, in terms that the cache understands.
///
/// An acquire function that returns it, or an error of its own that has it as a
/// [source](StdError::source), is told apart: a refused grant is remembered until the user signs
/// in again, and a provider that asks for time gets it. With feature `oauth2` the errors of the
/// `oauth2` crate are understood as they come from its `reqwest` client; those of its other clients
/// and of `openidconnect` convert into this type by `From`. Anything else counts as a failure that
/// may pass.
///
/// `Debug` does not show the [source](StdError::source), which may quote an answer.
pub struct ProviderError {
    kind: AcquireErrorKind,
    code: Box<str>,
    retry_after: Option<Duration>,
    source: Option<BoxError>,
}

impl ProviderError {
    /// An error code of RFC 6749 §5.2, OpenID Connect Core §3.1.2.6 or the provider's own.
    /// `invalid_grant`, `interaction_required`, `login_required` and `consent_required` say that
    /// the user has to sign in again; `temporarily_unavailable` and `slow_down` ask for time.
    ///
    /// It is shown by `Display` and `Debug`, so it must not be a description. What is no code (1 to 64
    /// letters, digits, `_`, `-` and `.`, as all registered ones are) is replaced by
    /// `malformed_error_code`.
    pub fn refused(code: impl Into<Box<str>>) -> Self {
        let code = Some(code.into()).filter(|code| is_code(code));
        let code = code.unwrap_or_else(|| "malformed_error_code".into());
        let kind = match &*code {
            "invalid_grant" | "interaction_required" | "login_required" | "consent_required" => {
                AcquireErrorKind::ReauthenticationRequired
            }
            "temporarily_unavailable" | "slow_down" => AcquireErrorKind::RetryLater,
            _ => AcquireErrorKind::Failed,
        };
        Self {
            kind,
            code,
            retry_after: None,
            source: None,
        }
    }

    /// A status that is no token and no error code: 429 and 503 ask for time.
    pub fn status(status: http::StatusCode) -> Self {
        let kind = match status {
            http::StatusCode::TOO_MANY_REQUESTS | http::StatusCode::SERVICE_UNAVAILABLE => {
                AcquireErrorKind::RetryLater
            }
            _ => AcquireErrorKind::Failed,
        };
        Self {
            kind,
            code: status.as_str().into(),
            retry_after: None,
            source: None,
        }
    }

    /// The answer did not come, or could not be read.
    pub fn unreachable(source: impl Into<BoxError>) -> Self {
        Self {
            kind: AcquireErrorKind::Failed,
            code: "unreachable".into(),
            retry_after: None,
            source: Some(source.into()),
        }
    }

    /// The provider asked to be left alone for so long (`Retry-After`).
    pub fn with_retry_after(mut self, pause: Duration) -> Self {
        self.retry_after = Some(pause);
        self
    }

    /// Whether the provider has answered with an error code that says nothing about time.
    pub(crate) fn is_refusal(&self) -> bool {
        self.source.is_none() && self.code.parse::<u16>().is_err()
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> AcquireErrorKind {
        self.kind
    }

    /// The error code, or the status.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// For how long the provider asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The one in this chain of sources, if any.
    pub(crate) fn find<'a>(mut error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        loop {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            error = error.source()?;
        }
    }
}

/// The longest error code that is believed to be one.
const MAX_CODE: usize = 64;

/// Whether a text of a provider's answer can be shown. RFC 6749 allows more characters, spaces and
/// all punctuation; nobody uses them, and a text with them is more likely something else.
pub(crate) fn is_code(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    (1..=MAX_CODE).contains(&text.len()) && text.bytes().all(allowed)
}

impl fmt::Debug for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderError")
            .field("kind", &self.kind)
            .field("code", &self.code)
            .field("retry_after", &self.retry_after)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the provider gave no token: {}", self.code)
    }
}

impl StdError for ProviderError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_error_code_is_not_repeated() {
        for code in ["invalid_grant", "AADSTS50076", "a.b-c", &"x".repeat(64)] {
            assert_eq!(ProviderError::refused(code).code(), code);
        }
        let long = "x".repeat(65);
        for odd in ["", "a b", "a\nb", "\u{1b}[31mred", "é", "\"", &long] {
            let error = ProviderError::refused(odd);
            assert_eq!(error.code(), "malformed_error_code", "{odd:?}");
            assert!(!error.to_string().contains(char::is_control));
            assert_eq!(error.kind(), AcquireErrorKind::Failed);
            assert!(error.is_refusal());
        }
    }
}
