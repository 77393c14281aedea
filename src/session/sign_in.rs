//! `SignIn`: what a new session begins with.

use crate::error::Error;
use crate::key::{KeyError, PartitionKey, TokenKey};
use crate::token::TokenSet;

/// The longest label, in bytes.
const MAX_LABEL: usize = 256;

/// What a session begins with: [`Tokens::sign_in`](crate::Tokens::sign_in) takes it.
#[derive(Clone, Debug)]
#[must_use = "no user is signed in until `Tokens::sign_in` has this"]
pub struct SignIn {
    pub(crate) key: Result<TokenKey, Error>,
    pub(crate) tokens: TokenSet,
    pub(crate) links: Vec<Result<PartitionKey, Error>>,
    pub(crate) label: Option<Box<str>>,
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
            links: Vec::new(),
            label: None,
        }
    }

    /// Links the session to this user, as [`Tokens::link_user`](crate::Tokens::link_user) does. A session can be
    /// linked to several.
    pub fn user(self, user: impl AsRef<str>) -> Self {
        self.link(PartitionKey::epoch_of(user.as_ref()))
    }

    /// Links the session to the session at the provider: the claims `iss` and `sid` of the id token. A
    /// [back-channel logout](crate::TokenCache::sign_out_provider_session) ends it then. Two issuers may have one `sid`:
    /// these are two sessions.
    pub fn provider_session(self, iss: impl AsRef<str>, sid: impl AsRef<str>) -> Self {
        let epoch = PartitionKey::epoch_of_provider_session(iss.as_ref(), sid.as_ref());
        self.link(epoch)
    }

    /// Links the session to the user as the provider knows them: the claims `iss` and `sub` of the id token. A
    /// [back-channel logout](crate::TokenCache::sign_out_provider_user) may name the user alone, and then means all
    /// of the user's sessions. It is another link than [`user`](Self::user), whose name is the application's own.
    pub fn provider_user(self, iss: impl AsRef<str>, sub: impl AsRef<str>) -> Self {
        let epoch = PartitionKey::epoch_of_provider_user(iss.as_ref(), sub.as_ref());
        self.link(epoch)
    }

    /// What the user knows the session by, such as the browser and its system, for
    /// [`TokenCache::sessions`](crate::TokenCache::sessions) of the users that are linked. Control characters are left
    /// out, and 256 bytes are kept: a `User-Agent` header can hold anything, and must not fail a login. Defaults to
    /// none. A session in cookies has none.
    pub fn label(mut self, label: impl AsRef<str>) -> Self {
        let mut text = String::new();
        for character in label.as_ref().chars().filter(|it| !it.is_control()) {
            if text.len() + character.len_utf8() > MAX_LABEL {
                break;
            }
            text.push(character);
        }
        self.label = (!text.is_empty()).then(|| text.into());
        self
    }

    fn link(mut self, epoch: Result<PartitionKey, KeyError>) -> Self {
        self.links.push(epoch.map_err(Error::from));
        self
    }
}
