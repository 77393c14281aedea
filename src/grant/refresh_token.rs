//! `RefreshToken`.

use super::Client;
use super::id_token::of_the_same_user;
use crate::acquire::{Acquire, AcquireFuture, Prior};

/// Redeems the client's refresh token (RFC 6749 §6).
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
        if let Err(wrong) = self.0.check(&prior) {
            return Box::pin(async { Err(wrong.into()) });
        }
        let spent = match prior.require_refresh_token() {
            Ok(spent) => spent,
            Err(error) => return Box::pin(async { Err(error.into()) }),
        };
        let own = [("refresh_token", spent.expose())];
        let answer = self.0.ask(&prior, "refresh_token", &own);
        let id_token = prior.id_token().cloned();
        Box::pin(async move { Ok(of_the_same_user(answer.await?, id_token.as_ref())?) })
    }
}
