//! The error of an answer, wherever the provider has put it.

use serde_json::Value;

use crate::acquire::{ProviderError, codes, is_code};
use crate::answer::Members;

/// Where error codes are as they are, besides the `error` of RFC 6749 §5.2: Google and Entra ID refine it,
/// Instagram, Okta and others have their own.
const CODES: [&str; 5] = [
    "error",
    "suberror",
    "error_subtype",
    "error_type",
    "errorCode",
];

/// Where a code may be, or a sentence that stands for one. They are compared with the table, and never shown if
/// it does not have them.
const SENTENCES: [&str; 7] = [
    "code",
    "category",
    "status",
    "message",
    "error_message",
    "reason",
    "error_description",
];

/// What an answer refuses with: the first code that the table knows, else the first that is one. With the claims that
/// it demands.
pub(super) fn of(members: &Members) -> Option<ProviderError> {
    let said = values(members, &SENTENCES).filter_map(|value| Some(as_code(value.as_str()?)));
    let error = among(codes_in(members), said)?;
    Some(match members.text("claims") {
        Some(claims) => error.with_claims(claims.expose()),
        None => error,
    })
}

/// The same of an answer that need not be a refusal: what it says in a sentence may be what has been done.
pub(super) fn by_code(members: &Members) -> Option<ProviderError> {
    among(codes_in(members), std::iter::empty())
}

fn among(found: Vec<String>, said: impl Iterator<Item = String>) -> Option<ProviderError> {
    let is_known = |code: &String| codes::kind_of(code).is_some();
    // Entra ID says so beside `invalid_grant`.
    let asks_for_proof = found.iter().any(|code| codes::asks_for_proof(code));
    let known = found.iter().cloned().chain(said).find(is_known);
    let error = ProviderError::refused(known.or_else(|| found.into_iter().next())?);
    Some(match asks_for_proof {
        true => error.asking_for_proof(),
        false => error,
    })
}

fn codes_in(members: &Members) -> Vec<String> {
    let values = |names| values(members, names);
    let mut found: Vec<String> = values(&CODES).filter_map(|value| code_in(&value)).collect();
    found.extend(values(&["error_codes"]).filter_map(|value| numbered("AADSTS", value.get(0)?)));
    found.extend(values(&["errcode"]).filter_map(|value| numbered("errcode.", &value)));
    found.extend(values(&["errors"]).filter_map(|value| code_in(value.get(0)?)));
    found.retain(|code| is_code(code));
    found
}

/// The members of these names that are sound.
fn values<'a>(
    members: &'a Members,
    names: &'static [&str],
) -> impl Iterator<Item = Value> + use<'a> {
    let all = names.iter().filter_map(|name| members.all(name).next());
    all.filter_map(|json| serde_json::from_str::<Value>(json).ok())
}

/// The code that a value is or has in it: Facebook has numbers of a type, Google's APIs a status.
fn code_in(value: &Value) -> Option<String> {
    let text = |name| value.get(name)?.as_str();
    match (value, text("type"), value.get("code")) {
        (Value::String(code), ..) => Some(code.clone()),
        (_, Some(kind), Some(code @ Value::Number(_))) => numbered(&format!("{kind}."), code),
        _ => {
            let names = ["code", "errorType", "status", "type", "error"];
            names.into_iter().find_map(text).map(Into::into)
        }
    }
}

/// A number, or one in a string, of this kind. Zero is no error.
fn numbered(kind: &str, value: &Value) -> Option<String> {
    let number = match value {
        Value::String(text) => text.parse().ok()?,
        _ => value.as_i64()?,
    };
    (number != 0).then(|| format!("{kind}{number}"))
}

/// "Invalid refresh token!" as `invalid_refresh_token`.
fn as_code(sentence: &str) -> String {
    let words = sentence.split(|char: char| !char.is_ascii_alphanumeric());
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    words.join("_").to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::body::members;

    #[test]
    fn what_is_said_of_the_user_beside_the_code_counts() {
        for (body, asks) in [
            (r#"{"error":"consent_required"}"#, true),
            (
                r#"{"error":"invalid_grant","suberror":"consent_required"}"#,
                true,
            ),
            (r#"{"error":"invalid_grant","error_codes":[50076]}"#, true),
            (r#"{"error":"invalid_grant","error_codes":[700082]}"#, false),
            (r#"{"error":"invalid_grant"}"#, false),
        ] {
            let refused = of(&members(&mut body.to_owned().into_bytes())).unwrap();
            assert_eq!(refused.meaning().asks_for_proof, asks, "{body}");
        }
    }
}
