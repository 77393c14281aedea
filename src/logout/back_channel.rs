//! `BackChannelLogout`: the handler, whatever the framework.

use std::fmt;
use std::sync::Arc;

use super::LogoutError;
use super::keys::Keys;
use super::token::{Compact, Expected, KNOWN_FOR, Logout, Subject};
use crate::cache::TokenCache;
use crate::error::{ConfigError, Error};
use crate::grant::{HttpClient, Provider};
use crate::key::PartitionKey;

/// Obeys the logout tokens of one issuer for one client; see the [module](super).
///
/// Cheap to clone; clones share the issuer's keys. An application with several providers mounts one for each.
#[derive(Clone)]
pub struct BackChannelLogout(Arc<Inner>);

struct Inner {
    cache: TokenCache,
    issuer: String,
    client_id: String,
    keys: Arc<Keys>,
}

impl BackChannelLogout {
    /// A handler for the tokens of this issuer that are meant for this client. `jwks_uri` is where the issuer has its
    /// keys: the member of that name of its discovery document.
    ///
    /// # Errors
    /// [`ConfigError`] for an empty `issuer` or `client_id`; for a `jwks_uri` that is no URL, or is neither `https` nor
    /// on this machine; and for `http_client` when TLS cannot be set up.
    pub fn new(
        cache: TokenCache,
        issuer: impl Into<String>,
        client_id: impl Into<String>,
        jwks_uri: impl AsRef<str>,
    ) -> Result<Self, ConfigError> {
        let http = HttpClient::over_hyper()?;
        Self::over(
            http,
            cache,
            issuer.into(),
            client_id.into(),
            jwks_uri.as_ref(),
        )
    }

    /// The same for a client of a provider that was [discovered](Provider::discover): its issuer, its keys, its HTTP
    /// client.
    ///
    /// # Errors
    /// [`ConfigError`] for an empty `client_id`, and where the provider has no `jwks_uri`.
    pub fn of(
        cache: TokenCache,
        provider: &Provider,
        client_id: impl Into<String>,
    ) -> Result<Self, ConfigError> {
        let jwks_uri = provider.jwks_uri();
        let jwks_uri = jwks_uri.ok_or(ConfigError::new("jwks_uri", "is missing"))?;
        let http = provider.http_client().clone();
        Self::over(
            http,
            cache,
            provider.issuer().into(),
            client_id.into(),
            jwks_uri,
        )
    }

    fn over(
        http: HttpClient,
        cache: TokenCache,
        issuer: String,
        client_id: String,
        jwks_uri: &str,
    ) -> Result<Self, ConfigError> {
        for (option, text) in [("issuer", &issuer), ("client_id", &client_id)] {
            if text.is_empty() {
                return Err(ConfigError::new(option, "must not be empty"));
            }
        }
        let keys = Arc::new(Keys::new(http, jwks_uri)?);
        Ok(Self(Arc::new(Inner {
            cache,
            issuer,
            client_id,
            keys,
        })))
    }

    /// Checks a logout token, and signs out what it names. On return the store knows it. A token that was obeyed
    /// before, here or on another instance, is no error, and ends nothing more.
    ///
    /// # Errors
    /// [`LogoutError`]; [its status](LogoutError::status) is that of the answer.
    pub async fn sign_out(&self, logout_token: &str) -> Result<(), LogoutError> {
        let ended = self.sign_out_once(logout_token).await;
        match &ended {
            Ok(()) => {}
            // Not louder: such a token can come from anywhere.
            Err(error @ LogoutError::Invalid(_)) => {
                tracing::debug!(error = error as &dyn std::error::Error, "logout refused");
            }
            Err(error) => {
                tracing::warn!(
                    error = error as &dyn std::error::Error,
                    "a logout of the provider could not be carried out"
                );
            }
        }
        ended
    }

    async fn sign_out_once(&self, logout_token: &str) -> Result<(), LogoutError> {
        let Inner {
            cache,
            issuer,
            client_id,
            keys,
        } = &*self.0;
        let compact = Compact::read(logout_token)?;
        keys.verify(&cache.0, &compact).await?;
        let expected = Expected { issuer, client_id };
        let Logout { subject, jti } =
            Logout::of(&compact.claims()?, &expected, cache.0.now().wall)?;
        let token = PartitionKey::logout_token(issuer, &jti).map_err(Error::from)?;
        let epoch = match subject {
            Subject::Session(sid) => PartitionKey::epoch_of_provider_session(issuer, &sid),
            Subject::User(sub) => PartitionKey::epoch_of_provider_user(issuer, &sub),
        };
        let epoch = epoch.map_err(Error::from)?;
        Ok(cache.obey(token, epoch, KNOWN_FOR).await?)
    }
}

impl fmt::Debug for BackChannelLogout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackChannelLogout")
            .field("issuer", &self.0.issuer)
            .field("client_id", &self.0.client_id)
            .finish_non_exhaustive()
    }
}
