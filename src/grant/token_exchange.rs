//! `TokenExchange`.

use super::Client;
use crate::acquire::{Acquire, AcquireFuture, Prior};
use crate::secret::Secret;

/// Exchanges a token for another one (RFC 8693).
///
/// Made per request, around a clone of one [`Client`]. Use it with the
/// [partition](crate::PartitionKey::assertion) of the subject token.
///
/// ```
/// use tower_token_cache::grant::{Client, TokenExchange};
///
/// let client = Client::new("https://login.example/token", "app")?.secret("hush");
/// let source = TokenExchange::new(client, "eyJ…", TokenExchange::ACCESS_TOKEN)
///     .requested_token_type(TokenExchange::ACCESS_TOKEN)
///     .audience("orders");
/// # let _ = source;
/// # Ok::<(), tower_token_cache::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct TokenExchange {
    client: Client,
    subject: (Secret, Box<str>),
    actor: Option<(Secret, Box<str>)>,
    requested_type: Option<Box<str>>,
    audiences: Vec<Box<str>>,
}

impl TokenExchange {
    /// The type of an OAuth 2.0 access token (RFC 8693 §3).
    pub const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
    /// The type of an OpenID Connect id token.
    pub const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
    /// The type of a JWT of any meaning.
    pub const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

    /// A source that asks as this client, with the token of whom it asks for, and its type.
    pub fn new(
        client: Client,
        subject_token: impl Into<Secret>,
        subject_token_type: impl Into<Box<str>>,
    ) -> Self {
        Self {
            client,
            subject: (subject_token.into(), subject_token_type.into()),
            actor: None,
            requested_type: None,
            audiences: Vec::new(),
        }
    }

    /// The type that the new token has to have. Defaults to none: the provider decides.
    pub fn requested_token_type(mut self, token_type: impl Into<Box<str>>) -> Self {
        self.requested_type = Some(token_type.into());
        self
    }

    /// A service for which the new token is meant, by the name that the provider knows; may be
    /// called again for others. Defaults to none. For a URI there is [`Client::resource`].
    pub fn audience(mut self, audience: impl Into<Box<str>>) -> Self {
        self.audiences.push(audience.into());
        self
    }

    /// The token of who will act for the subject, and its type. Defaults to none.
    pub fn actor(mut self, token: impl Into<Secret>, token_type: impl Into<Box<str>>) -> Self {
        self.actor = Some((token.into(), token_type.into()));
        self
    }
}

impl Acquire for TokenExchange {
    fn acquire(&self, prior: Prior) -> AcquireFuture {
        let grant = "urn:ietf:params:oauth:grant-type:token-exchange";
        let (subject, subject_type) = &self.subject;
        let mut own = vec![
            ("subject_token", subject.expose()),
            ("subject_token_type", subject_type),
        ];
        if let Some((actor, actor_type)) = &self.actor {
            own.push(("actor_token", actor.expose()));
            own.push(("actor_token_type", actor_type));
        }
        if let Some(requested) = &self.requested_type {
            own.push(("requested_token_type", requested));
        }
        own.extend(self.audiences.iter().map(|name| ("audience", &**name)));
        self.client.ask(&prior, grant, &own)
    }
}
