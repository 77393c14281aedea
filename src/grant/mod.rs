//! Ready-made sources: the grants of OAuth 2.0, over the `oauth2` crate and `reqwest`.
//!
//! A [`Client`] says which application asks which provider, and for what. A grant makes a source
//! of it, for [`Acquisition::with_source`](crate::Acquisition::with_source) and the
//! [`outgoing`](crate::outgoing) middleware:
//!
//! | source | asks with | RFC |
//! |---|---|---|
//! | [`RefreshToken`] | the partition's refresh token | 6749 §6 |
//! | [`ClientCredentials`] | the application's own name | 6749 §4.4 |
//! | [`JwtBearer`] | an assertion, such as the token of the request that is being served | 7523 §2.1 |
//! | [`TokenExchange`] | a token that is to be exchanged | 8693 |
//!
//! ```
//! use std::sync::Arc;
//! use tower_token_cache::{Acquire, grant};
//!
//! let client = grant::Client::new("https://login.example/token", "app")?.secret("hush");
//! let users: Arc<dyn Acquire> = Arc::new(grant::RefreshToken::new(client.clone()));
//! let app: Arc<dyn Acquire> = Arc::new(grant::ClientCredentials::new(client.scopes(["api"])));
//! // tokens.acquire("graph")?.with_source(users).await?
//! # let _ = (users, app);
//! # Ok::<(), tower_token_cache::ConfigError>(())
//! ```
//!
//! # What is sent
//!
//! The scopes of the [token key](crate::TokenKey::scoped) if it has any, else the client's; the
//! claims that the caller [needs](crate::Acquisition::claims) as `claims`; the
//! [resource](Client::resource_of_key) of the key if the client is told so.
//!
//! # What comes back
//!
//! Anything but a token is a [`ProviderError`](crate::ProviderError): with the answer's error code,
//! with its status when that asks for time (429, 503) or when there is no code, and with its
//! `Retry-After`. Descriptions and bodies stay out of it: they may hold secrets. Redirects are not
//! followed, so that no provider can have credentials sent elsewhere; answers are read up to
//! 1 MiB.
//!
//! # Secrets
//!
//! Forms and answers are wiped from the buffers of this crate. `oauth2` encodes forms in, and
//! `reqwest` sends and receives through, buffers of their own which they do not wipe, and `oauth2`
//! keeps the client secret as a plain string.

mod answer;
mod client;
mod client_credentials;
mod jwt_bearer;
mod refresh_token;
mod request;
#[cfg(test)]
mod tests;
mod token_exchange;

pub use self::client::{AuthStyle, Client};
pub use self::client_credentials::ClientCredentials;
pub use self::jwt_bearer::JwtBearer;
pub use self::refresh_token::RefreshToken;
pub use self::token_exchange::TokenExchange;
