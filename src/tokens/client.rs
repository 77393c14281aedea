//! The tokens of one of the application's clients.

use std::borrow::Cow;

use super::Tokens;
use crate::error::Error;
use crate::key::{ClientName, TokenKey};

impl Tokens {
    /// The tokens of this *client*: a registration of the application at a provider (RFC 6749 §2). An
    /// application that uses several providers gives each a name.
    ///
    /// A client has tokens, a refresh token and an id token of its own: none is seen by, or sent to the
    /// provider of, another client. What fails at one provider keeps no request from asking another. Without
    /// a name a handle is that of the default client. The partition is one: [`commit`](Self::commit),
    /// [`move_to`](Self::move_to), [`link_user`](Self::link_user) and [`sign_out`](Self::sign_out) concern
    /// all clients.
    ///
    /// ```
    /// # use tower_token_cache::{MemoryStore, PartitionKey, Token, TokenCache, TokenSet};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cache = TokenCache::builder(MemoryStore::new()).build()?;
    /// # let tokens = cache.tokens(PartitionKey::user("ada")?);
    /// # let answer = TokenSet::from(Token::new("a")).with_refresh_token("r");
    /// let google = tokens.client("google")?;
    /// google.insert("calendar", answer).await?;
    /// assert!(google.refresh_token().await?.is_hit());
    /// assert!(!tokens.client("github")?.refresh_token().await?.is_hit());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidKey`] for a name that is empty, longer than 256 bytes, or has control characters.
    pub fn client(&self, name: impl AsRef<str>) -> Result<Self, Error> {
        Ok(self.of_client(ClientName::new(name.as_ref())?))
    }

    pub(crate) fn of_client(&self, client: ClientName) -> Self {
        Self {
            handle: self.handle.clone(),
            client: Some(client),
        }
    }

    pub(crate) fn of_default_client(self) -> Self {
        Self {
            client: None,
            ..self
        }
    }

    pub(super) fn client_name(&self) -> Option<&ClientName> {
        self.client.as_ref()
    }

    /// The entry of the token that this client knows under `key`.
    pub(crate) fn entry<'a>(&self, key: &'a TokenKey) -> Cow<'a, TokenKey> {
        match self.client_name() {
            None => Cow::Borrowed(key),
            Some(client) => Cow::Owned(key.of_client(client)),
        }
    }
}
