//! Sessions whose ids the layer issues: the browser gets a random id, the tokens stay on the server.
//!
//! ```
//! use axum::{Router, response::Redirect, routing::{get, post}};
//! use tower_token_cache::session::{Cookie, SignIn};
//! use tower_token_cache::{Error, MemoryStore, TokenCache, TokenCacheLayer, TokenSet, Tokens};
//!
//! // At the end of a login: `answer` is that of the token endpoint.
//! async fn callback(tokens: Tokens) -> Result<Redirect, Error> {
//!     # let answer = TokenSet::from(tower_token_cache::Token::new("ya29.a0Af"));
//!     let signed_in = tokens.sign_in(SignIn::new("graph", answer).user("ada")).await?;
//!     # assert_eq!(signed_in, tower_token_cache::Durability::Stored);
//!     Ok(Redirect::to("/me"))
//! }
//!
//! async fn me(tokens: Tokens) -> Result<String, Error> {
//!     // `Error::NoPartition`, which is a 401, before a sign-in.
//!     Ok(format!("{:?}", tokens.get("graph").await?))
//! }
//!
//! async fn logout(tokens: Tokens) -> Result<(), Error> {
//!     tokens.sign_out().await.map(drop)
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let cache = TokenCache::builder(MemoryStore::new()).build()?;
//! let app: Router = Router::new()
//!     .route("/callback", get(callback))
//!     .route("/me", get(me))
//!     .route("/logout", post(logout))
//!     .layer(TokenCacheLayer::new(cache, Cookie::new("sid")?));
//! # use tower::ServiceExt;
//! # let request = axum::http::Request::get("/callback").body(axum::body::Body::empty())?;
//! # let response = app.oneshot(request).await?;
//! # let line = response.headers()["set-cookie"].to_str()?;
//! # assert!(line.starts_with("__Host-sid="), "{line}");
//! # Ok(())
//! # }
//! ```
//!
//! # What a session is
//!
//! An id of 256 random bits, in a cookie with `HttpOnly`, `Secure`, `SameSite=Lax`, `Path=/`, `Max-Age`, and a name that
//! begins with `__Host-`, which browsers hold to that. The id is a [`PartitionKey::session`](crate::PartitionKey::session).
//! A response that sets or removes the cookie has `Cache-Control: private, no-store`: a shared cache that kept it would
//! hand the session to others.
//!
//! | a request | |
//! |---|---|
//! | without the cookie | Anonymous, but handlers that take [`Tokens`](crate::Tokens) get a handle. Reads are [`Error::NoPartition`](crate::Error::NoPartition). The first [`insert`](crate::Tokens::insert) begins a session, as a login that has to remember its `state` does. |
//! | that [signs in](crate::Tokens::sign_in) | A new id, whatever the request brings. Nothing of the session before is left, and its id is worth nothing. |
//! | that [signs out](crate::Tokens::sign_out) | The cookie is removed. What is kept from then on, also while the sign-out waits for the store, is kept under another id. |
//! | with a cookie that is broken, or two that differ | As [`InvalidKey`](crate::InvalidKey) says: as without one, by default. The response removes the cookie, also where it is a refusal. |
//! | that goes on with a session | Its cookie is set anew once a quarter of its age has gone ([`Cookie::rolling`]), or never ([`Cookie::fixed`]). |
//!
//! The age is that of the cookie. How long the tokens live in the store is up to [`Lifetimes`](crate::Lifetimes).
//! The time in the value of a rolling cookie tells only when to renew it: a browser that changes it changes nothing else.
//! A session that this instance knows to be over is not renewed. One that was replaced on another instance a moment ago
//! may be: a browser that gets the late response last has to sign in again.
//!
//! The id and the cookie are as good as a password. Cross-site requests are kept off by `SameSite`, as far as browsers do
//! that; a form that changes something needs a CSRF token of the application's all the same, and the `state` of a login
//! has to be checked.
//!
//! # Beside another session middleware
//!
//! An application that has tower-sessions, axum-login or actix-session keeps it, and uses both, each with its own cookie.
//! Do not take the other one's id as a partition key: tower-sessions has none before the first response, and hands on any
//! id that a browser sends. Sign in, and out, in both. Where they end at different times, a request of a user that one of
//! them does not know is a 401, and the next login begins both again.
//!
//! With tower-sessions:
//!
//! ```
//! use tower_sessions::Session;
//! use tower_token_cache::session::SignIn;
//! use tower_token_cache::{Error, TokenSet, Tokens};
//!
//! async fn callback(session: Session, tokens: Tokens, answer: TokenSet) -> Result<(), Box<dyn std::error::Error>> {
//!     let _ = tokens.sign_in(SignIn::new("graph", answer)).await?;
//!     session.flush().await?; // nothing of the session before
//!     session.insert("name", "Ada").await?;
//!     Ok(())
//! }
//!
//! async fn logout(session: Session, tokens: Tokens) -> Result<(), Box<dyn std::error::Error>> {
//!     let _ = tokens.sign_out().await?;
//!     Ok(session.flush().await?)
//! }
//! ```
//!
//! With axum-login, which knows the user, either the same (`auth.login(&user)` and `sign_in`, `auth.logout()` and
//! `sign_out`), or one partition for each user, across their sessions. Put its layer outside of this one:
//!
//! ```
//! use axum_login::{AuthSession, AuthUser, AuthnBackend};
//! use tower_token_cache::{KeyError, KeyExtractor, PartitionKey, key};
//!
//! fn of_the_user<B>() -> impl KeyExtractor
//! where
//!     B: AuthnBackend<User: AuthUser<Id: std::fmt::Display>> + 'static,
//! {
//!     key::extension(|auth: &AuthSession<B>| match &auth.user {
//!         Some(user) => PartitionKey::user(user.id().to_string()),
//!         None => Err(KeyError::Empty), // which is no key
//!     })
//! }
//! ```
//!
//! The request that logs in has no handle then: its handler takes one with
//! [`TokenCache::tokens`](crate::TokenCache::tokens).
//!
//! With actix-session, where a session that was purged takes nothing more in the same request:
//!
//! ```
//! use actix_session::Session;
//! use tower_token_cache::session::SignIn;
//! use tower_token_cache::{TokenSet, Tokens};
//!
//! async fn callback(session: Session, tokens: Tokens, answer: TokenSet) -> actix_web::Result<()> {
//!     let _ = tokens.sign_in(SignIn::new("graph", answer)).await?;
//!     session.clear(); // nothing of the session before
//!     session.renew(); // nor its id
//!     session.insert("name", "Ada")?;
//!     Ok(())
//! }
//!
//! async fn logout(session: Session, tokens: Tokens) -> actix_web::Result<()> {
//!     let _ = tokens.sign_out().await?;
//!     session.purge();
//!     Ok(())
//! }
//! ```

mod cookie;
mod extract;
mod info;
mod issue;
mod same_site;
mod sign_in;

pub use self::cookie::Cookie;
pub(crate) use self::cookie::new_session;
pub use self::info::SessionInfo;
pub(crate) use self::issue::{Issue, ResponseHead};
pub use self::same_site::SameSite;
pub use self::sign_in::SignIn;
