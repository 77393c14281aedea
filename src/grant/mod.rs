//! Ready-made sources: the grants of OAuth 2.0, over any HTTP client.
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
//! # By which HTTP client
//!
//! By default one over hyper and rustls, which trusts the roots of Mozilla. [`Client::http_client`] takes another: any
//! tower service of `http` types as an [`HttpClient`], and `reqwest::Client` as it is (0.12 with feature `reqwest-0-12`,
//! 0.13 with feature `reqwest-0-13`).
//!
//! # How the client proves who it is
//!
//! | by | with |
//! |---|---|
//! | a secret | [`Client::secret`] |
//! | a JWT that it signs for each request (`private_key_jwt`): ES256, RS256 or PS256, with a key that can be replaced at any time | [`PrivateKeyJwt`] |
//! | an assertion that the platform keeps in a file (workload identity federation) | [`AssertionFile`] |
//! | an assertion that comes from elsewhere | a closure, as a [`ClientAssertion`] |
//! | a certificate of its own (mutual TLS, RFC 8705) | [`Client::http_client`] |
//!
//! # Long-running work on behalf of a user
//!
//! An API that has been called by a user may have to go on when the user's assertion has expired. Choose a partition for the
//! work, ask for `offline_access`, and begin with the assertion. The refresh token that comes with the tokens stays in
//! that partition, and later tokens come by it, for every key, on every instance. (Where there is nothing to go on with,
//! use the [partition of the assertion](crate::PartitionKey::assertion).)
//!
//! ```
//! use std::sync::Arc;
//! use tower_token_cache::grant::{Client, JwtBearer, RefreshToken};
//! use tower_token_cache::{ConfigError, Error, PartitionKey, TokenCache};
//!
//! fn client() -> Result<Client, ConfigError> {
//!     let client = Client::new("https://login.example/token", "api")?.secret("hush");
//!     Ok(client.scopes(["https://graph.example/.default", "offline_access"]))
//! }
//!
//! /// In the user's request. Keep the id with the work: an unguessable one, as of a session.
//! async fn begin(cache: &TokenCache, client: Client, work: &str, assertion: &str) -> Result<(), Error> {
//!     let tokens = cache.tokens(PartitionKey::session(work)?);
//!     let source = Arc::new(JwtBearer::on_behalf_of(client, assertion));
//!     tokens.acquire("graph")?.with_source(source).await?;
//!     Ok(())
//! }
//!
//! /// Hours later, on any instance.
//! async fn go_on(cache: &TokenCache, client: Client, work: &str) -> Result<(), Error> {
//!     let tokens = cache.tokens(PartitionKey::session(work)?);
//!     let source = Arc::new(RefreshToken::new(client));
//!     let acquired = tokens.acquire("graph")?.with_source(source).await?;
//!     // … `acquired.token` …
//! #   let _ = acquired;
//!     Ok(())
//! }
//!
//! /// At its end.
//! async fn end(cache: &TokenCache, work: &str) -> Result<(), Error> {
//!     cache.tokens(PartitionKey::session(work)?).sign_out().await?;
//!     Ok(())
//! }
//! # client().unwrap();
//! ```
//!
//! Work whose refresh token is missing or refused fails with
//! [`ReauthenticationRequired`](crate::AcquireErrorKind::ReauthenticationRequired): end it, and begin again with the next
//! assertion of the user. It has to come back within [the lifetime](crate::Lifetimes::after_write) of a partition, which
//! begins anew with each refresh.
//!
//! # A login
//!
//! A [`Provider`] is discovered, and makes clients that know its other endpoints, too. A user signs in by
//! [`AuthorizationCode`], or at another device by [`Client::authorize_device`]. After a sign-out [`Client::revoke`] and
//! [`Client::end_session`] end what the provider has.
//!
//! | what an attacker tries | what stops it |
//! |---|---|
//! | a callback in another browser (RFC 9700 §4.7) | the state is a session value: another session does not have it |
//! | a callback again | the session value is taken by one caller, on all instances together |
//! | a stolen code in a login of their own (§4.5) | PKCE by `S256`, and the nonce of the id token |
//! | no PKCE (§4.8.2) | it is sent always, and a provider that says it does not know `S256` is refused |
//! | another provider's code (§4.4) | `iss` (RFC 9207), and the login remembers where it began |
//! | a link to the login that leads elsewhere (§4.11) | only a path of this site is returned to |
//! | a discovery document of another issuer | its issuer is that which was asked for, its endpoints are `https` |
//!
//! An API can demand a login of another kind, or a fresh one (RFC 9470): [`AuthorizationCode::step_up`] is the login for it, and its
//! id token is checked for what was demanded.
//!
//! The callback is a query, by GET, and `response_mode` is refused: `SameSite=Lax` keeps the session's cookie from a POST that
//! comes from the provider. Such a POST is of no session. It ends no login, and spends none. A provider that does nothing but post
//! needs a route of its own, which answers each POST with a redirect (303) to the callback, with `code` and `state` in the query:
//! the browser then comes by GET, with its cookie.
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
//! Forms and answers are wiped from the buffers of this crate. HTTP clients send and receive through buffers of their own,
//! and do not wipe them; neither does ring its keys.

mod answer;
mod assertion;
mod assertion_file;
mod authorization_code;
mod begun;
mod body;
mod callback;
mod claims;
mod client;
mod client_credentials;
mod credentials;
mod demanded;
mod device;
mod discovery;
mod end_session;
pub(crate) mod endpoint;
mod http_client;
mod id_token;
mod jwt_bearer;
mod login;
mod login_error;
mod private_key_jwt;
mod provider;
mod refresh_token;
mod refusal;
#[cfg(test)]
mod refusals_table;
mod request;
#[cfg(any(feature = "reqwest-0-12", feature = "reqwest-0-13"))]
mod reqwest;
mod return_address;
mod revocation;
#[cfg(test)]
mod scripted;
mod signed_in;
mod signing_key;
#[cfg(test)]
mod step_up_tests;
#[cfg(test)]
mod tests;
mod token_exchange;
#[cfg(test)]
mod tokens_table;
#[cfg(test)]
mod user_tests;

pub use self::assertion::ClientAssertion;
pub use self::assertion_file::{AssertionFile, AssertionFileError, AssertionFileErrorKind};
pub use self::authorization_code::AuthorizationCode;
pub use self::callback::Callback;
pub use self::claims::{Claims, IdTokenError};
pub use self::client::Client;
pub use self::client_credentials::ClientCredentials;
pub use self::credentials::AuthStyle;
pub(crate) use self::demanded::keep as keep_demand;
pub use self::device::{DeviceAuthorization, DeviceError};
pub use self::discovery::DiscoveryError;
pub use self::end_session::EndSession;
pub use self::http_client::HttpClient;
pub(crate) use self::http_client::{collect, is_too_large};
pub use self::jwt_bearer::JwtBearer;
pub use self::login::Login;
pub use self::login_error::LoginError;
pub use self::private_key_jwt::PrivateKeyJwt;
pub use self::provider::Provider;
pub use self::refresh_token::RefreshToken;
pub use self::revocation::RevocationError;
pub use self::signing_key::SigningKey;
pub use self::token_exchange::TokenExchange;
