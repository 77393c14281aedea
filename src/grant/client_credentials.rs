//! `ClientCredentials`.

use super::Client;
use crate::acquire::{Acquire, AcquireFuture, Prior};

/// Asks for tokens of the application itself (RFC 6749 §4.4), for a
/// [partition of its own](crate::PartitionKey::application).
#[derive(Clone, Debug)]
pub struct ClientCredentials(Client);

impl ClientCredentials {
    /// A source that asks as this client.
    pub fn new(client: Client) -> Self {
        Self(client)
    }
}

impl Acquire for ClientCredentials {
    fn acquire(&self, prior: Prior) -> AcquireFuture {
        self.0.ask(&prior, "client_credentials", &[])
    }
}
