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
//! An answer is JSON or a form, and is read as [`TokenSet`](crate::TokenSet) says. A good token is not lost to what
//! stands beside it, be it no JSON at all; of an answer that is cut off, what is whole counts. Answers are read up to
//! 1 MiB.
//!
//! Anything but a token is a [`ProviderError`](crate::ProviderError): with the answer's error code, also where it came
//! with status 200 or in the provider's own form (Entra ID, Facebook, Google, HubSpot, Slack, WeChat and others), with
//! its status when that asks for time (429, 503) or when there is no code, and with its `Retry-After`. Descriptions and
//! bodies stay out of it: they may hold secrets. Redirects are not followed, so that no provider can have credentials
//! sent elsewhere.
//!
//! A token without a lifetime gets [the client's default](Client::default_lifetime). A refreshed id token of another
//! issuer or subject than the partition's is refused with all that came with it (OpenID Connect Core §12.2): the code is
//! `id_token_mismatch`, and the user has to sign in again. One that names no user is left out, and the one before stays.
//!
//! # Secrets
//!
//! Forms and answers are wiped from the buffers of this crate. `oauth2` encodes forms in, and
//! `reqwest` sends and receives through, buffers of their own which they do not wipe, and `oauth2`
//! keeps the client secret as a plain string.

mod answer;
mod assertion;
mod assertion_file;
mod body;
mod client;
mod client_credentials;
mod credentials;
mod http_client;
mod id_token;
mod jwt_bearer;
mod private_key_jwt;
mod refresh_token;
mod refusal;
#[cfg(test)]
mod refusals_table;
mod request;
#[cfg(any(feature = "reqwest-0-12", feature = "reqwest-0-13"))]
mod reqwest;
mod signing_key;
#[cfg(test)]
mod tests;
mod token_exchange;
#[cfg(test)]
mod tokens_table;

pub use self::assertion::ClientAssertion;
pub use self::assertion_file::{AssertionFile, AssertionFileError, AssertionFileErrorKind};
pub use self::client::Client;
pub use self::client_credentials::ClientCredentials;
pub use self::credentials::AuthStyle;
pub use self::http_client::HttpClient;
pub use self::jwt_bearer::JwtBearer;
pub use self::private_key_jwt::PrivateKeyJwt;
pub use self::refresh_token::RefreshToken;
pub use self::signing_key::SigningKey;
pub use self::token_exchange::TokenExchange;
