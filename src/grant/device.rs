//! `DeviceAuthorization`: signing in on a device without a browser.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Client;
use super::answer;
use super::claims::{Expected, IdTokenError};
use super::login::Login;
use super::provider::{DEVICE, Provider};
use super::request::Form;
use crate::acquire::{AcquireErrorKind, ProviderError};
use crate::answer::Members;
use crate::secret::Secret;
use crate::time::Timestamp;
use crate::token::TokenSet;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// The pause between two questions where the provider names none (RFC 8628 §3.2), and what it grows by (§3.5).
const INTERVAL: Duration = Duration::from_secs(5);
/// The pauses that a provider can ask for. A shorter one would be a busy loop, a longer one is a mistake.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
/// How long the codes are good for at most: providers give minutes.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// A sign-in that goes on in a browser elsewhere (device authorization grant, RFC 8628).
///
/// Show the user [`user_code`](Self::user_code) and [`verification_uri`](Self::verification_uri), and
/// [`poll`](Self::poll).
///
/// ```no_run
/// # use tower_token_cache::grant::{Client, DeviceError};
/// async fn sign_in(client: &Client) -> Result<String, DeviceError> {
///     let mut device = client.authorize_device().await?;
///     println!("open {} and type {}", device.verification_uri(), device.user_code());
///     let login = device.poll().await?;
///     // `login.tokens`, or `login.sign_in("graph")` for a session.
///     Ok(login.claims().map(|claims| claims.subject().to_owned()).unwrap_or_default())
/// }
/// ```
///
/// As in [a login by a browser](super::AuthorizationCode), the provider tells who the user is where the client asks for the scope
/// `openid`, and its id token is checked. It has no nonce: the device code, which nothing else has seen, is what ties the
/// answer to this sign-in.
pub struct DeviceAuthorization {
    client: Client,
    provider: Provider,
    device_code: Secret,
    user_code: Box<str>,
    verification_uri: Box<str>,
    verification_uri_complete: Option<Box<str>>,
    lifetime: Duration,
    interval: Duration,
    next: Instant,
    end: Instant,
    /// The last question was asked.
    is_over: bool,
}

impl Client {
    /// Asks for a code that a user types elsewhere, for the client's scopes.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub async fn authorize_device(&self) -> Result<DeviceAuthorization, DeviceError> {
        let provider = self.provider().ok_or(DeviceError::NoEndpoint)?;
        let endpoint = provider.endpoint(DEVICE);
        let endpoint = endpoint.ok_or(DeviceError::NoEndpoint)?;
        let mut form = Form::new();
        let scope = self.scope();
        if !scope.is_empty() {
            form.push("scope", &scope);
        }
        if let Some(resource) = self.resource_of_client() {
            form.push("resource", resource);
        }
        let members = answer::members(self.post(endpoint, form).await?)?;
        let unusable = || DeviceError::Provider(ProviderError::unreachable(Unusable));
        DeviceAuthorization::read(self, provider, &members).ok_or_else(unusable)
    }
}

impl DeviceAuthorization {
    fn read(client: &Client, provider: &Provider, members: &Members) -> Option<Self> {
        let text = |name| Some(members.text(name)?.expose().into());
        let lifetime = members.seconds("expires_in")?.min(MAX_LIFETIME);
        let interval = members.seconds("interval").unwrap_or(INTERVAL);
        let interval = interval.clamp(SHORTEST, LONGEST);
        let now = Instant::now();
        Some(Self {
            client: client.clone(),
            provider: provider.clone(),
            device_code: members.text("device_code")?,
            user_code: text("user_code")?,
            // Google has named it so since before the RFC.
            verification_uri: text("verification_uri").or_else(|| text("verification_url"))?,
            verification_uri_complete: text("verification_uri_complete"),
            lifetime,
            interval,
            next: now + interval,
            end: now + lifetime,
            is_over: false,
        })
    }

    /// The code that the user types.
    pub fn user_code(&self) -> &str {
        &self.user_code
    }

    /// Where the user types it.
    pub fn verification_uri(&self) -> &str {
        &self.verification_uri
    }

