//! `Client`: which application asks which provider.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::answer;
use super::assertion::ClientAssertion;
use super::credentials::{AuthStyle, Credentials, Proof};
use super::endpoint::is_loopback;
use super::http_client::{Answer, HttpClient, within};
use super::provider::Provider;
use super::request::{self, Form};
use crate::acquire::{AcquireFuture, Prior, ProviderError, UNASKED};
use crate::error::ConfigError;
use crate::secret::Secret;
use crate::time::setting;
use crate::token::TokenSet;

/// How long asking the provider may take by default: far more than a healthy one needs, and less
/// than the 30 s after which browsers and proxies give up.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer that is read, in bytes: a hundred times what providers send.
const MAX_ANSWER: usize = 1 << 20;

/// An application as its provider knows it, and what it asks for; see the [module](super).
///
/// Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Client(Arc<Settings>);

#[derive(Clone)]
struct Settings {
    name: Option<Box<str>>,
    client_id: Box<str>,
    credentials: Credentials,
    token_url: Url,
    provider: Option<Provider>,
    http: HttpClient,
    timeout: Duration,
    default_lifetime: Option<Duration>,
    scopes: Vec<Box<str>>,
    resource: Option<Box<str>>,
    resource_of_key: bool,
    params: Vec<(Box<str>, Secret)>,
}

impl Client {
    /// A client without a secret, under the name that the provider knows it by.
    ///
    /// # Errors
    /// [`ConfigError`] for a `token_url` that is no URL, has a user name or a fragment, or is
    /// neither `https` nor on this machine; and for `http_client` when TLS cannot be set up.
    pub fn new(
        token_url: impl Into<String>,
        client_id: impl Into<String>,
    ) -> Result<Self, ConfigError> {
        let token_url = parse(token_url.into())?;
        if token_url.scheme() != "https" && !is_loopback(&token_url) {
            return Err(ConfigError::new("token_url", "must be https"));
        }
        Self::over(token_url, client_id.into())
    }

    /// The same for a token endpoint without TLS on another machine: where the network itself
    /// encrypts, and in test set-ups. Whoever listens there learns every secret.
    ///
    /// # Errors
    /// As for [`new`](Self::new), but for the `https`.
    pub fn insecure(
        token_url: impl Into<String>,
        client_id: impl Into<String>,
    ) -> Result<Self, ConfigError> {
        Self::over(parse(token_url.into())?, client_id.into())
    }

    fn over(token_url: Url, client_id: String) -> Result<Self, ConfigError> {
        let http = HttpClient::over_hyper()?;
        Ok(Self::with(token_url, client_id, http, None))
    }

    fn with(
        token_url: Url,
        client_id: String,
        http: HttpClient,
        provider: Option<Provider>,
    ) -> Self {
        Self(Arc::new(Settings {
            name: None,
            client_id: client_id.into(),
            credentials: Credentials::default(),
            token_url,
            provider,
            http,
            timeout: TIMEOUT,
            default_lifetime: None,
            scopes: Vec::new(),
            resource: None,
            resource_of_key: false,
            params: Vec::new(),
        }))
    }

    /// The name of this client in the application, as [`Tokens::client`](crate::Tokens::client) has it. A
    /// source of a client with a name asks for no other client's tokens: their refresh token must not go to
    /// this provider. Defaults to none, and no check.
    pub fn named(self, name: impl Into<Box<str>>) -> Self {
        self.set(|settings| settings.name = Some(name.into()))
    }

    /// The client's secret, in place of an [assertion](Self::assertion). Defaults to neither: a public client.
    pub fn secret(self, secret: impl Into<Secret>) -> Self {
        let secret = secret.into();
        self.set(|settings| settings.credentials.proof = Proof::Secret(secret))
    }

    /// Proves who the client is by this, in place of a [secret](Self::secret): a JWT that it [signs](super::PrivateKeyJwt),
    /// one in a [file](super::AssertionFile), or one that a closure gets.
    pub fn assertion(self, assertion: impl ClientAssertion) -> Self {
        let assertion = Arc::new(assertion);
        self.set(|settings| settings.credentials.proof = Proof::Assertion(assertion))
    }

