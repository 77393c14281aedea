//! Signing out a user, or all users; and listing the sessions of a user.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::TokenCache;
use crate::engine::core::Engine;
use crate::engine::sign_out::owed::PATIENCE;
use crate::error::Error;
use crate::event::{EventKind, SignedOutBy};
use crate::key::PartitionKey;
use crate::lookup::Durability;
use crate::session::SessionInfo;

impl TokenCache {
    /// Signs out every user of this [namespace](crate::Builder::namespace), on all instances: for an
    /// emergency. On return L2 has confirmed it. Other instances learn of it by the store's feed, or within
    /// ten seconds where there is none. What was in progress when it was called has no effect.
    ///
    /// It is one number in L2, kept without end. An L2 that loses it (by eviction, or restored from a backup)
    /// gets it back from an instance that knows it; where there is none, all users are signed out.
    ///
    /// It goes on if the caller stops waiting.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it is not known whether L2 has it: repeat it.
    pub async fn sign_out_all(&self) -> Result<(), Error> {
        let engine = &self.0;
        let revokes = |engine: Arc<Engine>| async move { engine.revoke().await };
        let revoked = engine.detached(engine.deadline(), revokes).await;
        let revoked = revoked.and_then(|revoked| revoked);
        revoked.map_err(|failure| Error::Unavailable(failure.error))?;
        engine.tell(None, EventKind::SignedOut(SignedOutBy::All));
        Ok(())
    }

    /// Signs out every session that was ever [linked](crate::Tokens::link_user) to this user: "sign out
    /// everywhere". It takes effect in this process at once. On return L2 has confirmed it, unless the answer
    /// is [`Durability::Pending`]: then it is sent to L2 as soon as L2 is back, by the next process if this
    /// one ends and there is a [journal](crate::Builder::journal).
    ///
    /// It does not look for the sessions, and costs the same however many there are: each session is compared
    /// with the user's epoch in L2 whenever it is read or compared with L2. So [`Durability::Stored`] covers
    /// all sessions that were linked before, also those that are not known or listed anywhere. It says
    /// nothing about sessions that were never linked.
    ///
    /// It goes on if the caller stops waiting. If the answer to it is lost, it is repeated, and may then end
    /// a session that was linked in between.
    ///
    /// # Errors
    /// [`Error::InvalidKey`] and [`Error::ShutDown`]. [`Error::Unavailable`] when L2 does not
    /// confirm it and the policy is [`Strict`](crate::FailurePolicy::Strict), or when the
    /// [journal](crate::Builder::journal) could not take it either; it is then in effect in this process, and
    /// is sent to L2 as long as the process lives.
    pub async fn sign_out_user(&self, user: &str) -> Result<Durability, Error> {
        self.raise(PartitionKey::epoch_of(user)?, SignedOutBy::User)
            .await
    }

    /// Signs out every session that was linked to this session of the provider, by
    /// [`SignIn::provider_session`](crate::session::SignIn::provider_session) or
    /// [`Tokens::link_provider_session`](crate::Tokens::link_provider_session): what an OpenID provider asks for by a
    /// logout token with `iss` and `sid` (OpenID Connect Back-Channel Logout 1.0). All that
    /// [`sign_out_user`](Self::sign_out_user) promises holds here. Check the token before: a forged
    /// one would end sessions.
    ///
    /// # Errors
    /// As for [`sign_out_user`](Self::sign_out_user).
    pub async fn sign_out_provider_session(
        &self,
        iss: &str,
        sid: &str,
    ) -> Result<Durability, Error> {
        let epoch = PartitionKey::epoch_of_provider_session(iss, sid)?;
        self.raise(epoch, SignedOutBy::Provider).await
    }

    /// Signs out every session that was linked to this user of the provider, by
    /// [`SignIn::provider_user`](crate::session::SignIn::provider_user) or
    /// [`Tokens::link_provider_user`](crate::Tokens::link_provider_user): what an OpenID provider asks for by a logout
    /// token with `iss` and `sub`, and without `sid`. All that [`sign_out_user`](Self::sign_out_user) promises holds
    /// here.
    ///
    /// # Errors
    /// As for [`sign_out_user`](Self::sign_out_user).
    pub async fn sign_out_provider_user(&self, iss: &str, sub: &str) -> Result<Durability, Error> {
        let epoch = PartitionKey::epoch_of_provider_user(iss, sub)?;
        self.raise(epoch, SignedOutBy::Provider).await
    }

