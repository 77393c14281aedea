//! `Provider`: the endpoints of a provider, and what it can do.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use url::Url;

use super::endpoint::{endpoint, is_loopback};
use super::http_client::HttpClient;
use crate::error::ConfigError;

// The names of RFC 8414 §2 and of OpenID Connect Discovery, RP-Initiated Logout and RFC 8628.
pub(super) const AUTHORIZATION: &str = "authorization_endpoint";
pub(super) const TOKEN: &str = "token_endpoint";
pub(super) const REVOCATION: &str = "revocation_endpoint";
pub(super) const END_SESSION: &str = "end_session_endpoint";
pub(super) const DEVICE: &str = "device_authorization_endpoint";
pub(super) const USERINFO: &str = "userinfo_endpoint";
pub(super) const JWKS: &str = "jwks_uri";
/// All but [`TOKEN`].
pub(super) const OTHERS: [&str; 6] = [
    AUTHORIZATION,
    REVOCATION,
    END_SESSION,
    DEVICE,
    USERINFO,
    JWKS,
];

/// A provider (authorization server): its issuer, its endpoints, and what it says it can do.
///
/// [`discover`](Self::discover) asks it; [`new`](Self::new) is for a provider that publishes nothing.
/// [`client`](Self::client) makes the clients that ask it for tokens. Cheap to clone; clones and clients share their
/// connections.
///
/// ```
/// use tower_token_cache::grant::Provider;
///
/// let github = Provider::new("https://github.com", "https://github.com/login/oauth/access_token")?
///     .with_authorization_endpoint("https://github.com/login/oauth/authorize")?;
/// let client = github.client("my-app").secret("hush");
/// # let _ = client;
/// # Ok::<(), tower_token_cache::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Provider {
    pub(super) http: HttpClient,
    about: Arc<About>,
}

/// What is known of a provider.
#[derive(Clone)]
pub(super) struct About {
    pub(super) issuer: Box<str>,
    pub(super) token_endpoint: Url,
    /// By the names of [`OTHERS`].
    pub(super) endpoints: BTreeMap<&'static str, Url>,
    /// `authorization_response_iss_parameter_supported`
    pub(super) names_itself: bool,
    /// `code_challenge_methods_supported`, if the provider says so.
    pub(super) challenge_methods: Option<Vec<Box<str>>>,
    /// `backchannel_logout_session_supported`
    pub(super) names_sessions: bool,
}

impl Provider {
    /// A provider by its issuer and token endpoint, which no discovery vouches for. The issuer is compared with that of
    /// id tokens and callbacks, character by character.
    ///
    /// # Errors
    /// [`ConfigError`] for an issuer or endpoint that is no `https` URL (`http` on this machine is accepted), or
    /// has a user name, password or fragment; for an issuer with a query; and for `http_client` when TLS cannot
    /// be set up.
    pub fn new(
        issuer: impl Into<Box<str>>,
        token_endpoint: impl AsRef<str>,
    ) -> Result<Self, ConfigError> {
        let issuer = issuer.into();
        check_issuer(&issuer)?;
        let token_endpoint = checked(TOKEN, token_endpoint.as_ref())?;
        let about = About {
            issuer,
            token_endpoint,
            endpoints: BTreeMap::new(),
            names_itself: false,
            challenge_methods: None,
            names_sessions: false,
        };
        Ok(Self::over(HttpClient::over_hyper()?, about))
    }

    pub(super) fn over(http: HttpClient, about: About) -> Self {
        let about = Arc::new(about);
        Self { http, about }
    }

    /// Where browsers go to sign in (RFC 6749 §3.1): [`AuthorizationCode`](super::AuthorizationCode) needs it.
    ///
    /// # Errors
    /// As for the token endpoint of [`new`](Self::new); so for the other endpoints.
    pub fn with_authorization_endpoint(self, url: impl AsRef<str>) -> Result<Self, ConfigError> {
        self.with(AUTHORIZATION, url.as_ref())
    }

    /// Where tokens are revoked (RFC 7009): [`Client::revoke`](super::Client::revoke) needs it.
    ///
    /// # Errors
    /// As for [`with_authorization_endpoint`](Self::with_authorization_endpoint).
    pub fn with_revocation_endpoint(self, url: impl AsRef<str>) -> Result<Self, ConfigError> {
        self.with(REVOCATION, url.as_ref())
    }

    /// Where browsers go to sign out (OpenID Connect RP-Initiated Logout): [`Client::end_session`](super::Client::end_session)
    /// needs it.
    ///
    /// # Errors
    /// As for [`with_authorization_endpoint`](Self::with_authorization_endpoint).
    pub fn with_end_session_endpoint(self, url: impl AsRef<str>) -> Result<Self, ConfigError> {
        self.with(END_SESSION, url.as_ref())
    }

