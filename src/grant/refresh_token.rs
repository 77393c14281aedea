//! `RefreshToken`.

use super::Client;
use super::request::GrantType;
use crate::acquire::{Acquire, AcquireFuture, Prior};

/// Redeems the partition's refresh token (RFC 6749 §6).
///
/// A user who has none has to sign in, as [`Prior::require_refresh_token`] says it.
#[derive(Clone, Debug)]
pub struct RefreshToken(Client);

impl RefreshToken {
    /// A source that asks as this client.
    pub fn new(client: Client) -> Self {
        Self(client)
    }
}

impl Acquire for RefreshToken {
    fn acquire(&self, prior: Prior) -> AcquireFuture {
        let spent = match prior.require_refresh_token() {
            Ok(spent) => spent,
            Err(error) => return Box::pin(async { Err(error.into()) }),
        };
        self.0.ask(&prior, GrantType::RefreshToken(spent), &[])
    }
}
