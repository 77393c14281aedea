//! Discovery: a provider's document about itself.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Map, Value};
use url::Url;

use super::http_client::{HttpClient, NoAnswer};
use super::provider::{About, OTHERS, Provider, TOKEN, check_endpoint, check_issuer};
use crate::acquire::ProviderError;
use crate::error::ConfigError;

/// How long each of the two questions may take: as long as one of a client.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest document, in bytes: ten times what providers publish.
const MAX_DOCUMENT: usize = 64 << 10;
/// The longest issuer of a document that an error shows, in bytes.
const MAX_SHOWN: usize = 256;

impl Provider {
    /// Asks an issuer for its endpoints: at its `/.well-known/openid-configuration` (OpenID Connect Discovery §4), and
    /// where there is none, at `/.well-known/oauth-authorization-server` (RFC 8414 §3.1).
    ///
    /// The issuer is written exactly as the provider writes it: a slash at its end counts. Redirects are not followed,
    /// and a document has 64 KiB at most. Each question takes 10 s at most. Done once, at start.
    ///
    /// The document of Entra ID for all tenants (`common`) is of no issuer that could be asked for: use that of a tenant.
    ///
    /// # Errors
    /// [`DiscoveryError`].
    pub async fn discover(issuer: impl AsRef<str>) -> Result<Self, DiscoveryError> {
        let http = HttpClient::over_hyper().map_err(DiscoveryError::Config)?;
        Self::discover_with(http, issuer).await
    }

    /// The same with an HTTP client of yours, under the rules of [`HttpClient`]: for a proxy, or certificates of your own.
    /// The [clients](Self::client) of the provider have it, too.
    ///
    /// # Errors
    /// [`DiscoveryError`].
    pub async fn discover_with(
        http: impl Into<HttpClient>,
        issuer: impl AsRef<str>,
    ) -> Result<Self, DiscoveryError> {
        let http = http.into();
        let issuer = issuer.as_ref();
        let url = check_issuer(issuer).map_err(DiscoveryError::Config)?;
        let [openid, oauth] = places(&url);
        let document = match fetch(&http, openid).await {
            Err(DiscoveryError::NoDocument(status)) if status.is_client_error() => {
                fetch(&http, oauth).await?
            }
            document => document?,
        };
        Ok(Self::over(http, read(issuer, &url, &document)?))
    }
}

/// Where an issuer's documents are.
fn places(issuer: &Url) -> [Url; 2] {
    let path = issuer.path().trim_end_matches('/');
    [
        format!("{path}/.well-known/openid-configuration"),
        format!("/.well-known/oauth-authorization-server{path}"),
    ]
    .map(|path| {
        let mut url = issuer.clone();
        url.set_path(&path);
        url
    })
}

async fn fetch(http: &HttpClient, url: Url) -> Result<Map<String, Value>, DiscoveryError> {
    let answer = http.document(&url, MAX_DOCUMENT, TIMEOUT).await;
    let answer = answer.map_err(unread)?;
    if answer.status() != StatusCode::OK {
        return Err(DiscoveryError::NoDocument(answer.status()));
    }
    // The parser's error would quote the document.
    serde_json::from_slice(answer.body().as_ref()).map_err(|_| DiscoveryError::Unreadable)
}

fn unread(error: ProviderError) -> DiscoveryError {
    let mut cause = error.source();
    while let Some(source) = cause {
        if let Some(NoAnswer::AsSmallAs(_)) = source.downcast_ref() {
            return DiscoveryError::TooLarge;
        }
        cause = source.source();
    }
    DiscoveryError::Unreachable(error)
}

fn read(issuer: &str, url: &Url, document: &Map<String, Value>) -> Result<About, DiscoveryError> {
    let text = |name| document.get(name).and_then(Value::as_str);
    let flag = |name| document.get(name).and_then(Value::as_bool) == Some(true);
    let found = text("issuer").unwrap_or_default();
    if found != issuer {
        let is_shown =
            found.len() <= MAX_SHOWN && found.bytes().all(|byte| byte.is_ascii_graphic());
        let found = if is_shown { found } else { "" }.into();
        return Err(DiscoveryError::WrongIssuer { found });
    }
    let endpoint = |name: &'static str| {
        let invalid = |reason| DiscoveryError::Endpoint(ConfigError::new(name, reason));
        let value = document.get(name).filter(|value| !value.is_null());
        let found = value.map(|value| check_endpoint(url, value.as_str().unwrap_or_default()));
        found.transpose().map_err(invalid)
    };
    let missing = || DiscoveryError::Endpoint(ConfigError::new(TOKEN, "is missing"));
    let mut endpoints = BTreeMap::new();
    for name in OTHERS {
        endpoints.extend(endpoint(name)?.map(|url| (name, url)));
    }
    let methods = document.get("code_challenge_methods_supported");
    let methods = methods.and_then(Value::as_array).map(|methods| {
        let methods = methods.iter().filter_map(Value::as_str);
        methods.map(Into::into).collect()
    });
    Ok(About {
        issuer: issuer.into(),
        token_endpoint: endpoint(TOKEN)?.ok_or_else(missing)?,
        endpoints,
        names_itself: flag("authorization_response_iss_parameter_supported"),
        challenge_methods: methods,
        names_sessions: flag("backchannel_logout_session_supported"),
    })
}

/// Why a provider could not be discovered. No message has text of the document, but for its issuer.
#[derive(Debug)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// The issuer that was asked for is no `https` URL, or has a query; or TLS cannot be set up.
    Config(ConfigError),
    /// There was no answer: it may pass.
    Unreachable(ProviderError),
    /// The answer is another status than 200, also a redirect. It may pass where the status is from 500 on.
    NoDocument(StatusCode),
    /// The document is larger than 64 KiB.
    TooLarge,
    /// The document is no JSON object.
    Unreadable,
    /// The document is of another issuer than was asked for. Most often a slash at the end is missing, or is too much.
    WrongIssuer {
        /// The document's issuer; empty where it has none that can be shown.
        found: Box<str>,
    },
    /// An endpoint in the document cannot be used: it is not `https`, or is missing. The error names it.
    Endpoint(ConfigError),
}

impl fmt::Display for DiscoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(_) => f.write_str("the provider cannot be asked"),
            Self::Unreachable(_) => f.write_str("the provider did not answer"),
            Self::NoDocument(status) => {
                write!(
                    f,
                    "the provider has no discovery document: {}",
                    status.as_u16()
                )
            }
            Self::TooLarge => f.write_str("the discovery document is larger than 64 KiB"),
            Self::Unreadable => f.write_str("the discovery document is no JSON object"),
            Self::WrongIssuer { found } => {
                write!(f, "the discovery document is of another issuer: `{found}`")
            }
            Self::Endpoint(_) => f.write_str("the discovery document has an unusable endpoint"),
        }
    }
}

impl StdError for DiscoveryError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Config(error) | Self::Endpoint(error) => Some(error),
            Self::Unreachable(error) => Some(error),
            _ => None,
        }
    }
}