    /// Signs out every session that is linked to this epoch.
    async fn raise(&self, user: PartitionKey, by: SignedOutBy) -> Result<Durability, Error> {
        let engine = &self.0;
        if engine.queue.is_closed() {
            return Err(Error::ShutDown);
        }
        let id = engine.begin_to_end(&user, None);
        engine.tell(None, EventKind::SignedOut(by));
        let journals = engine
            .journal
            .as_ref()
            .map_or(Duration::ZERO, |_| 2 * PATIENCE);
        let ends = |engine: Arc<Engine>| async move { engine.end_user(id).await };
        let ended = engine.detached(engine.deadline() + journals, ends).await;
        match ended.and_then(|ended| ended) {
            Ok(()) => Ok(Durability::Stored),
            Err(failure) => engine
                .degrade(engine.failure_policy, failure)
                .map(|()| Durability::Pending),
        }
    }

    /// The sessions that were [linked](crate::Tokens::link_user) to this user and have not been signed out
    /// or moved since: for showing them. The newest 1,000 of a user are listed, each for 400 days; an expired
    /// one may be among them, and one that was signed out by another of its links, as by a logout at the provider, until it
    /// is used. The effect of [`sign_out_user`](Self::sign_out_user) does not depend on this
    /// list.
    ///
    /// # Errors
    /// [`Error::InvalidKey`], and [`Error::Unavailable`] when L2 cannot be asked.
    pub async fn sessions_of(&self, user: &str) -> Result<Vec<PartitionKey>, Error> {
        let user = PartitionKey::epoch_of(user)?;
        let engine = &self.0;
        let looks = |engine: Arc<Engine>| async move { engine.listed(&user).await };
        let listed = engine.detached(engine.deadline(), looks).await;
        let listed = listed.and_then(|listed| listed);
        listed.map_err(|failure| Error::Unavailable(failure.error))
    }
}

impl TokenCache {
    /// The sessions of this user with what there is to show of them, newest first: for a page with a button beside each.
    /// Those that [`sessions_of`](Self::sessions_of) lists are looked up in L2; what L2 no longer has is left out, and so
    /// is what any of its links has ended. It is one more read for each and for each link, in groups: [`sessions_of`](Self::sessions_of) alone is cheaper.
    ///
    /// ```
    /// # async fn page(cache: tower_token_cache::TokenCache) -> Result<(), tower_token_cache::Error> {
    /// for session in cache.sessions("ada").await? {
    ///     println!("{:?}, last seen {:?}", session.label, session.last_seen);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`sessions_of`](Self::sessions_of).
    pub async fn sessions(&self, user: &str) -> Result<Vec<SessionInfo>, Error> {
        let user = PartitionKey::epoch_of(user)?;
        let engine = &self.0;
        let looks = |engine: Arc<Engine>| async move { engine.describe_sessions(&user).await };
        let deadline = engine.deadline() + engine.l2.timeouts.operation;
        let listed = engine.detached(deadline, looks).await;
        let listed = listed.and_then(|listed| listed);
        listed.map_err(|failure| Error::Unavailable(failure.error))
    }
}

/// Logout tokens of providers.
#[cfg(feature = "logout")]
impl TokenCache {
    /// Signs out what is linked to this epoch, unless that was done for this logout token, which is known for so long.
    /// On return L2 has it. It goes on if the caller stops waiting.
    pub(crate) async fn obey(
        &self,
        token: PartitionKey,
        epoch: PartitionKey,
        keep: Duration,
    ) -> Result<(), Error> {
        let engine = &self.0;
        if engine.queue.is_closed() {
            return Err(Error::ShutDown);
        }
        let obeys = |engine: Arc<Engine>| async move { engine.obey(&token, &epoch, keep).await };
        // One wait for L2 before the sign-out, and one for it.
        let deadline = engine.deadline() + engine.l2.timeouts.operation;
        let obeyed = engine.detached(deadline, obeys).await;
        let obeyed = obeyed.and_then(|obeyed| obeyed);
        obeyed.map_err(|failure| Error::Unavailable(failure.error))
    }
}