    /// Where devices begin (RFC 8628 §3.1): [`Client::authorize_device`](super::Client::authorize_device) needs it.
    ///
    /// # Errors
    /// As for [`with_authorization_endpoint`](Self::with_authorization_endpoint).
    pub fn with_device_authorization_endpoint(
        self,
        url: impl AsRef<str>,
    ) -> Result<Self, ConfigError> {
        self.with(DEVICE, url.as_ref())
    }

    /// Where the claims of a user are (OpenID Connect Core §5.3).
    ///
    /// # Errors
    /// As for [`with_authorization_endpoint`](Self::with_authorization_endpoint).
    pub fn with_userinfo_endpoint(self, url: impl AsRef<str>) -> Result<Self, ConfigError> {
        self.with(USERINFO, url.as_ref())
    }

    /// Where the provider's public keys are (RFC 7517).
    ///
    /// # Errors
    /// As for [`with_authorization_endpoint`](Self::with_authorization_endpoint).
    pub fn with_jwks_uri(self, url: impl AsRef<str>) -> Result<Self, ConfigError> {
        self.with(JWKS, url.as_ref())
    }

    /// The HTTP client that the [clients](Self::client) made from now on ask with, under the rules of [`HttpClient`].
    /// Defaults to that of the discovery.
    pub fn with_http_client(self, http: impl Into<HttpClient>) -> Self {
        let http = http.into();
        Self { http, ..self }
    }

    /// The provider's name, as it stands in id tokens (`iss`).
    pub fn issuer(&self) -> &str {
        &self.about.issuer
    }

    /// The token endpoint.
    pub fn token_endpoint(&self) -> &str {
        self.about.token_endpoint.as_str()
    }

    /// Where the claims of a user are (OpenID Connect Core §5.3), if the provider says so.
    pub fn userinfo_endpoint(&self) -> Option<&str> {
        self.endpoint(USERINFO).map(Url::as_str)
    }

    /// Where the provider's public keys are (RFC 7517), if that is known.
    pub fn jwks_uri(&self) -> Option<&str> {
        self.endpoint(JWKS).map(Url::as_str)
    }

    /// Whether logout tokens of the provider name a session (`sid`; OpenID Connect Back-Channel Logout §2.1).
    pub fn backchannel_logout_session_supported(&self) -> bool {
        self.about.names_sessions
    }

    #[cfg(feature = "logout")]
    pub(crate) fn http_client(&self) -> &HttpClient {
        &self.http
    }

    /// Whether each callback of the provider has its issuer as `iss` (RFC 9207).
    pub(super) fn names_itself(&self) -> bool {
        self.about.names_itself
    }

    /// Whether the provider says how it checks PKCE (RFC 7636), and does not say `S256`.
    pub(super) fn refuses_s256(&self) -> bool {
        let methods = self.about.challenge_methods.as_ref();
        methods.is_some_and(|methods| !methods.iter().any(|method| &**method == "S256"))
    }

    pub(super) fn token_url(&self) -> &Url {
        &self.about.token_endpoint
    }

    pub(super) fn endpoint(&self, name: &'static str) -> Option<&Url> {
        self.about.endpoints.get(name)
    }

    fn with(mut self, name: &'static str, url: &str) -> Result<Self, ConfigError> {
        let url = checked(name, url)?;
        Arc::make_mut(&mut self.about).endpoints.insert(name, url);
        Ok(self)
    }
}

fn checked(name: &'static str, url: &str) -> Result<Url, ConfigError> {
    endpoint(url).map_err(|reason| ConfigError::new(name, reason))
}

/// An issuer as a URL; it has no query and no fragment (RFC 8414 §2).
pub(super) fn check_issuer(issuer: &str) -> Result<Url, ConfigError> {
    let invalid = |reason| ConfigError::new("issuer", reason);
    let url = endpoint(issuer).map_err(invalid)?;
    match url.query() {
        None => Ok(url),
        Some(_) => Err(invalid("must have no query")),
    }
}

/// An endpoint in the document of this issuer.
pub(super) fn check_endpoint(issuer: &Url, text: &str) -> Result<Url, &'static str> {
    let url = endpoint(text)?;
    // The document of another machine must not choose what this one listens to.
    match is_loopback(&url) && !is_loopback(issuer) {
        true => Err("must not be on this machine"),
        false => Ok(url),
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider")
            .field("issuer", &self.about.issuer)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_of_another_machine_names_no_endpoint_on_this_one() {
        let elsewhere = Url::parse("https://login.example").unwrap();
        let here = Url::parse("http://localhost:9000/realm").unwrap();
        for local in [
            "http://127.0.0.1/token",
            "https://localhost/token",
            "http://[::1]/token",
        ] {
            assert!(check_endpoint(&elsewhere, local).is_err(), "{local}");
            assert!(check_endpoint(&here, local).is_ok(), "{local}");
        }
        for issuer in [&elsewhere, &here] {
            assert!(check_endpoint(issuer, "https://oauth.example/token").is_ok());
            assert!(check_endpoint(issuer, "http://oauth.example/token").is_err());
        }
    }
}
