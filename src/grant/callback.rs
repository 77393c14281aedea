//! `Callback`: what a browser brings back from the provider.

use std::fmt;

use serde::Deserialize;

use crate::secret::Secret;

/// The query of the request that a browser comes back from the provider with (RFC 6749 §4.1.2).
///
/// In axum it is an argument of the handler as `Query<Callback>`, in actix-web as `web::Query<Callback>`: a query
/// with a parameter twice is a 400. Other parameters are passed over.
#[derive(Clone, Deserialize)]
pub struct Callback {
    pub(super) code: Option<Secret>,
    pub(super) state: Option<Box<str>>,
    pub(super) iss: Option<Box<str>>,
    pub(super) error: Option<Box<str>>,
}

/// Nothing of it is shown.
impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback([redacted])")
    }
}
