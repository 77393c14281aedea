//! Reads a token endpoint's answer (RFC 6749 §5.1) as providers really give it.
//!
//! A good token is never lost to what stands beside it: each member is read by itself, from its JSON text. One
//! of an odd type counts as absent, and of a repeated one the last that can be used counts.

mod lifetime;

use std::fmt;
#[cfg(feature = "grants")]
use std::time::Duration;

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

#[cfg(all(feature = "seal", feature = "serde"))]
pub(crate) use self::lifetime::rfc3339;
use crate::secret::Secret;
use crate::time::Timestamp;
use crate::token::{Token, TokenSet};

/// The members that are no extra fields.
const STANDARD: [&str; 7] = [
    "access_token",
    "token_type",
    "expires_in",
    "refresh_in",
    "refresh_token",
    "id_token",
    "scope",
];

/// The most extra fields that are kept: ten times what providers send.
const MAX_EXTRAS: usize = 256;

/// The members of an answer: names, and values as JSON text, which need not be sound.
#[derive(Default)]
pub(crate) struct Members(Vec<(Box<str>, Secret)>);

impl Members {
    pub(crate) fn push(&mut self, name: Box<str>, json: Secret) {
        self.0.push((name, json));
    }

    /// The members that a value is written as; none if that is no map.
    #[cfg(feature = "oauth2")]
    pub(crate) fn of(value: &impl serde::Serialize) -> Self {
        let Ok(serde_json::Value::Object(members)) = serde_json::to_value(value) else {
            return Self::default();
        };
        let json = |(name, value): (String, _)| Some((name.into(), Secret::json_of(value).ok()?));
        Self(members.into_iter().filter_map(json).collect())
    }

    /// The JSON texts of all members of this name, the last one first.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let members = self.0.iter().rev();
        let members = members.filter(move |(own, _)| **own == *name);
        members.map(|(_, json)| json.expose())
    }

    /// The text of the last member of this name that is a string, and not blank.
    pub(crate) fn text(&self, name: &str) -> Option<Secret> {
        self.all(name).find_map(text)
    }

    /// A duration in seconds, as a number or a string; at most ten years.
    #[cfg(feature = "grants")]
    pub(crate) fn seconds(&self, name: &str) -> Option<Duration> {
        self.all(name).find_map(lifetime::seconds)
    }

    /// The tokens, if there is an access token.
    pub(crate) fn tokens(&self, now: Timestamp) -> Option<TokenSet> {
        let mut access = Token::new(self.text("access_token")?.expose());
        if let Some(token_type) = self.text("token_type") {
            access = access.with_token_type(token_type.expose());
        }
        if let Some(scope) = self.all("scope").find_map(scope) {
            access = access.with_scope(scope);
        }
        if let Some(end) = lifetime::end(self, now) {
            access = access.with_expires_at(end).with_issued_at(now);
        }
        if let Some(time) = lifetime::refresh(self, now) {
            access = access.with_refresh_at(time);
        }
        let refresh_token = self.text("refresh_token");
        let refresh_token_end = lifetime::refresh_token_end(self, now);
        let is_extra = |(name, json): &&(Box<str>, Secret)| {
            let sound = serde_json::from_str::<IgnoredAny>(json.expose()).is_ok();
            sound && !STANDARD.contains(&&**name)
        };
        let extras = self.0.iter().filter(is_extra).take(MAX_EXTRAS);
        Some(TokenSet {
            access: access.with_extras(extras.cloned().collect()),
            refresh_token_expires_at: refresh_token_end.filter(|_| refresh_token.is_some()),
            refresh_token,
            id_token: self.text("id_token"),
        })
    }
}

/// A JSON string that is not blank.
fn text(json: &str) -> Option<Secret> {
    let text: Secret = serde_json::from_str(json).ok()?;
    (!text.expose().trim().is_empty()).then_some(text)
}

/// A scope: names separated by spaces, or in an array.
fn scope(json: &str) -> Option<Box<str>> {
    if let Some(names) = text(json) {
        return Some(names.expose().into());
    }
    let names: Vec<serde_json::Value> = serde_json::from_str(json).ok()?;
    let names: Vec<&str> = names.iter().filter_map(|name| name.as_str()).collect();
    (!names.is_empty()).then(|| names.join(" ").into())
}

/// From any format that has maps; [`TokenSet`] says what is read.
impl<'de> Deserialize<'de> for TokenSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let members = deserializer.deserialize_map(Collect)?;
        let tokens = members.tokens(Timestamp::now());
        tokens.ok_or_else(|| D::Error::missing_field("access_token"))
    }
}

struct Collect;

impl<'de> Visitor<'de> for Collect {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer of a token endpoint")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = Members::default();
        // A `Value` reads numbers also where another crate has turned `arbitrary_precision` on.
        while let Some((name, value)) = map.next_entry::<Box<str>, serde_json::Value>()? {
            members.push(name, Secret::json_of(value).map_err(A::Error::custom)?);
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> TokenSet {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn unknown_members_are_kept_and_readable() {
        let set = parse(r#"{"access_token":"a","scope":"x y","tenant":{"id":7}}"#);
        let tenant: serde_json::Value = set.access().extra("tenant").unwrap();
        assert_eq!(tenant["id"], 7);
        assert_eq!(set.access().scopes().collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(set.access().extra::<String>("absent"), None);
    }

    #[test]
    fn an_odd_or_repeated_member_costs_no_token() {
        let set = parse(
            r#"{"access_token":"a","access_token":7,"refresh_token":"r","refresh_token":"",
                "id_token":[],"token_type":{},"scope":["x",1,"y"],"expires_in":60,"expires_in":true}"#,
        );
        assert_eq!(set.access().access_token(), "a");
        assert_eq!(set.refresh_token().unwrap().expose(), "r");
        assert_eq!(set.id_token(), None);
        assert_eq!(set.access().token_type(), None);
        assert_eq!(set.access().scope(), Some("x y"));
        let left = set.access().expires_at().unwrap().since(Timestamp::now());
        assert!((50..=60).contains(&left.as_secs()));
    }

    #[test]
    fn without_an_access_token_there_is_no_answer() {
        for json in [
            "{}",
            r#"{"access_token":""}"#,
            r#"{"access_token":null}"#,
            "[]",
            "7",
        ] {
            assert!(serde_json::from_str::<TokenSet>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn an_answer_can_be_a_part_of_another_type() {
        #[derive(Deserialize)]
        struct Whole {
            ok: bool,
            #[serde(flatten)]
            tokens: TokenSet,
        }
        let whole: Whole =
            serde_json::from_str(r#"{"ok":true,"access_token":"a","expires_in":60}"#).unwrap();
        assert!(whole.ok && whole.tokens.access().expires_at().is_some());
        let value: serde_json::Value = serde_json::json!({"access_token": "a", "expires_in": 60});
        let set: TokenSet = serde_json::from_value(value).unwrap();
        assert!(set.access().expires_at().is_some());
    }

    #[test]
    fn the_extra_fields_of_an_answer_are_bounded() {
        let many: String = (0..1000).map(|n| format!(r#""m{n}":{n},"#)).collect();
        let set = parse(&format!(
            r#"{{{many}"access_token":"a","refresh_token":"r"}}"#
        ));
        assert_eq!(set.access().extras().len(), MAX_EXTRAS);
        assert_eq!(set.refresh_token().unwrap().expose(), "r");
    }
}
