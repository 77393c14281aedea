//! `RefreshToken`.

use std::fmt;

use super::Client;
use super::request::GrantType;
use crate::acquire::{Acquire, AcquireFuture, Prior, ProviderError};

/// Redeems the partition's refresh token (RFC 6749 §6).
///
/// A user who has none has to sign in: [`ProviderError`] with the code `login_required`. When L2
/// could not say whether there is one, the error is one that may pass.
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
        let Some(spent) = prior.refresh_token() else {
            let error = match prior.is_known() {
                true => ProviderError::refused("login_required"),
                false => ProviderError::unreachable(Unknown),
            };
            return Box::pin(async { Err(error.into()) });
        };
        self.0.ask(&prior, GrantType::RefreshToken(spent), &[])
    }
}

/// L2 could not be asked for the refresh token.
#[derive(Debug)]
struct Unknown;

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the token store could not be asked for the refresh token")
    }
}

impl std::error::Error for Unknown {}
