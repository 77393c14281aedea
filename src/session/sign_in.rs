//! `SignIn`: what a new session begins with.

use crate::error::Error;
use crate::key::{PartitionKey, TokenKey};
use crate::token::TokenSet;

/// What a session begins with: [`Tokens::sign_in`](crate::Tokens::sign_in) takes it.
#[derive(Clone, Debug)]
#[must_use = "no user is signed in until `Tokens::sign_in` has this"]
pub struct SignIn {
    pub(crate) key: Result<TokenKey, Error>,
    pub(crate) tokens: TokenSet,
    pub(crate) users: Vec<Result<PartitionKey, Error>>,
}

impl SignIn {
    /// A token, or a token endpoint's whole answer, under this key: a name, or a [`TokenKey`].
    pub fn new<K>(key: K, tokens: impl Into<TokenSet>) -> Self
    where
        K: TryInto<TokenKey>,
        Error: From<K::Error>,
    {
        Self {
            key: key.try_into().map_err(Error::from),
            tokens: tokens.into(),
            users: Vec::new(),
        }
    }

    /// Links the session to this user, as [`Tokens::link_user`](crate::Tokens::link_user) does. A session can be
    /// linked to several: to the user, and to the session at the provider, say as `sid` and its value, so that a
    /// back-channel logout ends it.
    pub fn user(mut self, user: impl AsRef<str>) -> Self {
        let user = PartitionKey::epoch_of(user.as_ref());
        self.users.push(user.map_err(Error::from));
        self
    }
}
