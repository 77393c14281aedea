//! `Login`: what a login has given.

use super::Client;
use super::claims::{self, Claims, Expected, IdTokenError};
use super::login_error::LoginError;
use crate::error::Error;
use crate::key::{PartitionKey, TokenKey};
use crate::session::SignIn;
use crate::token::TokenSet;

/// A login that has succeeded.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Login {
    /// The answer of the token endpoint.
    pub tokens: TokenSet,
    /// Where the browser goes now: what [`begin`](super::AuthorizationCode::begin) was given. Of a
    /// [device](super::DeviceAuthorization), which has none, it is `/`.
    pub return_to: String,
    claims: Option<Claims>,
}

impl Login {
    /// The login that this answer ends, if its id token is as expected. A client that does not ask for `openid` gets none.
    pub(super) fn check(
        client: &Client,
        tokens: TokenSet,
        return_to: String,
        expected: &Expected<'_>,
    ) -> Result<Self, IdTokenError> {
        let asks_who = client.scope().split(' ').any(|scope| scope == "openid");
        let claims = match asks_who {
            false => None,
            true => {
                let id_token = tokens.id_token().ok_or(IdTokenError::Missing)?;
                Some(claims::check(id_token, expected)?)
            }
        };
        Ok(Self {
            tokens,
            return_to,
            claims,
        })
    }

    /// Who the user is.
    ///
    /// # Errors
    /// [`IdTokenError::Missing`] where the client does not ask for the scope `openid`.
    pub fn claims(&self) -> Result<&Claims, LoginError> {
        let claims = self.claims.as_ref();
        claims.ok_or(LoginError::IdToken(IdTokenError::Missing))
    }

    /// The session that begins: the tokens under this key, and links to the user and to the session at the provider (the
    /// claims `iss`, `sub` and `sid`), so that a [back-channel logout](crate::TokenCache::sign_out_provider_session) ends
    /// it. Without an id token it has no links. For [`TokenCache::sessions`](crate::TokenCache::sessions) and
    /// [`sign_out_user`](crate::TokenCache::sign_out_user), which go by the application's own name of the user, add
    /// [`SignIn::user`].
    pub fn sign_in<K>(&self, key: K) -> SignIn
    where
        K: TryInto<TokenKey>,
        Error: From<K::Error>,
    {
        let sign_in = SignIn::new(key, self.tokens.clone());
        let Some(claims) = &self.claims else {
            return sign_in;
        };
        let sign_in = sign_in.provider_user(claims.issuer(), claims.subject());
        // One that no link can have, no logout token names.
        let sid = claims
            .session_id()
            .filter(|sid| PartitionKey::epoch_of_provider_session(claims.issuer(), sid).is_ok());
        match sid {
            Some(sid) => sign_in.provider_session(claims.issuer(), sid),
            None => sign_in,
        }
    }
}
