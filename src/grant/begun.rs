//! `Begun`: what a session keeps of a login until the browser comes back.

use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use crate::secret::Secret;

/// How long a user may take to sign in at the provider. A name, a password and a second factor take less; what a
/// session keeps should not outlive them by much.
pub(super) const LIFETIME: Duration = Duration::from_secs(600);

/// A login that has begun. Stored as JSON: members can be added, and none renamed.
#[derive(Serialize, Deserialize)]
pub(super) struct Begun {
    pub(super) issuer: Box<str>,
    pub(super) client_id: Box<str>,
    pub(super) redirect_uri: Box<str>,
    #[serde(serialize_with = "exposed")]
    pub(super) verifier: Secret,
    pub(super) nonce: Box<str>,
    /// In seconds.
    pub(super) max_age: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) acr_values: Vec<Box<str>>,
    pub(super) return_to: String,
}

fn exposed<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}

/// The name of the session value: each state has one, so that two tabs can sign in.
pub(super) fn name(state: &str) -> String {
    format!("login {state}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_release_has_stored_is_read() {
        let stored = include_str!("../../tests/golden/login.v1.json").trim();
        let begun: Begun = serde_json::from_str(stored).unwrap();
        assert_eq!(&*begun.issuer, "https://login.example");
        assert_eq!(begun.verifier.expose(), "v");
        assert_eq!((&*begun.nonce, begun.max_age), ("n", Some(300)));
        assert_eq!(begun.return_to, "/after?a=b");
        assert_eq!(serde_json::to_string(&begun).unwrap(), stored);
    }
}