    /// The same with the code in it, for a QR code, if the provider has it.
    pub fn verification_uri_complete(&self) -> Option<&str> {
        self.verification_uri_complete.as_deref()
    }

    /// How long the code is good for, from when it was given; at most a day.
    pub fn expires_in(&self) -> Duration {
        self.lifetime
    }

    /// The pause between two questions: what the provider has asked for until now, from a second to five minutes. Defaults
    /// to 5 s, as RFC 8628 §3.2 has it.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Asks the provider, with pauses, until the user has decided or the code has expired. An answer `slow_down`, as one
    /// with status 429 or 503, makes the pause 5 s longer (§3.5), and one that does not come doubles it.
    ///
    /// Where this future is dropped, another call goes on after the same pause; tokens that were on their way are lost. Once
    /// the code has expired the provider is not asked any more.
    ///
    /// # Errors
    /// [`DeviceError`]; the user has signed in then, and the code is spent, with [`DeviceError::IdToken`].
    pub async fn poll(&mut self) -> Result<Login, DeviceError> {
        while !self.is_over {
            // The last question is at the end.
            sleep_until(self.next.min(self.end)).await;
            self.next = Instant::now() + self.interval;
            self.is_over = Instant::now() >= self.end;
            let form = [("device_code", self.device_code.expose())];
            let error = match self.client.redeem(GRANT, &form).await {
                Ok(tokens) => return self.signed_in(tokens),
                Err(error) => error,
            };
            match error.code() {
                "authorization_pending" => {}
                "access_denied" => return Err(DeviceError::Denied),
                "expired_token" => return Err(DeviceError::Expired),
                "unreachable" => self.interval = (2 * self.interval).min(LONGEST),
                _ if error.kind() == AcquireErrorKind::RetryLater => {
                    self.interval = (self.interval + INTERVAL).min(LONGEST);
                }
                _ => return Err(error.into()),
            }
            self.is_over |= Instant::now() >= self.end;
            self.next = Instant::now() + self.interval.max(error.retry_after().unwrap_or_default());
        }
        Err(DeviceError::Expired)
    }

    fn signed_in(&self, tokens: TokenSet) -> Result<Login, DeviceError> {
        let expected = Expected {
            issuer: self.provider.issuer(),
            client_id: self.client.id(),
            nonce: None,
            max_age: None,
            acr_values: &[],
            now: Timestamp::now(),
        };
        Ok(Login::check(&self.client, tokens, "/".into(), &expected)?)
    }
}

/// The codes are not shown.
impl fmt::Debug for DeviceAuthorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceAuthorization")
            .field("client", &self.client)
            .field("verification_uri", &self.verification_uri)
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

/// Why a device got no tokens.
#[derive(Debug)]
#[non_exhaustive]
pub enum DeviceError {
    /// The client is not [of a provider](super::Provider::client), or that has no device authorization endpoint.
    NoEndpoint,
    /// The user has said no (`access_denied`).
    Denied,
    /// The user has not decided in time (`expired_token`).
    Expired,
    /// The provider has answered with another error, or, to the first question, not at all.
    Provider(ProviderError),
    /// The id token is missing, or is not for this client.
    IdToken(IdTokenError),
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoEndpoint => "no device authorization endpoint is known",
            Self::Denied => "the user has denied the device",
            Self::Expired => "the user has not decided in time",
            Self::Provider(_) => "the provider has not signed the device in",
            Self::IdToken(_) => "the id token is not for this client",
        })
    }
}

impl StdError for DeviceError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Provider(error) => Some(error),
            Self::IdToken(error) => Some(error),
            _ => None,
        }
    }
}

impl From<ProviderError> for DeviceError {
    fn from(error: ProviderError) -> Self {
        Self::Provider(error)
    }
}

impl From<IdTokenError> for DeviceError {
    fn from(error: IdTokenError) -> Self {
        Self::IdToken(error)
    }
}

/// The answer has no code, or does not say how long it is good for. It is not quoted.
#[derive(Debug)]
struct Unusable;

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer is not that of a device authorization endpoint")
    }
}

impl StdError for Unusable {}
