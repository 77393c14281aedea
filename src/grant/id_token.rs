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
    let mut user: User = serde_json::from_slice(&part(id_token, 1)?).ok()?;
    // Google has been naming itself with and without.
    if let Some(host) = user.iss.strip_prefix("https://") {
        user.iss = host.into();
    }
    Some(user)
}

/// A part of a signed JWT: 0 is its header, and 1 its claims.
pub(super) fn part(jwt: &Secret, index: usize) -> Option<Wiped<Vec<u8>>> {
    let part = jwt.expose().split('.').nth(index)?;
    let bytes = URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok()?;
    Some(Wiped::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Token;

    /// An id token with these claims.
    fn id_token(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    fn refreshed(before: Option<&str>, after: &str) -> Result<TokenSet, ProviderError> {
        let set = TokenSet::from(Token::new("a")).with_refresh_token("r");
        let before = before.map(Secret::from);
        of_the_same_user(set.with_id_token(after), before.as_ref())
    }

    #[test]
    fn the_same_user_is_accepted_and_another_refused() {
        let ada = id_token(r#"{"iss":"https://login.example","sub":"ada","iat":1}"#);
        let again = id_token(r#"{"sub":"ada","iat":2,"iss":"https://login.example"}"#);
        let google = id_token(r#"{"iss":"accounts.google.com","sub":"ada"}"#);
        let google_again = id_token(r#"{"iss":"https://accounts.google.com","sub":"ada"}"#);
        for (before, after) in [
            (Some(&*ada), &again),
            (Some(&google), &google_again),
            (Some(&google_again), &google),
            (None, &ada),
            // Encrypted: there is nothing to compare.
            (Some("a.b.c.d.e"), &ada),
        ] {
            let set = refreshed(before, after).unwrap();
            assert_eq!(set.id_token().unwrap().expose(), after);
        }
        for other in [
            r#"{"iss":"https://login.example","sub":"bob"}"#,
            r#"{"iss":"https://login.example","sub":"Ada"}"#,
            r#"{"iss":"https://evil.example","sub":"ada"}"#,
            r#"{"iss":"http://login.example","sub":"ada"}"#,
            r#"{"iss":"https://login.example/","sub":"ada"}"#,
        ] {
            let error = refreshed(Some(&ada), &id_token(other)).expect_err(other);
            assert_eq!(error.code(), "id_token_mismatch");
        }
    }

    #[test]
    fn an_id_token_that_names_no_user_is_left_out_and_costs_no_token() {
        let ada = id_token(r#"{"iss":"https://login.example","sub":"ada"}"#);
        let numbers = id_token(r#"{"iss":7,"sub":"bob"}"#);
        let twice = id_token(r#"{"iss":"https://login.example","sub":"ada","sub":"bob"}"#);
        let empty = id_token("{}");
        for odd in ["opaque", "a.b.c", "a.%%%.c", &numbers, &twice, &empty] {
            let set = refreshed(Some(&ada), odd).unwrap();
            assert_eq!(set.id_token(), None, "{odd}");
            assert_eq!(set.refresh_token().unwrap().expose(), "r");
        }
    }
}