    /// Where the client's name and secret go. Defaults to [`AuthStyle::Basic`]. Assertions always go into the form.
    pub fn auth_style(self, style: AuthStyle) -> Self {
        self.set(|settings| settings.credentials.style = style)
    }

    /// How long an answer may take, from connecting to its last byte. Defaults to 10 s: far more
    /// than a healthy provider needs, and less than browsers and proxies wait.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.set(|settings| settings.timeout = setting(timeout))
    }

    /// How long a token lives if the answer does not say (Salesforce, Slack without rotation). Defaults to none: until it
    /// is [rejected](crate::Acquisition::rejected), removed or signed out, for some providers mean that (GitHub's OAuth
    /// apps), and a token that cannot be refreshed must not be dropped.
    pub fn default_lifetime(self, lifetime: Duration) -> Self {
        self.set(|settings| settings.default_lifetime = Some(setting(lifetime)))
    }

    /// The scopes to ask for when the token's key names none. Defaults to none: the provider
    /// decides.
    pub fn scopes<S: Into<Box<str>>>(self, scopes: impl IntoIterator<Item = S>) -> Self {
        let scopes = scopes.into_iter().map(Into::into).collect();
        self.set(|settings| settings.scopes = scopes)
    }

    /// The `resource` to ask for (RFC 8707). Defaults to none.
    pub fn resource(self, resource: impl Into<Box<str>>) -> Self {
        self.set(|settings| settings.resource = Some(resource.into()))
    }

    /// Asks for the [resource](crate::TokenKey::resource) of the token's key, when that is a URI,
    /// rather than for the client's. Off by default: many providers refuse `resource`.
    pub fn resource_of_key(self) -> Self {
        self.set(|settings| settings.resource_of_key = true)
    }

    /// Sends another parameter with each request, such as `audience`. One that the grant itself
    /// sends must not be repeated (RFC 6749 §3.2).
    pub fn param(self, name: impl Into<Box<str>>, value: impl Into<Secret>) -> Self {
        self.set(|settings| settings.params.push((name.into(), value.into())))
    }

    /// The HTTP client to ask with: for a proxy, certificates of your own, mutual TLS, or tower's layers. It must not
    /// follow redirects: they can carry credentials to another host. Defaults to one over hyper and rustls that follows
    /// none, uses no proxy and trusts the roots of Mozilla.
    pub fn http_client(self, http: impl Into<HttpClient>) -> Self {
        let http = http.into();
        self.set(|settings| settings.http = http)
    }

    /// Whether the tokens are this client's, if it has a name.
    pub(super) fn check(&self, prior: &Prior) -> Result<(), WrongClient> {
        let name = self.0.name.as_deref();
        if name.is_none() || name == prior.client() {
            return Ok(());
        }
        tracing::warn!(
            source = name,
            tokens = prior.client(),
            "the tokens belong to another client than the source"
        );
        Err(WrongClient)
    }

    /// Asks for a token by this grant, with these parameters of its own.
    pub(super) fn ask(&self, prior: &Prior, grant: &str, own: &[(&str, &str)]) -> AcquireFuture {
        let settings = &*self.0;
        if let Err(wrong) = self.check(prior) {
            return Box::pin(async { Err(wrong.into()) });
        }
        let mut form = Form::new();
        form.push("grant_type", grant);
        let mut scopes: Vec<&str> = prior.key().scopes().collect();
        if scopes.is_empty() {
            scopes.extend(settings.scopes.iter().map(|scope| &**scope));
        }
        if !scopes.is_empty() {
            form.push("scope", &scopes.join(" "));
        }
        let claims = prior.claims().map(|claims| ("claims", claims));
        let resource = self.resource_for(prior).map(|uri| ("resource", uri));
        let fixed = settings.params.iter();
        let fixed = fixed.map(|(name, value)| (&**name, value.expose()));
        let own = own.iter().copied();
        for (name, value) in own.chain(claims).chain(resource).chain(fixed) {
            form.push(name, value);
        }
        let client = self.clone();
        Box::pin(async move { Ok(client.tokens(form).await?) })
    }

    /// Asks for a token by a grant that belongs to no session yet, with these parameters of its own.
    pub(super) async fn redeem(
        &self,
        grant: &str,
        own: &[(&str, &str)],
    ) -> Result<TokenSet, ProviderError> {
        let mut form = Form::new();
        form.push("grant_type", grant);
        let fixed = self.0.params.iter();
        let fixed = fixed.map(|(name, value)| (&**name, value.expose()));
        let resource = self.resource_of_client().map(|uri| ("resource", uri));
        for (name, value) in own.iter().copied().chain(resource).chain(fixed) {
            form.push(name, value);
        }
        self.tokens(form).await
    }

    /// What the token endpoint answers to this form.
    async fn tokens(&self, form: Form) -> Result<TokenSet, ProviderError> {
        let mut set = answer::tokens(self.post(&self.0.token_url, form).await?)?;
        if let (None, Some(lifetime)) = (set.access.expires_at(), self.0.default_lifetime) {
            set.access = set.access.with_expires_in(lifetime);
        }
        Ok(set)
    }

    /// Who the provider is, if that is known.
    pub(super) fn provider(&self) -> Option<&Provider> {
        self.0.provider.as_ref()
    }

    pub(super) fn id(&self) -> &str {
        &self.0.client_id
    }

    /// The scopes that a key without scopes asks for, separated by spaces.
    pub(super) fn scope(&self) -> String {
        self.0.scopes.join(" ")
    }

    pub(super) fn resource_of_client(&self) -> Option<&str> {
        self.0.resource.as_deref()
    }

    /// Posts this form to an endpoint of the provider as this client, and reads the whole answer, whatever its status:
    /// at most [`MAX_ANSWER`], within the client's timeout.
    ///
    /// # Errors
    /// [`ProviderError::unreachable`] where there is no answer, none in time, or a larger one; and
    /// `no_client_assertion` where there is no assertion to send.
    pub(super) async fn post(&self, endpoint: &Url, form: Form) -> Result<Answer, ProviderError> {
        let settings = &*self.0;
        within(settings.timeout, async {
            let credentials = &settings.credentials;
            let request = credentials.post(&settings.client_id, endpoint, form);
            settings.http.send(request.await?, MAX_ANSWER).await
        })
        .await
    }

    fn resource_for<'a>(&'a self, prior: &'a Prior) -> Option<&'a str> {
        let of_key = self.0.resource_of_key.then(|| prior.key().resource());
        // Names are no resources; RFC 8707 §2 wants an absolute URI.
        of_key
            .filter(|resource| Url::parse(resource).is_ok())
            .or(self.0.resource.as_deref())
    }

    fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

