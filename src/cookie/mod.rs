//! Sessions that live in the browser: the whole partition, sealed, in cookies; no L2 is needed.
//!
//! ```
//! use tower::{ServiceBuilder, service_fn};
//! use tower_token_cache::cookie::CookieStore;
//! use tower_token_cache::{KeyRing, Token, Tokens};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path().join("keys");
//! let ring = KeyRing::open_dir(folder)?;
//! let layer = CookieStore::builder(ring).build()?.layer()?;
//! let service = ServiceBuilder::new()
//!     .layer(layer)
//!     .service(service_fn(async |request: http::Request<String>| {
//!         let tokens = request.extensions().get::<Tokens>().expect("set by the layer");
//!         tokens.insert("graph", Token::new("ya29.a0Af")).await?;
//!         Ok::<_, tower_token_cache::Error>(http::Response::new(String::new()))
//!     }));
//! # use tower::ServiceExt;
//! # let response = service.oneshot(http::Request::new(String::new())).await?;
//! # let line = response.headers()["set-cookie"].to_str()?;
//! # assert!(line.starts_with("__Host-tokens.0=1."));
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! A session has a random id, which stands with its tokens inside of the cookies. The layer opens
//! the cookies of a request into a *slot* of the [`CookieStore`], under a partition that this id
//! names; the engine reads and writes the slot like any other L2, with L1 off. When the handler has
//! answered, has used the session, and the partition has changed since the cookies were made, the
//! layer seals it and adds `Set-Cookie` lines to the response head. Requests of one session that run at the same time on
//! one instance share the slot: they see each other's changes, and a refresh token is redeemed
//! once. A slot that no request uses any more is kept while there is
//! [room](CookieStoreBuilder::memory): what was changed by a request whose client hung up is in
//! the cookies of the next one.
//!
//! A request without cookies has a new, empty session. It costs the browser nothing until something
//! is inserted, and an extractor of [`Tokens`](crate::Tokens) does not answer 401.
//!
//! # What is different from a store on the server
//!
//! - **The response head is the last chance.** A change that a streaming body or a spawned task
//!   makes afterwards is [`Error::ResponseSent`](crate::Error::ResponseSent). So tokens are
//!   refreshed ahead of time while the request waits, not in the background.
//! - **The size is limited**, by browsers and by the proxies on the way: see
//!   [`max_size`](CookieStoreBuilder::max_size). A change that makes the cookies larger is
//!   [`Error::TooLarge`](crate::Error::TooLarge), and changes nothing. Then: keep fewer tokens,
//!   leave the id token out, ask for fewer claims (groups above all), raise the limit if every
//!   proxy on the way allows it, or use a store on the server.
//! - **Two instances do not see each other.** They cannot share one refresh, and of two responses
//!   that both change the session the browser keeps what arrives last. Where the provider rotates
//!   refresh tokens and a browser sends requests to several instances at once, use a store on the
//!   server, or session affinity. A lease in a store would not help: the winner's token is in a
//!   response, where nobody else can read it.
//! - **Sign-out removes the cookies, and whoever has copied them can send them again.** With
//!   [`sign_outs_in`](CookieStoreBuilder::sign_outs_in) every instance refuses them, for as long as
//!   they could live; that also makes [`sign_out_user`](crate::TokenCache::sign_out_user) work.
//!   Without it, only an instance that remembers the sign-out does, and sessions are not to be linked
//!   to users: an instance that has not seen the link, or has restarted, takes one for signed out. A copy that is not used is then
//!   worth something until it is [too old](CookieStoreBuilder::max_age), 14 days after it was set;
//!   one that is used is renewed like its owner's, until the session is
//!   [`MAX_SESSION_AGE`](CookieStore::MAX_SESSION_AGE) old, 30 days. What is in it is worth what the
//!   provider gives for it: have it revoke the refresh token at sign-out (RFC 7009).
//! - **End a login with [`sign_in`](crate::Tokens::sign_in)**, which signs out and then inserts: cookies that an
//!   attacker has planted in the browser then have no part in what comes.
//!   [`move_to`](crate::Tokens::move_to) is an error here.
//!
//! # What is in the cookies
//!
//! The partition in MessagePack, compressed, sealed with AES-256-GCM-SIV as [`seal`](crate::seal)
//! describes, in base64url, in chunks below 4 KiB:
//! `__Host-tokens.0=2.…`, `__Host-tokens.1=…`; the number is that of the chunks. The tag covers the format
//! version, the cookies' name and the session's id, so a chunk that is missing, changed, or of
//! another session makes all of them unopenable: the request goes on with an empty session, which
//! is counted in [`Stats::unopenable_reasons`](crate::Stats::unopenable_reasons).
//!
//! The attributes are `HttpOnly`, `Secure`, `SameSite=Lax`, `Path=/`, `Max-Age` with what is left of
//! the partition's life, and no `Domain`; browsers hold a name with `__Host-` to that. A response
//! that sets them has `Cache-Control: private, no-store`, whatever the handler says; a `no-store` of
//! its own stays as it is. Requests that use no token set no cookies, so their pages can be cached.
//!
//! # Compression
//!
//! Compressing a secret together with text that an attacker chooses, and showing the length, has
//! given secrets away (CRIME, BREACH). Those attacks need matches: the length falls when the guess
//! repeats the secret. Here nothing is matched; bytes only get shorter codes the more frequent they
//! are (DEFLATE, Huffman codes only), and the length is rounded up to 64 bytes. Of four tokens of 6.3
//! KB in all this leaves 74 %, where matching would leave 68 %; LZ4, which knows matches
//! only, finds next to nothing in tokens.

mod chunks;
mod compress;
mod exchange;
#[cfg(feature = "__tests")]
mod fuzz;
mod layer;
mod payload;
mod sealer;
mod settings;
mod store;

pub(crate) use self::exchange::Exchange;
#[cfg(feature = "__tests")]
pub(crate) use self::fuzz::read_anything;
pub use self::settings::CookieStoreBuilder;
pub use self::store::CookieStore;
pub use crate::session::SameSite;
pub(crate) use crate::store::Pinned;
