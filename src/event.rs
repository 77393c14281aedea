//! `Event`: what happens to sessions, for audit logs and alarms.

use std::fmt;
use std::sync::Arc;

use crate::time::Timestamp;

/// Something that has happened to a session: what [`Builder::on_event`](crate::Builder::on_event) is called with.
/// It holds no token, no key and no session id.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// What has happened.
    pub kind: EventKind,
    /// Which partition it has happened to: what
    /// [`TokenCache::partition_id`](crate::TokenCache::partition_id) gives, [encoded](crate::store::PartitionId::encoded).
    /// `None` where it is several, or not known before L2 has answered for the first time.
    pub partition: Option<Box<str>>,
    /// When.
    pub at: Timestamp,
}

/// What has happened to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// A user has [signed in](crate::Tokens::sign_in).
    SignedIn,
    /// A session, or those of a user, or all, were signed out through this instance. It is in force here, and L2 may
    /// not know of it yet.
    SignedOut(SignedOutBy),
    /// A session that this instance had in memory was used, and L2 no longer has it. It was not signed out. Each
    /// instance tells of it for itself; sessions that are not used again end in silence.
    SessionEnded(SessionEnd),
    /// The provider has refused the refresh token, or wants proof or consent of the user beside it: the user has to sign
    /// in again.
    /// [`Builder::refused_refresh_token`](crate::Builder::refused_refresh_token) says what becomes of the session.
    ReauthenticationRequired {
        /// The [client](crate::Tokens::client) whose refresh token it was; `None` for the default one.
        client: Option<Box<str>>,
    },
    /// Acquired tokens were dropped, because others had replaced what they were to replace.
    Superseded,
}

/// Who, or what, has signed a session out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SignedOutBy {
    /// [`Tokens::sign_out`](crate::Tokens::sign_out).
    Session,
    /// A [sign-in](crate::Tokens::sign_in) in its place. There may have been no more in it than the state of a login.
    SignIn,
    /// [`TokenCache::sign_out_user`](crate::TokenCache::sign_out_user).
    User,
    /// A logout by the provider: [`sign_out_provider_session`](crate::TokenCache::sign_out_provider_session) or
    /// [`sign_out_provider_user`](crate::TokenCache::sign_out_provider_user).
    Provider,
    /// A refresh token that the provider has refused, where the
    /// [settings](crate::Builder::refused_refresh_token) say so.
    RefusedRefreshToken,
    /// [`TokenCache::sign_out_all`](crate::TokenCache::sign_out_all).
    All,
}

/// Why a session has ended that was not signed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SessionEnd {
    /// It was not used for too long ([`Lifetimes::sliding`](crate::Lifetimes::sliding)).
    Idle,
    /// It was too old ([`Lifetimes::after_write`](crate::Lifetimes::after_write) and
    /// [`absolute`](crate::Lifetimes::absolute)).
    Lifetime,
    /// L2 has evicted it, or it was removed by hand.
    Lost,
}

/// A shared [`on_event`](crate::Builder::on_event) hook.
#[derive(Clone)]
pub(crate) struct EventHook(pub(crate) Arc<dyn Fn(&Event) + Send + Sync>);

impl fmt::Debug for EventHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventHook")
    }
}
