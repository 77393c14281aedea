//! A refreshed id token is the same user's (OpenID Connect Core §12.2).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::acquire::{ProviderError, codes};
use crate::secret::Secret;
use crate::token::TokenSet;
use crate::wipe::Wiped;

/// Who an id token is about. Nothing else of it is read; the signature is its first reader's to check.
#[derive(Deserialize, PartialEq)]
struct User {
    iss: Box<str>,
    sub: Box<str>,
}

/// These tokens, if they are for the user of the id token `before`.
///
/// An id token of which that cannot be said is left out, and the one before stays. Where the one before cannot
/// be read itself (it may be encrypted), there is nothing to compare.
///
/// # Errors
/// The code `id_token_mismatch`, which says that the user has to sign in again.
pub(super) fn of_the_same_user(
    mut set: TokenSet,
    before: Option<&Secret>,
) -> Result<TokenSet, ProviderError> {
    let (Some(user), Some(id_token)) = (before.and_then(user), set.id_token()) else {
        return Ok(set);
    };
    match self::user(id_token) {
        Some(refreshed) if refreshed == user => Ok(set),
        Some(_) => Err(ProviderError::refused(codes::ID_TOKEN_MISMATCH)),
        None => {
            set.id_token = None;
            Ok(set)
        }
    }
}

fn user(id_token: &Secret) -> Option<User> {
    let payload = id_token.expose().split('.').nth(1)?;
    let payload = payload.trim_end_matches('=');
    let json = Wiped::new(URL_SAFE_NO_PAD.decode(payload).ok()?);
    let mut user: User = serde_json::from_slice(&json).ok()?;
    // Google has been naming itself with and without.
    if let Some(host) = user.iss.strip_prefix("https://") {
        user.iss = host.into();
    }
    Some(user)
}
