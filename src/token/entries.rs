//! The entries of a partition that a token endpoint's answer changes.

use super::TokenSet;
use crate::codec::Value;
use crate::key::TokenKey;

impl TokenSet {
    /// The entries that this answer changes.
    pub(crate) fn into_changes(self, key: TokenKey) -> impl Iterator<Item = (TokenKey, Value)> {
        let refresh_token = self.refresh_token.map(|token| {
            let value = Value::secret(token, self.refresh_token_expires_at);
            (key.refresh_token(), value)
        });
        let id_token = self.id_token;
        let id_token = id_token.map(|token| (key.id_token(), Value::Secret(token)));
        [
            Some((key, Value::Token(self.access))),
            refresh_token,
            id_token,
        ]
        .into_iter()
        .flatten()
    }
}
