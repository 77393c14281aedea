//! Puts the user's token on requests to other services.
//!
//! [`BearerLayer`] takes a token from the cache, or from its source, and sends it as
//! `Authorization: Bearer …` (RFC 6750). When the service answers 401, the token counts as
//! [rejected](crate::Acquisition::rejected): the cache gets another one, once for everyone who uses
//! it, and the request is sent a second time. The second answer is returned as it is.
//!
//! A service that takes the token and wants more says so in a [challenge](crate::Challenge), with a 401 or a 403. What can be
//! got without the user is got once, and the request is sent a second time:
//!
//! | the service demands | what happens |
//! |---|---|
//! | claims (`insufficient_claims`) | The source is asked for a token [with these claims](crate::Acquisition::claims), which takes the place of the one before. |
//! | scopes (`insufficient_scope`) | If they are [listed](BearerLayer::scopes_on_demand), the source is asked for a token of this resource [with these scopes](crate::Acquisition::scopes), which is kept beside the one before. A layer whose key has the scopes spares the first request. |
//! | another login (`insufficient_user_authentication`, RFC 9470) | If the user has signed in meanwhile, the token of that login is sent. |
//!
//! What only the user can give is [`Error::StepUp`](crate::Error::StepUp) in [`TokenError::Cache`], with the challenge: also
//! scopes that are not listed, where the provider refuses the claims or scopes, and where the second answer demands something still. The token is kept, and so are all
//! others: other requests may be content with them. A handler that returns this error passes the challenge on to the browser,
//! and `AuthorizationCode::step_up` (feature `grants`) begins the login that it asks for.
//!
//! It is a layer for tower's HTTP clients, and with feature `reqwest-middleware` a middleware of
//! that crate as well.
//!
//! # Whose token
//!
//! That of the [`Tokens`](crate::Tokens) handle in the extensions of the outgoing request, or of
//! the one that the layer was [made with](BearerLayer::for_tokens). A request with neither fails
//! with [`TokenError::NoTokens`]; none goes to a listed origin without a token. One that already has
//! an `Authorization` header is sent as it is.
//!
//! # Where to
//!
//! To the [`Origins`] that the layer is made with, over TLS or to this machine, and nowhere else: a
//! request to another origin is sent without a token. So it does not matter whether redirects are
//! followed outside of this layer, where it sees each request, or inside, where clients drop the
//! header of a request that goes to another host.
//!
//! # What is sent twice
//!
//! Requests whose body can be [cloned](ReplayBody). For others the 401 is returned; the rejected
//! token has been replaced by then, so that the next request does better.
//!
//! ```
//! use tower::{ServiceBuilder, service_fn};
//! use tower_token_cache::outgoing::{BearerLayer, Origins};
//! use tower_token_cache::{BoxError, Prior, Token, TokenSet};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let source = async |_: Prior| Ok::<TokenSet, BoxError>(Token::new("t").into());
//! let graph = Origins::new(["https://graph.example"])?;
//! let client = ServiceBuilder::new()
//!     .layer(BearerLayer::new("graph", source, graph)?)
//!     .service(service_fn(async |request: http::Request<String>| {
//!         // … send it …
//!         Ok::<_, BoxError>(http::Response::new(request.into_body()))
//!     }));
//! // let mut request = http::Request::get("https://graph.example/me").body(String::new())?;
//! // request.extensions_mut().insert(tokens);
//! // client.oneshot(request).await?
//! # let _ = client;
//! # Ok(())
//! # }
//! ```

mod bearer;
mod demand;
mod error;
mod future;
mod layer;
#[cfg(feature = "reqwest-middleware")]
mod middleware;
mod origins;
#[cfg(feature = "grants")]
mod proxy;
mod replay;
mod service;

pub use self::error::{CallError, TokenError};
pub use self::future::ResponseFuture;
pub use self::layer::BearerLayer;
pub use self::origins::Origins;
#[cfg(feature = "grants")]
pub use self::proxy::Proxy;
pub use self::replay::{CloneBody, ReplayBody};
pub use self::service::BearerService;
