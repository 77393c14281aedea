//! `POST /acquire/{name}`: asks the provider of `--issuer`.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{RequestBuilder, Response};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::OnceCell;
use tower_token_cache::{
    AcquireError, AcquireErrorKind, Acquired, CacheLevel, Error, Prior, ProviderError, Timestamp,
    TokenSet, Tokens,
};
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

use super::{Answer, Providers, of_client};

/// What an acquisition demands besides a token: the query of its URL.
#[derive(Deserialize)]
pub(crate) struct Demand {
    /// 1: the token has to be new.
    force: Option<u8>,
    /// It has to last this many seconds yet.
    min_remaining: Option<u64>,
    /// Which client's it is.
    #[serde(default)]
    client: String,
}

/// `POST /acquire/{name}`
pub(crate) async fn acquire(
    tokens: Tokens,
    providers: &Providers,
    name: String,
    demand: Demand,
) -> Result<Answer, Error> {
    let Some(provider) = providers.get(&demand.client).cloned() else {
        return Ok(Answer::error(501, "no_issuer"));
    };
    let tokens = of_client(tokens, &demand.client)?;
    let mut acquisition = tokens.acquire(name)?;
    if demand.force.unwrap_or(0) != 0 {
        acquisition = acquisition.force_refresh();
    }
    if let Some(seconds) = demand.min_remaining {
        acquisition = acquisition.min_remaining(Duration::from_secs(seconds));
    }
    let acquired = acquisition
        .with(async move |prior| provider.grant(&prior).await)
        .await;
    match acquired {
        Ok(acquired) => Ok(success(&acquired)),
        Err(Error::Acquire(error)) => Ok(failure(&error)),
        Err(error) => Err(error),
    }
}

fn success(
    Acquired {
        token, metadata, ..
    }: &Acquired,
) -> Answer {
    let level = match metadata.cache_level {
        CacheLevel::None => "none",
        CacheLevel::L1 => "l1",
        CacheLevel::L2 => "l2",
        CacheLevel::Unavailable => "unavailable",
    };
    let millis = |duration: Duration| duration.as_secs_f64() * 1000.0;
    Answer::json(json!({
        "access_token": token.access_token(),
        "token_source": metadata.token_source.as_str(),
        "cache_level": level,
        "cache_refresh_reason": metadata.refresh_reason.as_str(),
        "duration_total_ms": millis(metadata.duration_total),
        "duration_in_cache_ms": millis(metadata.duration_in_cache),
        "duration_in_http_ms": millis(metadata.duration_in_http),
        "exclusive": metadata.exclusive,
    }))
}

fn failure(error: &AcquireError) -> Answer {
    match error.kind() {
        AcquireErrorKind::ReauthenticationRequired => {
            Answer::error(401, "reauthentication_required")
        }
        AcquireErrorKind::RetryLater => {
            let pause = error.retry_at().map(|at| at.since(Timestamp::now()));
            let seconds = pause.map_or(1, |pause| pause.as_secs() + 1);
            Answer::error(503, "retry_later").with("retry-after", seconds.to_string())
        }
        AcquireErrorKind::TimedOut => Answer::error(502, "timed_out"),
        AcquireErrorKind::Panicked => Answer::error(502, "panicked"),
        _ => Answer::error(502, "failed"),
    }
}

/// An OpenID provider, and who this application is to it.
pub(crate) struct Provider {
    issuer: Url,
    client_id: String,
    client_secret: String,
    http: reqwest::Client,
    /// Asked for when it is first needed, so that this process starts without the provider.
    token_endpoint: OnceCell<Url>,
}

impl Provider {
    pub(super) fn new(issuer: Url, client_id: String, client_secret: String) -> Self {
        Self {
            issuer,
            client_id,
            client_secret,
            http: reqwest::Client::new(),
            token_endpoint: OnceCell::new(),
        }
    }

    /// The refresh-token grant if the partition has a refresh token, else client credentials.
    async fn grant(&self, prior: &Prior) -> Result<TokenSet, ProviderError> {
        if !prior.is_known() {
            // A user who seems to have no refresh token would get the application's token.
            return Err(ProviderError::unreachable("the refresh token is not known"));
        }
        let endpoint = self.token_endpoint().await?.clone();
        let request = self
            .http
            .post(endpoint)
            .basic_auth(encode(&self.client_id), Some(encode(&self.client_secret)))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form(prior));
        read(send(request).await?).await
    }

    async fn token_endpoint(&self) -> Result<&Url, ProviderError> {
        #[derive(Deserialize)]
        struct Document {
            token_endpoint: Url,
        }
        let discover = async || {
            let issuer = self.issuer.as_str().trim_end_matches('/');
            let document = format!("{issuer}/.well-known/openid-configuration");
            let document: Document = read(send(self.http.get(document)).await?).await?;
            Ok(document.token_endpoint)
        };
        self.token_endpoint.get_or_try_init(discover).await
    }
}

fn form(prior: &Prior) -> String {
    let mut form = Serializer::new(String::new());
    match prior.refresh_token() {
        Some(spent) => form
            .append_pair("grant_type", "refresh_token")
            .append_pair("refresh_token", spent.expose()),
        None => form.append_pair("grant_type", "client_credentials"),
    };
    let scopes: Vec<&str> = prior.key().scopes().collect();
    if !scopes.is_empty() {
        form.append_pair("scope", &scopes.join(" "));
    }
    form.finish()
}

/// Both halves of the client's basic authentication are encoded (RFC 6749 §2.3.1).
fn encode(text: &str) -> String {
    byte_serialize(text.as_bytes()).collect()
}

/// An answer that is a success; any other as the error that it stands for.
async fn send(request: RequestBuilder) -> Result<Response, ProviderError> {
    #[derive(Deserialize)]
    struct Refusal {
        error: Box<str>,
    }
    let response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let retry_after = response.headers().get(RETRY_AFTER);
    let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
    let error = match status.is_client_error() && status.as_u16() != 429 {
        true => match read::<Refusal>(response).await {
            Ok(refusal) => ProviderError::refused(refusal.error),
            Err(_) => ProviderError::status(status),
        },
        false => ProviderError::status(status),
    };
    Err(match retry_after {
        Some(seconds) => error.with_retry_after(Duration::from_secs(seconds)),
        None => error,
    })
}

async fn read<T: serde::de::DeserializeOwned>(response: Response) -> Result<T, ProviderError> {
    let body = response.bytes().await.map_err(unreachable)?;
    serde_json::from_slice(&body).map_err(ProviderError::unreachable)
}

/// The URL says nothing that the options do not.
fn unreachable(error: reqwest::Error) -> ProviderError {
    ProviderError::unreachable(error.without_url())
}
