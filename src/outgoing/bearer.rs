//! The token of an outgoing request.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap};
use http::{Extensions, HeaderValue, Uri};

use super::{Origins, TokenError};
use crate::acquire::Acquire;
use crate::key::{ClientName, TokenKey};
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
}

/// The same for one request.
#[derive(Clone)]
pub(super) struct Bearer {
    key: TokenKey,
    source: Arc<dyn Acquire>,
    tokens: Tokens,
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
        }))
    }
}

impl Bearer {
    /// A token; another one than `rejected`.
    pub(super) async fn token(self, rejected: Option<Token>) -> Result<Token, TokenError> {
        let acquisition = self.tokens.acquire(&self.key).map_err(TokenError::Cache)?;
        let acquisition = match &rejected {
            Some(rejected) => acquisition.rejected(rejected),
            None => acquisition,
        };
        let acquired = acquisition.with_source(self.source).await;
        Ok(acquired.map_err(TokenError::Cache)?.token)
    }
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
