//! The names of a partition's entries: those of tokens, and the cache's own beside them.
//!
//! | entry | of the default client | of the client `google` |
//! |---|---|---|
//! | access token `graph` | `graph` | `␁client␁google␁graph` |
//! | refresh token | `␁refresh_token` | `␁refresh_token␁google` |
//! | id token | `␁id_token` | `␁id_token␁google` |
//! | failure record | `␁setback␁`, and the name of the entry that it concerns | the same |
//! | session value `state` | `␁value␁state` | (the session's) |
//! | link to a user | `␁user␁`, and the user's epoch | (the session's) |
//!
//! `␁` is the character U+0001, which no key and no client can have. The names are stored, and never change.

use std::sync::Arc;

use super::partition::check;
use super::{KeyError, TokenKey};

const MARK: char = '\u{1}';
const CLIENT: &str = "\u{1}client\u{1}";
const REFRESH_TOKEN: &str = "\u{1}refresh_token";
const ID_TOKEN: &str = "\u{1}id_token";
/// The beginning of the names of links to users.
pub(crate) const LINK: &str = "\u{1}user\u{1}";
const FAILURE: &str = "\u{1}setback\u{1}";
const SESSION_VALUE: &str = "\u{1}value\u{1}";

/// The name of a client: a registration of the application at a provider. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientName(Arc<str>);

impl ClientName {
    /// The longest name, in bytes.
    const MAX_LEN: usize = 256;

