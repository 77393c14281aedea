//! Answers of the `oauth2` and `openidconnect` crates as [`TokenSet`]s.

use std::collections::BTreeMap;

use oauth2::{ExtraTokenFields, StandardTokenResponse, TokenResponse, TokenType};
use serde::Serialize;

use crate::secret::Secret;
use crate::token::{Token, TokenSet};

/// Takes over a token endpoint's answer. `expires_in` counts from now.
///
/// The extra fields are kept; `id_token` among them becomes the set's id token, so the responses of
/// `openidconnect` work too.
///
/// ```
/// use oauth2::basic::BasicTokenResponse;
/// use tower_token_cache::TokenSet;
///
/// let json = r#"{"access_token":"a","token_type":"bearer","expires_in":60,"scope":"x y"}"#;
/// let response: BasicTokenResponse = serde_json::from_str(json)?;
/// let set = TokenSet::from(&response);
/// assert_eq!(set.access().scopes().collect::<Vec<_>>(), ["x", "y"]);
/// # Ok::<(), serde_json::Error>(())
/// ```
impl<EF, TT> From<&StandardTokenResponse<EF, TT>> for TokenSet
where
    EF: ExtraTokenFields,
    TT: TokenType,
{
    fn from(response: &StandardTokenResponse<EF, TT>) -> Self {
        let mut token = Token::new(response.access_token().secret().as_str());
        if let Some(token_type) = text(response.token_type()) {
            token = token.with_token_type(token_type);
        }
        if let Some(lifetime) = response.expires_in() {
            token = token.with_expires_in(lifetime);
        }
        if let Some(scopes) = response.scopes() {
            let names: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
            token = token.with_scope(names.join(" "));
        }
        let mut extra = extras(response.extra_fields());
        let id_token = extra.remove("id_token");
        let id_token = id_token.and_then(|json| serde_json::from_str::<Secret>(json.expose()).ok());
        Self {
            access: token.with_extras(extra),
            refresh_token: response
                .refresh_token()
                .map(|token| token.secret().as_str().into()),
            id_token,
        }
    }
}

/// A unit-like value as the text that it is written as.
fn text(value: &impl Serialize) -> Option<Box<str>> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => Some(text.into()),
        _ => None,
    }
}

/// The members that a value is written as: name and JSON text.
fn extras(value: &impl Serialize) -> BTreeMap<Box<str>, Secret> {
    let Ok(serde_json::Value::Object(members)) = serde_json::to_value(value) else {
        return BTreeMap::new();
    };
    let present = members.into_iter().filter(|(_, value)| !value.is_null());
    present
        .map(|(name, value)| (name.into(), value.to_string().into()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use oauth2::basic::BasicTokenType;
    use serde::Deserialize;

    /// As `openidconnect` has it.
    #[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
    struct IdTokenFields {
        id_token: Option<String>,
        tenant: Option<String>,
    }
    impl ExtraTokenFields for IdTokenFields {}

    #[test]
    fn a_response_with_an_id_token_is_taken_over_whole() {
        let json = r#"{"access_token":"a","token_type":"bearer","expires_in":60,
            "refresh_token":"r","scope":"x y","id_token":"i.d.t","tenant":"t"}"#;
        let response: StandardTokenResponse<IdTokenFields, BasicTokenType> =
            serde_json::from_str(json).unwrap();
        let set = TokenSet::from(&response);
        assert_eq!(set.access().access_token(), "a");
        assert_eq!(set.access().token_type(), Some("bearer"));
        assert!(set.access().expires_at().is_some());
        assert_eq!(set.refresh_token().unwrap().expose(), "r");
        assert_eq!(set.id_token().unwrap().expose(), "i.d.t");
        assert_eq!(set.access().extra::<String>("tenant").as_deref(), Some("t"));
        assert_eq!(set.access().extra::<String>("id_token"), None);
    }
}
