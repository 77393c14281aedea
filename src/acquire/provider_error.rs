//! What a provider answered instead of tokens.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::cause::{Cause, Meaning};
use super::{AcquireErrorKind, BoxError, codes};

/// What a provider answered instead of tokens, in terms that the cache understands.
///
/// An acquire function that returns it, or an error of its own that has it as a
/// [source](StdError::source), is told apart: a refused grant is remembered until the user signs
/// in again, and a provider that asks for time gets it. It is found behind `anyhow`, `thiserror` and boxes alike.
/// With feature `oauth2` the errors of the `oauth2` crate are understood as they come from its `reqwest` client;
/// those of its other clients and of `openidconnect` convert into this type by `From`. An error of another
/// [cache](crate::Error), or of another token of this one, keeps its meaning. Anything else counts as a failure
/// that may pass.
///
/// `Debug` does not show the [source](StdError::source), which may quote an answer.
pub struct ProviderError {
    code: Box<str>,
    cause: Cause,
}

impl ProviderError {
    /// An error code of RFC 6749 §5.2, OpenID Connect Core §3.1.2.6 or the provider's own.
    ///
    /// `invalid_grant`, `interaction_required`, `login_required` and `consent_required` say that
    /// the user has to sign in again; `temporarily_unavailable` and `slow_down` ask for time. So do the codes that
    /// Entra ID (`AADSTS700082`), Facebook, GitHub, Google, HubSpot, Salesforce, Slack, WeChat and Zoho have for
    /// it.
    ///
    /// It is shown by `Display` and `Debug`, so it must not be a description. What is no code (1 to 64
    /// letters, digits, `_`, `-` and `.`, as all registered ones are) is replaced by
    /// `malformed_error_code`.
    pub fn refused(code: impl Into<Box<str>>) -> Self {
        let code = Some(code.into()).filter(|code| is_code(code));
        let code = code.unwrap_or_else(|| "malformed_error_code".into());
        let meaning = Meaning {
            is_refusal: true,
            asks_for_proof: codes::asks_for_proof(&code),
            ..Meaning::of(codes::kind_of(&code).unwrap_or(AcquireErrorKind::Failed))
        };
        Self::new(code, meaning)
    }

    /// A status that is no token and no error code: 429 and 503 ask for time.
    pub fn status(status: http::StatusCode) -> Self {
        let kind = match status {
            http::StatusCode::TOO_MANY_REQUESTS | http::StatusCode::SERVICE_UNAVAILABLE => {
                AcquireErrorKind::RetryLater
            }
            _ => AcquireErrorKind::Failed,
        };
        Self::new(status.as_str().into(), Meaning::of(kind))
    }

    /// The answer did not come, or could not be read.
    pub fn unreachable(source: impl Into<BoxError>) -> Self {
        let meaning = Meaning::of(AcquireErrorKind::Failed);
        let mut error = Self::new("unreachable".into(), meaning);
        error.cause.source = Some(source.into());
        error
    }

    /// The client has nothing to prove itself with, so that nothing was sent. That concerns no other instance.
    #[cfg(feature = "grants")]
    pub(crate) fn no_assertion(source: BoxError) -> Self {
        let mut error = Self::refused("no_client_assertion");
        error.cause.source = Some(source);
        error
    }

    /// The provider has said beside the code that the user has to prove more, or to consent.
    #[cfg(feature = "grants")]
    pub(crate) fn asking_for_proof(mut self) -> Self {
        self.cause.meaning.asks_for_proof = true;
        self
    }

    fn new(code: Box<str>, meaning: Meaning) -> Self {
        let cause = Cause::from(meaning);
        Self { code, cause }
    }

    /// The provider asked to be left alone for so long (`Retry-After`).
    pub fn with_retry_after(mut self, pause: Duration) -> Self {
        self.cause.meaning.retry_after = Some(pause);
        self
    }

    /// The claims that the next login of the user has to ask for, as Entra ID has them beside `interaction_required`: a JSON
    /// object of up to 2 KiB (OpenID Connect Core §5.5). Where the user has to sign in, the acquisition then fails with
    /// [`Error::StepUp`](crate::Error::StepUp), and so do those that are made while the refusal is remembered, on any
    /// instance. (Claims of more than 1 KiB are not remembered.)
    pub fn with_claims(mut self, claims: impl Into<Arc<str>>) -> Self {
        self.cause.claims = Some(claims.into());
        self
    }

    /// The claims that the next login of the user has to ask for.
    pub fn claims(&self) -> Option<&str> {
        self.cause.claims.as_deref()
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> AcquireErrorKind {
        self.cause.meaning.kind
    }

    /// The error code, or the status.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// For how long the provider asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        self.cause.meaning.retry_after
    }

    pub(crate) fn meaning(&self) -> Meaning {
        self.cause.meaning
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
            .field("kind", &self.kind())
            .field("code", &self.code)
            .field("retry_after", &self.retry_after())
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
        Some(&self.cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_source() {
        let error = ProviderError::unreachable("canary");
        let cause = error.source().expect("a cause");
        assert!(!format!("{error:?}{error:#?}{cause:?}{cause}").contains("canary"));
        assert!(cause.source().is_some());
    }

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
            assert!(error.meaning().is_refusal);
        }
    }
}
