//! `EndSession`: signing out at the provider, too.

use std::fmt;

use url::Url;

use super::Client;
use super::provider::END_SESSION;
use crate::error::ConfigError;
use crate::secret::Secret;

/// A URL at the provider that ends the user's session there (OpenID Connect RP-Initiated Logout 1.0 §2). The browser is
/// redirected to it after [`Tokens::sign_out`](crate::Tokens::sign_out).
///
/// ```
/// # use tower_token_cache::{Error, Tokens, grant::Client};
/// async fn sign_out(tokens: Tokens, client: Client) -> Result<String, Box<dyn std::error::Error>> {
///     // Before the sign-out: after it there is none.
///     let id_token = tokens.id_token().await?.hit();
///     let _ = tokens.sign_out().await?;
///     let end = client.end_session()?.post_logout_redirect_uri("https://app.example/");
///     Ok(match id_token {
///         Some(id_token) => end.id_token_hint(&id_token).into_url(),
///         None => end.into_url(),
///     })
/// }
/// ```
///
/// `Debug` does not show the URL: an id token is in it.
#[derive(Clone)]
#[must_use = "the browser has to be sent there"]
pub struct EndSession(Url);

impl Client {
    /// Begins a URL that ends the user's session at the provider; the client's name is in it.
    ///
    /// # Errors
    /// [`ConfigError`] where the client is not [of a provider](super::Provider::client) with an end-session endpoint.
    pub fn end_session(&self) -> Result<EndSession, ConfigError> {
        let provider = self.provider();
        let endpoint = provider.and_then(|provider| provider.endpoint(END_SESSION));
        let reason = "must be of a provider with an end-session endpoint";
        let endpoint = endpoint.ok_or(ConfigError::new("client", reason))?;
        Ok(EndSession(endpoint.clone()).with("client_id", self.id()))
    }
}

impl EndSession {
    /// The user's id token, so that the provider does not ask whether to sign out. One that has expired will do.
    pub fn id_token_hint(self, id_token: &Secret) -> Self {
        self.with("id_token_hint", id_token.expose())
    }

    /// Where the browser goes after that. The provider has to know it.
    pub fn post_logout_redirect_uri(self, uri: impl AsRef<str>) -> Self {
        self.with("post_logout_redirect_uri", uri.as_ref())
    }

    /// What the browser brings back from there as `state`.
    pub fn state(self, state: impl AsRef<str>) -> Self {
        self.with("state", state.as_ref())
    }

    /// The URL. Do not log it: it may have an id token in it.
    pub fn into_url(self) -> String {
        self.0.into()
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.0.query_pairs_mut().append_pair(name, value);
        self
    }
}

impl fmt::Debug for EndSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EndSession([redacted])")
    }
}
