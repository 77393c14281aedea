//! The token of an outgoing request.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap};
use http::{Extensions, HeaderValue, StatusCode, Uri};

use super::demand::Demanded;
use super::{Origins, TokenError};
use crate::acquire::{Acquire, AcquireErrorKind};
use crate::challenge::{Challenge, ChallengeKind};
use crate::error::Error;
use crate::key::{ClientName, TokenKey};
use crate::lookup::Lookup;
use crate::token::Token;
use crate::tokens::Tokens;
use crate::wipe::Wiped;

/// Which token requests get, and where it comes from.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) key: TokenKey,
    pub(super) origins: Origins,
    pub(super) source: Arc<dyn Acquire>,
    pub(super) tokens: Option<Tokens>,
    pub(super) client: Option<ClientName>,
    /// The scopes that a service is given without the user.
    pub(super) on_demand: Arc<[Box<str>]>,
}

/// The same for one request.
#[derive(Clone)]
pub(super) struct Bearer {
    key: TokenKey,
    source: Arc<dyn Acquire>,
    tokens: Tokens,
    on_demand: Arc<[Box<str>]>,
}

/// What a service has against the token that it was sent.
#[derive(Clone)]
pub(super) enum Objection {
    /// It is not good: another one is needed.
    Rejected,
    /// It is not enough.
    Challenged(Challenge),
}

impl Objection {
    /// What this head of a response says; `None` where the service has taken the token.
    pub(super) fn of(status: StatusCode, headers: &HeaderMap) -> Option<Self> {
        if !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return None;
        }
        match Challenge::from_headers(headers) {
            Some(challenge) => Some(Self::Challenged(challenge)),
            None => (status == StatusCode::UNAUTHORIZED).then_some(Self::Rejected),
        }
    }
}

impl Settings {
    /// What a request to this place with these headers and extensions needs: nothing when it has a
    /// header of its own, or when the token must not go there.
    pub(super) fn bearer(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<Option<Bearer>, TokenError> {
        if headers.contains_key(AUTHORIZATION) {
            return Ok(None);
        }
        if !self.origins.allow(uri) {
            tracing::debug!("a request to an origin that is not listed is sent without a token");
            return Ok(None);
        }
        let tokens = self.tokens.as_ref().or_else(|| extensions.get());
        let tokens = tokens.ok_or(TokenError::NoTokens)?.clone();
        let source = extensions.get().unwrap_or(&self.source);
        Ok(Some(Bearer {
            key: self.key.clone(),
            source: source.clone(),
            tokens: match &self.client {
                Some(client) => tokens.of_client(client.clone()),
                None => tokens,
            },
            on_demand: self.on_demand.clone(),
        }))
    }
}

impl Bearer {
    /// A token.
    pub(super) async fn token(self) -> Result<Token, TokenError> {
        let acquisition = self.tokens.acquire(&self.key).map_err(TokenError::Cache)?;
        let acquired = acquisition.with_source(self.source).await;
        Ok(acquired.map_err(TokenError::Cache)?.token)
    }

    /// A token in the place of one that the service has objected to.
    pub(super) async fn another(
        self,
        old: Token,
        objection: Objection,
    ) -> Result<Token, TokenError> {
        let token = match objection {
            Objection::Rejected => self.unlike(&old).await,
            Objection::Challenged(challenge) => self.demanded(&old, challenge).await,
        };
        token.map_err(TokenError::Cache)
    }

    async fn unlike(self, old: &Token) -> Result<Token, Error> {
        let acquisition = self.tokens.acquire(&self.key)?.rejected(old);
        Ok(acquisition.with_source(self.source).await?.token)
    }

    /// What can be got without the user, who may have signed in again meanwhile.
    async fn demanded(self, old: &Token, challenge: Challenge) -> Result<Token, Error> {
        let acquisition = self.tokens.acquire(&self.key)?.rejected(old).demanded();
        let (acquisition, source) = match challenge.kind() {
            ChallengeKind::Authentication => {
                return match self.tokens.get(&self.key).await? {
                    Lookup::Hit(token) if token.access_token() != old.access_token() => Ok(token),
                    _ => Err(Error::StepUp(challenge)),
                };
            }
            ChallengeKind::Claims => match challenge.shared_claims() {
                Some(claims) => (acquisition.claims(claims), self.source),
                None => return Err(Error::StepUp(challenge)),
            },
            ChallengeKind::Scope => {
                let is_listed = are_listed(&challenge, &self.on_demand);
                let scoped = acquisition.scopes(challenge.scopes());
                let (true, Ok(scoped)) = (is_listed, scoped) else {
                    return Err(Error::StepUp(challenge));
                };
                let source = Arc::new(Demanded(self.source));
                (scoped, source as Arc<dyn Acquire>)
            }
        };
        match acquisition.with_source(source).await {
            Ok(acquired) => Ok(acquired.token),
            Err(Error::Acquire(error))
                if error.kind() == AcquireErrorKind::ReauthenticationRequired =>
            {
                Err(Error::StepUp(challenge))
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether a service may have all the scopes that it demands.
pub(super) fn are_listed(challenge: &Challenge, on_demand: &[Box<str>]) -> bool {
    let is_listed = |scope: &str| on_demand.iter().any(|own| **own == *scope);
    challenge.scopes().all(is_listed)
}

/// The value of the `Authorization` header (RFC 6750 §2.1). It prints as `Sensitive`, and its
/// buffer is wiped.
pub(super) fn header(token: &Token) -> Result<HeaderValue, TokenError> {
    const SCHEME: &str = "Bearer ";
    if !token
        .token_type()
        .is_none_or(|name| name.eq_ignore_ascii_case("bearer"))
    {
        return Err(TokenError::NotBearer);
    }
    let text = token.access_token();
    let mut value = Wiped::new(Vec::with_capacity(SCHEME.len() + text.len()));
    value.extend_from_slice(SCHEME.as_bytes());
    value.extend_from_slice(text.as_bytes());
    let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(value))
        .map_err(|_| TokenError::NotBearer)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bearer_tokens_become_headers() {
        let value = header(&Token::new("hidden").with_token_type("bearer")).unwrap();
        assert_eq!(value, "Bearer hidden");
        assert!(!format!("{value:?}").contains("hidden"));
        assert!(header(&Token::new("a")).is_ok());
        assert!(header(&Token::new("a").with_token_type("DPoP")).is_err());
        assert!(header(&Token::new("a\r\nx: y")).is_err());
    }
}
