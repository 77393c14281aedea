//! Revocation (RFC 7009).

use std::error::Error as StdError;
use std::fmt;

use super::Client;
use super::answer;
use super::provider::REVOCATION;
use super::request::Form;
use crate::acquire::{AcquireErrorKind, BoxError, ProviderError};
use crate::revoke::Revoke;
use crate::secret::Secret;

impl Client {
    /// Revokes a token at the provider (RFC 7009): the refresh token of a session that is over, and with it, at most
    /// providers, the access tokens that came of it. A token that the provider does not know, or no longer, is a success.
    ///
    /// The token is said to be a refresh token. An access token may be given as well: the provider has to look among
    /// those too (§2.1), though some cannot revoke them.
    ///
    /// # Errors
    /// [`RevocationError`].
    pub async fn revoke(&self, token: &Secret) -> Result<(), RevocationError> {
        let provider = self.provider();
        let endpoint = provider.and_then(|provider| provider.endpoint(REVOCATION));
        let endpoint = endpoint.ok_or(RevocationError::NoEndpoint)?;
        let mut form = Form::new();
        form.push("token", token.expose());
        form.push("token_type_hint", "refresh_token");
        let answer = self.post(endpoint, form).await;
        match answer.and_then(answer::members) {
            Ok(_) => Ok(()),
            // It is no token, or none any more: Google and Slack refuse with that, where §2.2 has a success.
            Err(error) if NO_TOKEN.contains(&error.code()) => Ok(()),
            Err(error) if error.code() == "unsupported_token_type" => {
                Err(RevocationError::UnsupportedTokenType)
            }
            Err(error) if may_pass(&error) => Err(RevocationError::Unavailable(error)),
            Err(error) => Err(RevocationError::Refused(error)),
        }
    }
}

/// What providers say of a refresh token that is not good, or not any more.
const NO_TOKEN: [&str; 7] = [
    "invalid_token",
    "invalid_grant",
    "expired_token",
    "token_expired",
    "token_revoked",
    "invalid_refresh_token",
    "bad_refresh_token",
];

/// For [`Builder::revoke_with`](crate::Builder::revoke_with).
impl Revoke for Client {
    async fn revoke(&self, refresh_token: &Secret) -> Result<(), BoxError> {
        Ok(Self::revoke(self, refresh_token).await?)
    }
}

/// Whether the same request may succeed later: the provider has asked for time, was not reached, or has failed itself.
fn may_pass(error: &ProviderError) -> bool {
    let is_failure = error.code().len() == 3 && error.code().starts_with('5');
    error.kind() == AcquireErrorKind::RetryLater || error.code() == "unreachable" || is_failure
}

/// Why a token could not be revoked.
#[derive(Debug)]
#[non_exhaustive]
pub enum RevocationError {
    /// The client is not [of a provider](super::Provider::client), or that has no revocation endpoint.
    NoEndpoint,
    /// The provider does not revoke tokens of this type (§2.2.1).
    UnsupportedTokenType,
    /// The provider was not reached, has failed, or asks for time (429, 503): try again, after its
    /// [`retry_after`](ProviderError::retry_after) if it has one. The token is to be taken for valid (§2.2.1).
    Unavailable(ProviderError),
    /// The provider has refused, and would again: the client is not what it expects, for example.
    Refused(ProviderError),
}

impl fmt::Display for RevocationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = match self {
            Self::NoEndpoint => return f.write_str("no revocation endpoint is known"),
            Self::UnsupportedTokenType => {
                return f.write_str("the provider does not revoke tokens of this type");
            }
            Self::Unavailable(error) | Self::Refused(error) => error,
        };
        write!(f, "the token was not revoked: {}", error.code())
    }
}

impl StdError for RevocationError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Unavailable(error) | Self::Refused(error) => Some(error),
            _ => None,
        }
    }
}
