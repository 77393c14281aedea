//! `SessionInfo`: what a user is shown of a session.

use crate::key::PartitionKey;
use crate::time::Timestamp;

/// One session of a user, as [`TokenCache::sessions`](crate::TokenCache::sessions) tells of it.
///
/// With feature `serde` it is `Serialize`, without the partition:
///
/// ```json
/// { "created": 1796000000000, "last_seen": 1796000060000, "label": "Firefox on Linux" }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SessionInfo {
    /// The session: [`TokenCache::tokens`](crate::TokenCache::tokens) with it, and
    /// [`sign_out`](crate::Tokens::sign_out), ends this one alone. Its id is as good as a password: do not show it.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub partition: PartitionKey,
    /// When it was linked to the user, which a sign-in does. It stays the same when the session is moved.
    pub created: Timestamp,
    /// When it was last used: up to a tenth of [`Lifetimes::sliding`](crate::Lifetimes::sliding) earlier than it really
    /// was, for so seldom is use noted in the store; and near the end of its lifetime earlier than that. `None` without
    /// a sliding lifetime: then use leaves no trace in the store.
    pub last_seen: Option<Timestamp>,
    /// What the [sign-in](crate::session::SignIn::label) called it.
    pub label: Option<String>,
}
