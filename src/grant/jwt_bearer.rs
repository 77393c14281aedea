//! `JwtBearer`.

use super::Client;
use crate::acquire::{Acquire, AcquireFuture, Prior};
use crate::secret::Secret;

/// Asks with an assertion (RFC 7523 §2.1), such as the token of the request that is being served.
///
/// Made per request, around a clone of one [`Client`]. Use it with the
/// [partition](crate::PartitionKey::assertion) of the same assertion, so that no user gets tokens
/// that were asked for with another's; or with one for [work](super#long-running-work-on-behalf-of-a-user) that goes on
/// when the assertion has expired.
#[derive(Clone, Debug)]
pub struct JwtBearer {
    client: Client,
    assertion: Secret,
    on_behalf_of: bool,
}

impl JwtBearer {
    /// A source that asks as this client, with this assertion.
    pub fn new(client: Client, assertion: impl Into<Secret>) -> Self {
        Self {
            client,
            assertion: assertion.into(),
            on_behalf_of: false,
        }
    }

    /// The same as Microsoft's identity platform wants it: `requested_token_use=on_behalf_of`.
    pub fn on_behalf_of(client: Client, assertion: impl Into<Secret>) -> Self {
        Self {
            on_behalf_of: true,
            ..Self::new(client, assertion)
        }
    }
}

impl Acquire for JwtBearer {
    fn acquire(&self, prior: Prior) -> AcquireFuture {
        let grant = "urn:ietf:params:oauth:grant-type:jwt-bearer";
        let mut own = vec![("assertion", self.assertion.expose())];
        if self.on_behalf_of {
            own.push(("requested_token_use", "on_behalf_of"));
        }
        self.client.ask(&prior, grant, &own)
    }
}