impl Provider {
    /// A client without a secret, under the name that the provider knows it by.
    pub fn client(&self, client_id: impl Into<String>) -> Client {
        let (url, http) = (self.token_url().clone(), self.http.clone());
        Client::with(url, client_id.into(), http, Some(self.clone()))
    }
}

/// The tokens are not those of the client that the source asks as.
#[derive(Debug)]
pub(super) struct WrongClient;

impl fmt::Display for WrongClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the tokens belong to another client than the source: see `Tokens::client`")
    }
}

impl std::error::Error for WrongClient {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&UNASKED)
    }
}

fn parse(token_url: String) -> Result<Url, ConfigError> {
    let wrong = |reason| ConfigError::new("token_url", reason);
    // The parser's error is left out: it says nothing that the reason does not.
    let url = Url::parse(&token_url).map_err(|_| wrong("must be an absolute URL"))?;
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(wrong("must have no user name, password or fragment"));
    }
    if !matches!(url.scheme(), "https" | "http") {
        return Err(wrong("must be https"));
    }
    request::uri(&url).map_err(|_| wrong("has characters that must be percent-encoded"))?;
    Ok(url)
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &*self.0;
        f.debug_struct("Client")
            .field("client_id", &settings.client_id)
            .field("timeout", &settings.timeout)
            .field("scopes", &settings.scopes)
            .finish_non_exhaustive()
    }
}