    pub(crate) fn new(name: &str) -> Result<Self, KeyError> {
        check(name, Self::MAX_LEN)?;
        Ok(Self(name.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What an entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    Token,
    /// A refresh or id token.
    Secret,
    SessionValue,
    FailureRecord,
    Link,
}

impl EntryKind {
    pub(crate) fn of(name: &str) -> Self {
        let is_of_a_client = |rest: &str| rest.is_empty() || rest.starts_with(MARK);
        let is_secret = [REFRESH_TOKEN, ID_TOKEN]
            .iter()
            .any(|secret| name.strip_prefix(secret).is_some_and(is_of_a_client));
        match name.starts_with(MARK) {
            true if is_secret => Self::Secret,
            true if name.starts_with(SESSION_VALUE) => Self::SessionValue,
            true if name.starts_with(FAILURE) => Self::FailureRecord,
            true if name.starts_with(LINK) => Self::Link,
            _ => Self::Token,
        }
    }
}

impl TokenKey {
    /// The entry of this token, which belongs to a client.
    pub(crate) fn of_client(&self, client: &ClientName) -> Self {
        let (client, key): (_, &str) = (client.as_str(), self.as_ref());
        Self::from_canonical(&format!("{CLIENT}{client}{MARK}{key}"))
    }

    /// The client that the token of this entry belongs to, and its key; `None` for the default client.
    fn of_a_client(&self) -> Option<(&str, &str)> {
        let text: &str = self.as_ref();
        text.strip_prefix(CLIENT)?.split_once(MARK)
    }

    pub(crate) fn client(&self) -> Option<&str> {
        self.of_a_client().map(|(client, _)| client)
    }

    /// The key of the token of this entry, as its client knows it.
    pub(crate) fn without_client(&self) -> Self {
        match self.of_a_client() {
            Some((_, key)) => Self::from_canonical(key),
            None => self.clone(),
        }
    }

    /// Whether this is the entry of an access token of this client.
    pub(crate) fn is_token_of(&self, client: Option<&ClientName>) -> bool {
        match client {
            None => self.as_bytes().first() != Some(&1),
            Some(client) => self.client() == Some(client.as_str()),
        }
    }

    /// The entry of the refresh token that obtains this token.
    pub(crate) fn refresh_token(&self) -> Self {
        secret(REFRESH_TOKEN, self.client())
    }

    /// The entry of the id token that comes with this token.
    pub(crate) fn id_token(&self) -> Self {
        secret(ID_TOKEN, self.client())
    }

    /// The entry that records the failures that concern this entry: one token, or all that are acquired with
    /// one refresh token.
    pub(crate) fn failure_record(&self) -> Self {
        let name: &str = self.as_ref();
        Self::from_canonical(&format!("{FAILURE}{name}"))
    }

    /// The entry of the session value of this name.
    pub(crate) fn session_value(&self) -> Self {
        let name: &str = self.as_ref();
        Self::from_canonical(&format!("{SESSION_VALUE}{name}"))
    }

    pub(crate) fn is_session_value(&self) -> bool {
        EntryKind::of(self.as_ref()) == EntryKind::SessionValue
    }

    pub(crate) fn is_refresh_token(&self) -> bool {
        let text: &str = self.as_ref();
        EntryKind::of(text) == EntryKind::Secret && text.starts_with(REFRESH_TOKEN)
    }
}

/// The entry of a client's refresh token.
pub(crate) fn refresh_token_of(client: Option<&ClientName>) -> TokenKey {
    secret(REFRESH_TOKEN, client.map(ClientName::as_str))
}

/// The entry of a client's id token.
pub(crate) fn id_token_of(client: Option<&ClientName>) -> TokenKey {
    secret(ID_TOKEN, client.map(ClientName::as_str))
}

fn secret(name: &str, client: Option<&str>) -> TokenKey {
    match client {
        None => TokenKey::from_canonical(name),
        Some(client) => TokenKey::from_canonical(&format!("{name}{MARK}{client}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other instances, and those of earlier and later versions, look for entries under these names.
    #[test]
    fn stored_names_never_change() {
        let google = ClientName::new("google").expect("a name");
        let plain = TokenKey::new("graph").expect("a key");
        let named = plain.of_client(&google);
        let names = [
            plain.refresh_token(),
            plain.id_token(),
            plain.failure_record(),
            plain.refresh_token().failure_record(),
            named.clone(),
            named.refresh_token(),
            named.id_token(),
            named.failure_record(),
            plain.session_value(),
        ];
        let names = names.each_ref().map(AsRef::as_ref);
        let expected = [
            "\u{1}refresh_token",
            "\u{1}id_token",
            "\u{1}setback\u{1}graph",
            "\u{1}setback\u{1}\u{1}refresh_token",
            "\u{1}client\u{1}google\u{1}graph",
            "\u{1}refresh_token\u{1}google",
            "\u{1}id_token\u{1}google",
            "\u{1}setback\u{1}\u{1}client\u{1}google\u{1}graph",
            "\u{1}value\u{1}graph",
        ];
        assert_eq!(names, expected);
        let kinds = names.map(EntryKind::of);
        use EntryKind::{FailureRecord, Secret, SessionValue, Token};
        assert_eq!(kinds[..4], [Secret, Secret, FailureRecord, FailureRecord]);
        assert_eq!(kinds[4..8], [Token, Secret, Secret, FailureRecord]);
        assert_eq!(kinds[8..], [SessionValue]);
        assert_eq!(EntryKind::of("\u{1}user\u{1}x"), EntryKind::Link);
    }

    #[test]
    fn the_entries_of_one_client_are_those_of_no_other() {
        let clients = ["google", "github"].map(|name| ClientName::new(name).expect("a name"));
        let scoped = TokenKey::scoped("https://api.example", ["a", "b"]).expect("a key");
        for key in [TokenKey::new("api").expect("a key"), scoped] {
            for client in &clients {
                let entry = key.of_client(client);
                assert_eq!(entry.without_client(), key);
                assert_eq!(entry.client(), Some(client.as_str()));
                assert_eq!(entry.refresh_token(), refresh_token_of(Some(client)));
                assert!(entry.refresh_token().is_refresh_token());
                assert!(!entry.is_refresh_token() && !entry.id_token().is_refresh_token());
                let owners = clients
                    .iter()
                    .filter(|other| entry.is_token_of(Some(other)));
                assert_eq!(Vec::from_iter(owners), [client]);
                assert!(!entry.is_token_of(None) && key.is_token_of(None));
                assert!(!entry.refresh_token().is_token_of(Some(client)));
                assert!(!key.session_value().is_token_of(Some(client)));
                assert!(!key.session_value().is_token_of(None));
            }
        }
    }
}
