//! The tower layer, its service, future and body.
//!
//! # A request's life
//!
//! The service finds the request's partition, puts a lazy [`Tokens`](crate::Tokens) handle into the
//! extensions and calls the inner service. What the handler changes is visible to every request
//! of this process at once, and written to L2 once the head of the response is there, or the
//! handler's future was dropped or panicked, and after a second at the latest. A body may stream for
//! hours: what is changed meanwhile is written as it is made. Removals, and changes under
//! [`WriteMode::BeforeResponse`](crate::WriteMode::BeforeResponse) or
//! [`FailurePolicy::Strict`](crate::FailurePolicy::Strict), are written before the response head.
//!
//! # Order of layers
//!
//! Put this layer inside of whatever makes the key (a session or authentication middleware), and
//! outside of timeouts that end a handler early: a change is kept either way.
//!
//! # A layer within a layer
//!
//! Where a router with this layer is nested in another, and both issue session ids in the same cookie of the same cache,
//! or keep sessions in cookies by the same [`CookieStore`](crate::CookieStore), a request has one handle, and the outer
//! layer answers for it. Of two policies the inner layer's holds, from there on. A layer over another cache, another
//! cookie or another key makes a handle of its own.

mod body;
mod exchange;
mod future;
#[expect(
    clippy::module_inception,
    reason = "the layer's file is named after it"
)]
mod layer;
mod service;
mod settings;

pub use self::body::ResponseBody;
pub(crate) use self::exchange::Exchange;
#[cfg(feature = "actix")]
pub(crate) use self::exchange::{FOR_SHARED_CACHES, KEPT_BY_NO_CACHE, forbids_storing};
pub use self::future::ResponseFuture;
pub use self::layer::TokenCacheLayer;
pub use self::service::TokenCacheService;
pub(crate) use self::settings::Refusal;
#[cfg(feature = "actix")]
pub(crate) use self::settings::{Begun, Settings};
