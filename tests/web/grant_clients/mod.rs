//! How the grants ask a real OpenID provider: by which HTTP client, and how the client proves who it is.

mod assertions;
mod http_clients;
mod key_rotation;
mod long_running;

use std::sync::Arc;

use common::client_key::ClientKey;
use common::oidc::OidcProvider;
use serde_json::json;
use tower_token_cache::grant::{Client, ClientCredentials};
use tower_token_cache::{Acquired, Error, PartitionKey, ProviderError, TokenCache};

/// Where no browser comes back to.
const NOWHERE: &str = "http://127.0.0.1:1/callback";

/// A client that has these keys and no secret.
async fn register(provider: &OidcProvider, algorithm: &str, keys: &[&ClientKey]) {
    let keys: Vec<_> = keys.iter().map(|key| &key.jwk).collect();
    let metadata = json!({
        "client_id": "service",
        "grant_types": ["client_credentials"],
        "redirect_uris": [],
        "response_types": [],
        "token_endpoint_auth_method": "private_key_jwt",
        "token_endpoint_auth_signing_alg": algorithm,
        "jwks": { "keys": keys },
    });
    provider.register(&metadata).await;
}

fn token_url(provider: &OidcProvider) -> String {
    format!("{}/token", provider.issuer())
}

/// A new token of the application itself, under a name at which there is none.
async fn acquire(cache: &TokenCache, client: &Client, name: &str) -> Result<Acquired, Error> {
    let partition = PartitionKey::application("service", name).unwrap();
    let source = Arc::new(ClientCredentials::new(client.clone()));
    let tokens = cache.tokens(partition);
    tokens.acquire("api")?.with_source(source).await
}

fn provider_error(error: &Error) -> &ProviderError {
    match error {
        Error::Acquire(error) => error.downcast_ref().expect("of a grant"),
        other => panic!("another error: {other:?}"),
    }
}

/// What the provider said to it.
fn code(error: &Error) -> &str {
    provider_error(error).code()
}
