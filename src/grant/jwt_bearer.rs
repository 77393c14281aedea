//! `JwtBearer`.

use super::Client;
use crate::acquire::{Acquire, AcquireFuture, Prior};
use crate::secret::Secret;

/// Asks with an assertion (RFC 7523 §2.1), such as the token of the request that is being served.
///
/// Made per request, around a clone of one [`Client`]. Use it with the
/// [partition](crate::PartitionKey::assertion) of the same assertion, so that no user gets tokens
/// that were asked for with another's; or with one for [work](super#long-running-work-on-behalf-of-a-user) that goes on
/// when the assertion has expired.
///
/// The API has to check the bearer token itself, in a layer outside of this one: a token that has been acquired with it is served
/// from the cache, and the provider is not asked whether the assertion still holds.
///
/// ```
/// use std::sync::Arc;
/// use axum::{Router, extract::State, http::{HeaderMap, header}, routing::get};
/// use tower_token_cache::grant::{Client, JwtBearer};
/// use tower_token_cache::{Error, TokenCache, TokenCacheLayer, Tokens, key};
///
/// async fn report(State(client): State<Client>, tokens: Tokens, headers: HeaderMap) -> Result<String, Error> {
///     let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
///     let (_scheme, assertion) = bearer.and_then(|value| value.split_once(' ')).ok_or(Error::NoPartition)?;
///     let source = Arc::new(JwtBearer::on_behalf_of(client, assertion.trim()));
///     let acquired = tokens.acquire("graph")?.with_source(source).await?;
///     Ok(format!("calls the API with {} characters", acquired.token.access_token().len()))
/// }
///
/// fn app(cache: TokenCache, client: Client) -> Router {
///     let layer = TokenCacheLayer::new(cache, key::bearer_assertion());
///     // Outside of it: `.layer(…)` that verifies the bearer token.
///     Router::new().route("/report", get(report)).layer(layer).with_state(client)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct JwtBearer {
    client: Client,
    assertion: Secret,
    on_behalf_of: bool,
}

impl JwtBearer {
    /// A source that asks as this client, with this assertion.
    pub fn new(client: Client, assertion: impl Into<Secret>) -> Self {
        Self {
            client,
            assertion: assertion.into(),
            on_behalf_of: false,
        }
    }

    /// The same as Microsoft's identity platform wants it: `requested_token_use=on_behalf_of`.
    pub fn on_behalf_of(client: Client, assertion: impl Into<Secret>) -> Self {
        Self {
            on_behalf_of: true,
            ..Self::new(client, assertion)
        }
    }
}

impl Acquire for JwtBearer {
    fn acquire(&self, prior: Prior) -> AcquireFuture {
        let grant = "urn:ietf:params:oauth:grant-type:jwt-bearer";
        let mut own = vec![("assertion", self.assertion.expose())];
        if self.on_behalf_of {
            own.push(("requested_token_use", "on_behalf_of"));
        }
        self.client.ask(&prior, grant, &own)
    }
}
