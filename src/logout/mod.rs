//! Logout by the provider: OpenID Connect Back-Channel Logout 1.0.
//!
//! When a user signs out at the provider, or an administrator ends their session there, the provider posts a *logout
//! token* to each application. [`BackChannelLogout`] is the handler for it: it checks the token, and signs out the
//! sessions that are linked to what it names.
//!
//! ```
//! use axum::{Router, routing::post_service};
//! use tower_token_cache::logout::BackChannelLogout;
//! use tower_token_cache::session::SignIn;
//! use tower_token_cache::{Durability, Error, MemoryStore, TokenCache, TokenSet, Tokens};
//!
//! // At the end of a login, with the claims of the checked id token.
//! async fn signed_in(tokens: Tokens, answer: TokenSet, sub: &str, sid: &str) -> Result<Durability, Error> {
//!     const ISS: &str = "https://login.example";
//!     let sign_in = SignIn::new("graph", answer).provider_user(ISS, sub).provider_session(ISS, sid);
//!     tokens.sign_in(sign_in).await
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cache = TokenCache::builder(MemoryStore::new()).build()?;
//! let logout = BackChannelLogout::new(cache, "https://login.example", "app", "https://login.example/jwks")?;
//! let app: Router = Router::new().route("/backchannel-logout", post_service(logout));
//! # let _ = app;
//! # Ok(())
//! # }
//! ```
//!
//! With actix-web it is a handler: `.route("/backchannel-logout", web::post().to(logout.clone()))`. Elsewhere call
//! [`sign_out`](BackChannelLogout::sign_out) with the form's `logout_token`, and answer with
//! [`LogoutError::status`].
//!
//! # What is checked
//!
//! All of §2.6, and what JWTs need besides (RFC 8725):
//!
//! | part | must be |
//! |---|---|
//! | `alg` | one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA. Never `none`, and never an HMAC, which a public key could be the secret of. |
//! | signature | by the key of the issuer that `kid` names. Without `kid` the issuer must have one key only that fits. |
//! | `typ` | `logout+jwt` or `JWT`, or not there |
//! | `crit` | not there: no extension is known |
//! | `iss` | the issuer, exactly |
//! | `aud` | the client, or a list with it |
//! | `iat` | within the last five minutes; clocks may differ by one |
//! | `exp` | to come, give or take a minute; `nbf`, where it is there, past |
//! | `events` | has the member `http://schemas.openid.net/event/backchannel-logout`, an object |
//! | `nonce` | not there: an id token is no logout token |
//! | `sid`, `sub` | one of them, or both |
//! | `jti` | there. The store knows it for as long as the token could be used: a token that comes again, on any instance, is answered with 200 and ends nothing. A user who has signed in since stays signed in. |
//!
//! With `sid` the sessions end that were linked by [`provider_session`](crate::session::SignIn::provider_session), and no
//! others of the user. With `sub` alone all end that were linked by
//! [`provider_user`](crate::session::SignIn::provider_user).
//!
//! # What is answered
//!
//! | | |
//! |---|---|
//! | 200 | The sessions are over, and the store knows it. Also where there were none. |
//! | 400 | The token is not valid. The body says which check has failed: `{"error":"invalid_request","error_description":"…"}`. |
//! | 405, 413, 415 | It is no `POST`, longer than 64 KiB, or no form. |
//! | 503 | The store does not know of the sign-out, or the keys cannot be fetched: the provider should try again. |
//!
//! Each has `Cache-Control: no-store`.
//!
//! # The issuer's keys
//!
//! They are fetched when the first token comes, and again when they are an hour old, or when a token comes that none of
//! them verifies: once a minute at most, whatever tokens come. Where the fetch fails, the keys that are known still
//! count, and the next one is made five seconds later at the earliest. At most 256 KiB are read, and 100 keys kept.

#[cfg(feature = "actix")]
mod actix;
mod back_channel;
mod error;
mod form;
mod keys;
mod service;
mod signature;
mod token;
#[cfg(test)]
mod token_tests;

pub use self::back_channel::BackChannelLogout;
pub use self::error::LogoutError;
