//! Who is signed in.

use super::Claims;
use crate::error::Error;
use crate::lookup::Lookup;
use crate::tokens::Tokens;

impl Tokens {
    /// Who is signed in: the claims of this [client](Self::client)'s id token.
    ///
    /// A login that ends by [`AuthorizationCode::end`](super::AuthorizationCode::end) has checked them, and a refresh does not
    /// change whom they are about. They are read as they are, also after the id token's own expiry, which is about the login:
    /// the session lives as long as its [lifetime](crate::Lifetimes) says. An id token that the application has inserted
    /// itself is for it to check.
    ///
    /// ```
    /// # use tower_token_cache::{Error, TokenCache, Tokens};
    /// async fn sign_out_everywhere(cache: TokenCache, tokens: Tokens) -> Result<(), Error> {
    ///     let claims = tokens.claims().await?;
    ///     let _ = cache.sign_out_user(claims.subject()).await?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::NoPartition`] for an anonymous request and [`Error::SignedOut`] for a session that has ended, or has no id
    /// token that can be opened: both are a 401. [`Error::Unavailable`] where the store cannot be asked. [`Error::InvalidValue`]
    /// for an id token whose claims cannot be read, as it is encrypted.
    pub async fn claims(&self) -> Result<Claims, Error> {
        match self.id_token().await? {
            Lookup::Hit(id_token) => Claims::of(&id_token).ok_or(Error::InvalidValue),
            Lookup::Absent | Lookup::Unopenable => Err(Error::SignedOut),
            Lookup::Unavailable => Err(Error::unavailable()),
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use crate::error::Error;
    use crate::key::PartitionKey;
    use crate::store::MemoryStore;
    use crate::token::{Token, TokenSet};
    use crate::{TokenCache, Tokens};

    async fn insert(tokens: &Tokens, claims: &str) {
        let id_token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        let set = TokenSet::from(Token::new("a")).with_id_token(id_token);
        tokens.insert("api", set).await.unwrap();
    }

    #[tokio::test]
    async fn the_user_is_known_from_the_sign_in_to_the_sign_out() {
        let cache = TokenCache::builder(MemoryStore::new()).build().unwrap();
        let tokens = cache.tokens(PartitionKey::session("s").unwrap());
        assert!(matches!(tokens.claims().await, Err(Error::SignedOut)));
        // Long after the expiry of the id token.
        insert(&tokens, r#"{"iss": "i", "sub": "ada", "exp": 1}"#).await;
        let claims = tokens.claims().await.unwrap();
        assert_eq!((claims.issuer(), claims.subject()), ("i", "ada"));
        let github = tokens.client("github").unwrap();
        assert!(matches!(github.claims().await, Err(Error::SignedOut)));
        insert(&tokens, "of no form that is known").await;
        assert!(matches!(tokens.claims().await, Err(Error::InvalidValue)));
        let _ = tokens.sign_out().await.unwrap();
        assert!(matches!(tokens.claims().await, Err(Error::SignedOut)));
    }
}
